"""Training tasks of study 2: captions by image, the CIDEr reward, self-critical steps, text-only models."""

import dataclasses
import math

import captioning_world as world
import numpy as np
import pytest
import torch

from attention_atlas.data.corpus import Example
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.vocabulary import EOS, UNK
from attention_atlas.measures.text.cider import cider
from attention_atlas.models.caption_transformer import CaptionTransformer, rows_of
from attention_atlas.models.load import load_model
from attention_atlas.models.text_only import TextOnlyTransformer
from attention_atlas.regions.features_file import FeaturesFile
from attention_atlas.training.batches import next_tokens
from attention_atlas.training.by_image import padded
from attention_atlas.training.cider_reward import CiderReward
from attention_atlas.training.loop import train
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.tasks.image_captions import ImageCaptioningTask, ring
from attention_atlas.training.tasks.language_model import LanguageModelTask, loss_of
from attention_atlas.training.tasks.self_critical import (
    SelfCriticalTask,
    log_probability,
    mean_of_others,
    sample,
)

SMALL = {"layers": 1, "heads": 2, "dim": 16, "inner": 32, "max_length": 18, "dropout": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The hand-made world with three short captions per image, and its features."""
    made = world.corpus()
    captions = []
    for i, scene in enumerate(made.scenes.values()):
        a, b = world.things(i)
        texts = [f"a {a} next to a {b}", f"a room with a {a} and a {b}", f"the {a} is near a {b}"]
        captions += [Example(f"{scene.image_id}.c{n}", scene.image_id, t) for n, t in enumerate(texts)]
    made = dataclasses.replace(made, examples=captions)
    path = world.write_features(tmp_path_factory.mktemp("features") / "features.h5", made)
    with FeaturesFile(path) as features:
        yield made, features


def prepared(data, **options):
    task = ImageCaptioningTask(min_count=1, batch_size=4, **options)
    task.prepare(*data)
    return task


def model_of(task, seed=0):
    torch.manual_seed(seed)
    return CaptionTransformer(**task.model_sizes(), **SMALL).eval()


def test_shared_encoding_gives_the_same_scores(data):
    task = prepared(data)
    model = model_of(task)
    batch = task.train.batch([2, 0, 5])
    assert batch["ids_BT"].shape[0] == 9 and batch["features_BND"].shape[0] == 3
    with torch.no_grad():
        together = model(batch)
        for b, image in enumerate([2, 2, 2, 0, 0, 0, 5, 5, 5]):
            alone = task.train.regions.batch([task.train.images[image]])
            one = model({**alone, "ids_BT": batch["ids_BT"][b : b + 1]})
            kept = int((batch["ids_BT"][b] != 0).sum()) - 1  # rows that generate a word or EOS
            torch.testing.assert_close(together[b, :kept], one[0, :kept], atol=1e-5, rtol=1e-5)
            assert not together[b, kept:].any()


def test_an_epoch_has_every_caption_once(data):
    task = prepared(data)
    seen = [tuple(i for i in row if i > 2) for batch in task.batches(0) for row in batch["ids_BT"].tolist()]
    assert sorted(seen) == sorted(tuple(ids) for ids in task.train.ids)
    every = [b["ids_BT"].tolist() for b in task.batches(1)]
    assert [b["ids_BT"].tolist() for b in task.batches(1, 2)] == every[2:]


def test_shuffled_images_are_other_images_each_once(data):
    others = ring([f"i{n}" for n in range(7)], seed=1)
    assert sorted(others.values()) == sorted(others) and all(a != b for a, b in others.items())
    own, shuffled = prepared(data), prepared(data, images="shuffled")
    name = own.train.images[3]
    other = shuffled.train.regions.other[name]
    assert torch.equal(shuffled.train.regions.get(name)[0], own.train.regions.get(other)[0])
    assert torch.equal(shuffled.held_out.regions.get(name)[0], own.train.regions.get(name)[0])
    with pytest.raises(ConfigError, match="images: 'none'"):
        ImageCaptioningTask(images="none")


def test_reward_is_cider_over_the_whole_split():
    references = {
        "a": ["a red lamp on a table", "a lamp"],
        "b": ["two chairs near a sofa", "some chairs"],
        "c": ["a sofa and a table"],
    }
    captions = {"a": "a red lamp on a sofa", "b": "two chairs", "c": "a sofa and a table"}
    expected = cider(references, captions)[1]
    reward = CiderReward(references)
    got = reward(["c", "a", "b", "a"], [captions["c"], captions["a"], captions["b"], "two two two two"])
    np.testing.assert_allclose(got[:3], [expected["c"], expected["a"], expected["b"]], rtol=1e-9)
    assert got[0] == pytest.approx(10.0) and got[3] == 0.0  # its only reference; no common n-gram
    np.testing.assert_allclose(reward(["a"], [captions["a"]]), expected["a"], rtol=1e-9)  # whatever the batch
    with pytest.raises(AtlasError, match="at least 2 images"):
        CiderReward({"a": ["x"]})


def test_mean_of_others_by_hand():
    np.testing.assert_allclose(mean_of_others(np.array([1.0, 2, 6, 0, 0, 3]), 3), [4, 3.5, 1.5, 1.5, 1.5, 0])


def test_sample_probability_is_that_of_the_steps(data):
    task = prepared(data)
    model = model_of(task)
    batch = task.train.regions.batch(task.train.images[:3]) | {"image_B": torch.tensor([0, 0, 1, 2])}
    torch.manual_seed(5)
    drawn = sample(model, batch, max_words=5)
    torch.manual_seed(5)
    assert drawn == sample(model, batch, max_words=5)
    assert all(len(row) <= 5 and UNK not in row and 0 not in row for row in drawn)
    whole = log_probability(model, batch, drawn)
    memory = model.encode(batch)
    for b, row in enumerate(drawn):
        own = rows_of(memory, torch.tensor([b]))
        ids, total = torch.tensor([[1]]), 0.0
        for word in row:
            logits = model.decode_step(own, ids)[0][0].detach().clone()
            logits[[0, 1, UNK]] = -math.inf
            total += float(logits.log_softmax(-1)[word])
            ids = torch.cat([ids, torch.tensor([[word]])], 1)
        assert float(whole[b].detach()) == pytest.approx(total, abs=1e-4)


def test_cut_samples_have_no_end_of_their_own(data):
    task = prepared(data)
    model = model_of(task)
    batch = task.train.regions.batch(task.train.images[:1]) | {"image_B": torch.tensor([0, 0])}
    cut, ended = log_probability(model, batch, [[4, 5], [4, 5, EOS]]).tolist()
    logits = model(batch | {"ids_BT": padded([[4, 5], [4, 5]])})[0, 2]
    logits[[0, 1, UNK]] = -math.inf
    assert ended - cut == pytest.approx(float(logits.log_softmax(-1)[EOS]), abs=1e-5)


@pytest.mark.parametrize("baseline", ["greedy", "mean"])
def test_self_critical_training_raises_the_reward(data, tmp_path, baseline):
    settings = {"betas": (0.9, 0.98), "threads": 1}
    first = prepared(data)
    torch.manual_seed(0)
    start = CaptionTransformer(**first.model_sizes(), **SMALL)
    weights, _ = train(
        first, start, TrainSettings(epochs=2, validate_every=2, lr=0.01, **settings), tmp_path / "a"
    )
    from attention_atlas.models.run_folder import save_run

    config = {
        "model": {"_target_": "attention_atlas.models.caption_transformer.CaptionTransformer", **SMALL},
        "sizes": first.model_sizes(),
    }
    save_run(tmp_path / "run", weights, config, [{"epoch": 1.0}])
    first.save(tmp_path / "run")
    task = SelfCriticalTask(
        min_count=1, batch_size=8, samples=2, baseline=baseline, initial=str(tmp_path / "run")
    )
    task.prepare(*data)
    model = CaptionTransformer(**task.model_sizes(), **SMALL)
    task.start(model)
    torch.testing.assert_close(dict(model.state_dict()), weights)
    before = task.validate(model.eval())["cider"]
    loop = TrainSettings(epochs=8, validate_every=8, lr=3e-3, **settings)
    history = train(task, model, loop, tmp_path / "b")[1]
    assert history[-1]["cider"] > before + 20
    assert history[0]["cider"] == pytest.approx(before) and history[0]["step"] == 0
    # A rate that ruins the captions: the weights that it began with are kept.
    model = CaptionTransformer(**task.model_sizes(), **SMALL)
    task.start(model)
    ruin = TrainSettings(epochs=1, lr=3.0, **settings)
    kept, history = train(task, model, ruin, tmp_path / "c")
    assert history[-1]["cider"] < before
    torch.testing.assert_close(kept, weights)


def test_self_critical_settings():
    with pytest.raises(ConfigError, match="baseline"):
        SelfCriticalTask(baseline="none", initial="x")
    with pytest.raises(ConfigError, match="samples: 1"):
        SelfCriticalTask(baseline="mean", samples=1, initial="x")


def test_language_model_learns_and_padding_is_nothing(data, tmp_path):
    task = LanguageModelTask(pieces=300, batch_size=12)
    task.prepare(data[0])
    torch.manual_seed(0)
    model = TextOnlyTransformer(**task.model_sizes(), layers=1, heads=2, dim=32, dropout=0.0, max_length=64)
    rows = [*task.rows[:3], task.rows[3][:4]]
    with torch.no_grad():
        together = float(loss_of(model.eval(), next_tokens(rows, task.subwords.end)))
        alone = [(float(loss_of(model, next_tokens([row], task.subwords.end))), len(row) - 1) for row in rows]
    assert together == pytest.approx(sum(a * n for a, n in alone) / sum(n for _, n in alone), abs=1e-5)
    before = task.validate(model)
    settings = TrainSettings(epochs=6, validate_every=6, lr=0.01, betas=(0.9, 0.98), threads=1)
    history = train(task, model, settings, tmp_path)[1]
    assert history[-1]["loss"] < 0.6 * before["loss"]
    pieces = sum(len(r) - 1 for r in task.held_out)
    words = task.held_out_words + len(task.held_out)
    assert history[-1]["word_perplexity"] == pytest.approx(math.exp(history[-1]["loss"] * pieces / words))


def test_published_weights_are_loaded_with_their_tokenizer(data, tmp_path):
    """A folder in the format of the transformers library, like distilgpt2; untrained."""
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

    first = LanguageModelTask(pieces=280)
    first.prepare(data[0])
    torch.manual_seed(1)
    config = GPT2Config(vocab_size=len(first.subwords), n_embd=24, n_layer=2, n_head=3, n_positions=64)
    saved = GPT2Model(config)
    saved.save_pretrained(tmp_path / "gpt2")
    fast = PreTrainedTokenizerFast(tokenizer_object=first.subwords.tokenizer, eos_token="<|endoftext|>")
    fast.save_pretrained(tmp_path / "gpt2")
    source = {
        "_target_": "attention_atlas.models.text_only.load_pretrained",
        "name": "gpt2",
        "run_folder": None,
        "weights": str(tmp_path / "gpt2"),
    }
    model, subwords, _ = load_model(source)
    torch.testing.assert_close(model.gpt2.state_dict(), saved.state_dict())
    assert not model.training and subwords.encode("a red lamp") == first.subwords.encode("a red lamp")
    with pytest.raises(AtlasError, match="hub id or a folder"):
        load_model(source | {"weights": str(tmp_path / "absent")})
    with pytest.raises(AtlasError, match="hub id or a folder"):
        TextOnlyTransformer(pieces=280, weights=str(tmp_path / "absent"))
    with pytest.raises(AtlasError, match=r"has \d+ pieces"):
        TextOnlyTransformer(pieces=7, weights=str(tmp_path / "gpt2"))
