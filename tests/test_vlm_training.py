"""Tower, language model and both vision LLMs are trained on small images, saved, read again, and look."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from vlm_world import captioned

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.vlm.load import load_vlm
from attention_atlas.models.vlm.samples import CAPTION_PROMPT, sample_of, samples_of
from attention_atlas.models.vlm.vit_tower import VitTower
from attention_atlas.training.batches import next_tokens, pooled
from attention_atlas.training.run import build_task, train_task
from attention_atlas.training.tasks.contrastive import ContrastiveTask
from attention_atlas.training.tasks.vlm_text import VlmTextTask
from attention_atlas.training.tasks.vlm_tuning import VlmTuningTask
from attention_atlas.training.vlm_images import PixelCache, read_layers, samples

MODELS = "attention_atlas.models.vlm."
TASKS = "attention_atlas.training.tasks."
TOWER = {
    "_target_": MODELS + "clip_tower.ClipTower",
    "name": "clip_tower",
    "layers": 2,
    "heads": 2,
    "dim": 32,
    "inner": 48,
    "image_size": 48,
    "patch_size": 16,
    "stem": [8],
    "text_layers": 1,
}
TEXT = {
    "_target_": MODELS + "text_model.LlamaText",
    "name": "llama_text",
    "layers": 3,
    "heads": 2,
    "kv_heads": 2,
    "dim": 32,
    "inner": 48,
    "initial_std": 0.15,
    "tied": True,
}
LLAVA = {"_target_": MODELS + "llava.Llava", "name": "llava"}
BLIP = {
    "_target_": MODELS + "instructblip.InstructBlip",
    "name": "instructblip",
    "queries": 4,
    "qformer_layers": 2,
    "qformer_heads": 2,
    "qformer_inner": 48,
    "qformer_std": 0.15,
}
LOOP = {"lr": 4e-3, "eps": 1e-8, "clip_norm": 1.0, "threads": 1}


def train(corpus, model, task, epochs, out):
    loop = LOOP | {"epochs": epochs, "validate_every": epochs}
    cfg = OmegaConf.create(
        {
            "profile": "smoke",
            "seed": 0,
            "data": {"name": "made_up"},
            "model": model,
            "train": {"task": task, "loop": loop},
        }
    )
    ready = build_task(cfg)
    ready.prepare(corpus, None)
    return train_task(cfg, ready, out, out.parent / "work" / out.name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders of the tower and of the language model, and what they were trained on."""
    folder = tmp_path_factory.mktemp("runs")
    corpus, layers = captioned(folder / "world", 48)
    common = {"layers": layers, "pieces": 150}
    images = {"image_size": 48, "patch_size": 16, "batch_size": 12, "word_min": 1}
    tower = {"_target_": TASKS + "contrastive.ContrastiveTask", **common, **images}
    text = {"_target_": TASKS + "vlm_text.VlmTextTask", **common, "batch_size": 40}
    best = train(corpus, TOWER, tower, 25, folder / "tower")
    text_best = train(corpus, TEXT, text, 12, folder / "text")
    return corpus, layers, folder, best, text_best


def tuning(layers, folder, **more):
    target = {"_target_": TASKS + "vlm_tuning.VlmTuningTask", "layers": layers}
    runs = {"tower": str(folder / "tower"), "text_model": str(folder / "text")}
    return {**target, **runs, "batch_size": 12, "written": 6, "judged": 0, **more}


def test_the_tower_learns_pairs_and_patches(runs):
    best = runs[3]
    assert best["shown_recall"] > 60 and best["shown_precision"] > 60
    assert best["retrieval"] > 1.5 * best["retrieval_chance"]


def test_the_head_on_patches_starts_from_how_often_words_are_shown(runs):
    corpus, layers, *_ = runs
    task = ContrastiveTask(layers=layers, pieces=150, image_size=48, patch_size=16, word_min=1)
    task.prepare(corpus)
    model = instantiate({k: v for k, v in TOWER.items() if k != "name"}, **task.model_sizes())
    task.start(model)
    share_W = torch.cat([task.shown(path) for path, _ in task.train]).mean(0)
    assert torch.allclose(model.patch_words.bias.sigmoid(), share_W.clamp(1e-4, 0.9), atol=1e-5)


def test_the_language_model_learns_the_texts(runs):
    assert runs[4]["loss"] < 1.0  # a guess among some 60 pieces costs 4


@pytest.mark.parametrize("model", [LLAVA, BLIP], ids=["llava", "instructblip"])
def test_a_tuned_model_looks_at_the_image(runs, model):
    corpus, layers, folder, *_ = runs
    out = folder / model["name"]
    best = train(corpus, model, tuning(layers, folder), 16, out)
    assert best["loss"] < best["loss_other"] - 0.1
    assert best["loss_captions"] < best["loss_captions_other"] - 0.1
    loaded = load_vlm(out)
    chosen = samples_of(corpus, corpus.split("val"))
    total = sum(a for a, _ in loaded.log_prob(chosen))
    number = sum(b for _, b in loaded.log_prob(chosen))
    assert -total / number == pytest.approx(best["loss_captions"], rel=1e-3)
    assert best["cider"] > best["cider_other"]
    assert all("block" in text for text in loaded.write(chosen[:3], longest=8))


def test_the_blind_model_trains_without_images(runs):
    corpus, layers, folder, *_ = runs
    best = train(corpus, LLAVA | {"blind": True}, tuning(layers, folder, written=0), 2, folder / "blind")
    loaded = load_vlm(folder / "blind")
    chosen = samples_of(corpus, corpus.split("val"))
    assert loaded.batch(chosen[:2]).keys() == {"input_ids", "attention_mask"}
    # What it was validated with is the loss without an image, whichever is shown.
    own = loaded.log_prob(chosen)
    assert loaded.log_prob(chosen, images=[s.image for s in chosen[::-1]]) == own
    total, number = (sum(column) for column in zip(*own))
    assert -total / number == pytest.approx(best["loss_captions"], rel=1e-3)
    assert best["loss_captions_other"] == best["loss_captions"]


def test_training_twice_gives_the_same_bytes(runs):
    corpus, layers, folder, *_ = runs
    for name in ("one", "two"):
        train(corpus, LLAVA, tuning(layers, folder, written=0), 1, folder / name)
    one, two = ((folder / n / "model.safetensors").read_bytes() for n in ("one", "two"))
    assert one == two


def test_the_tower_is_not_tuned(runs):
    from safetensors.torch import load_file

    corpus, layers, folder, *_ = runs
    train(corpus, LLAVA, tuning(layers, folder, written=0), 1, folder / "frozen")
    tower, tuned = (load_file(folder / n / "model.safetensors") for n in ("tower", "frozen"))
    for name, value in tower.items():
        if name.startswith("clip.vision_model."):
            inner = name.removeprefix("clip.vision_model.")
            assert torch.equal(value, tuned["model.model.vision_tower." + inner])


def test_llava_is_tuned_on_a_pretrained_vit(runs):
    from test_vlm_vit_tower import dinov2_folder

    corpus, layers, folder, *_ = runs
    tower = {"model": dinov2_folder(folder / "vit"), "image_size": 48, "pool": 2}
    train(corpus, LLAVA, tuning(layers, folder, tower=tower), 1, folder / "llava_vit")
    loaded = load_vlm(folder / "llava_vit")
    assert loaded.grid == (3, 3) and loaded.inputs.image_tokens == 9
    expected = VitTower(**tower).vision.state_dict()
    found = loaded.model.model.vision_tower.state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in found)
    with pytest.raises(AtlasError, match=r"task.tower: its class needs a CLIP tower"):
        train(corpus, BLIP, tuning(layers, folder, tower=tower), 1, folder / "blip_vit")


def test_the_language_model_is_frozen_in_the_first_phase(runs):
    from safetensors.torch import load_file

    corpus, layers, folder, *_ = runs
    text = load_file(folder / "text" / "model.safetensors")["model.model.layers.0.mlp.up_proj.weight"]
    changed = {}
    for steps in (10**6, 3, 0):
        out = folder / f"phase{steps}"
        train(corpus, LLAVA, tuning(layers, folder, written=0, projector_steps=steps), 2, out)
        weights = load_file(out / "model.safetensors")
        own = weights["model.model.language_model.layers.0.mlp.up_proj.weight"]
        changed[steps] = not torch.equal(own, text)
    assert changed == {10**6: False, 3: True, 0: True}
    frozen, tuned = (load_file(folder / f"phase{n}" / "model.safetensors") for n in (10**6, 3))
    first = "model.model.multi_modal_projector.linear_1.weight"
    assert not torch.equal(frozen[first], tuned[first])
    out = folder / "blind_phase"  # has nothing but its language model to train
    train(corpus, LLAVA | {"blind": True}, tuning(layers, folder, written=0, projector_steps=10**6), 1, out)
    own = load_file(out / "model.safetensors")["model.model.language_model.layers.0.mlp.up_proj.weight"]
    assert not torch.equal(own, text)


def test_instructions_share_a_row_only_when_alike(runs):
    corpus, layers, folder, *_ = runs
    settings = {"layers": layers, "tower": str(folder / "tower"), "text_model": str(folder / "text")}
    task = VlmTuningTask(**settings, instructions=9)
    task.prepare(corpus)
    groups = [task.by_image[task.images[0]]]  # two captions and three questions
    for config, rows in ((LLAVA, 1), (BLIP, 4)):
        model = instantiate({k: v for k, v in config.items() if k != "name"}, **task.model_sizes())
        task.start(model)
        batch = task.tensors(model, groups, "cpu")
        assert len(batch["input_ids"]) == rows
        assert int((batch["labels"] >= 0).sum()) == sum(
            len(task.model_inputs.text_ids(s.text, end=True)) for s in groups[0]
        )
    task.instructions = 2
    assert len(task.tensors(model, groups, "cpu")["input_ids"]) == 2


def test_questions_and_captions_become_samples(runs):
    corpus, layers, *_ = runs
    both = read_layers(corpus, layers)
    assert len(both) == 2 and len(read_layers(both[1], layers)) == 1
    question = both[1].examples[0]
    asked = sample_of(both[1], question)
    assert asked.prompt == question.text and asked.text == question.answers[0]
    caption = sample_of(corpus, corpus.examples[0])
    assert caption.prompt == CAPTION_PROMPT and caption.text == corpus.examples[0].text
    assert len(samples(both, "val", limit=5)) == 10
    with pytest.raises(AtlasError, match="has no example"):
        samples(both, "extra")
    with pytest.raises(AtlasError, match="no example"):
        samples_of(corpus, [])


def test_cached_pixels_are_the_processors_own(runs):
    from attention_atlas.models.vlm.images import mini_image_processor
    from attention_atlas.models.vlm.inputs import VlmInputs

    corpus = runs[0]
    for size in (48, 36):
        cache = PixelCache(mini_image_processor(size))
        path = corpus.image_path(corpus.examples[0].image_id)
        own = cache.processor(images=[VlmInputs.open_image(path)], return_tensors="pt")["pixel_values"]
        assert torch.allclose(cache.batch([path]), own, atol=2e-2 if size == 36 else 1e-5)


def test_batches_by_hand():
    batch = next_tokens([[1, 5, 6, 3], [1, 7, 3]], 0)
    assert batch["ids_BT"].tolist() == [[1, 5, 6], [1, 7, 0]]
    assert batch["labels_BT"].tolist() == [[5, 6, 3], [7, 3, -100]]
    rng = np.random.default_rng(0)
    rows = [[0] * int(n) for n in rng.integers(1, 9, 50)]
    order = pooled(50, 8, [0, 1], lambda i: len(rows[i]))
    assert sorted(i for part in order for i in part) == list(range(50))
    assert order != pooled(50, 8, [0, 2], lambda i: len(rows[i]))


def test_wrong_settings_are_named(runs, tmp_path):
    corpus, layers, folder, *_ = runs
    with pytest.raises(ConfigError, match="batch_size"):
        ContrastiveTask(batch_size=1)
    with pytest.raises(ConfigError, match="template"):
        VlmTextTask(template="USER:")
    with pytest.raises(ConfigError, match="turns"):
        VlmTuningTask(turns=0)
    swapped = VlmTuningTask(tower=str(folder / "text"), text_model=str(folder / "tower"))
    with pytest.raises(AtlasError, match="no ClipTower"):
        swapped.prepare(corpus)
    with pytest.raises(AtlasError, match="no such file"):
        VlmTuningTask(tower=str(tmp_path), text_model=str(tmp_path)).prepare(corpus)
    with pytest.raises(AtlasError, match="is not a vision LLM"):
        load_vlm(folder / "text")
    questions = read_layers(corpus, layers)[1]
    with pytest.raises(AtlasError, match="has no caption"):
        ContrastiveTask().prepare(questions)
