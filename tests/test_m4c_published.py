"""M4C with its published inputs, from tiny files: BERT, FastText, detector features of words."""

from __future__ import annotations

from pathlib import Path

import m4c_published_world as given
import numpy as np
import pytest
import torch
from m4c_world import WORDS, signs
from torch.nn import functional as F

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.word_vectors import FastText
from attention_atlas.models.m4c import M4C
from attention_atlas.models.m4c_published import PublishedM4C, build_m4c
from attention_atlas.regions.ocr_features import OcrFeatures
from attention_atlas.studies.alignment.m4c import M4cEvaluator
from attention_atlas.training.loop import train
from attention_atlas.training.optimizers import parameter_groups
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.tasks.text_vqa import TextVqaTask

SETTINGS = {"answer_min": 10, "batch_size": 16, "steps": 3, "objects": 4, "longest": 6}
DOT = {"_target_": "attention_atlas.alignments.dot.Dot"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    corpus, features, ocr = signs(root)
    paths = {
        "text_encoder": given.write_bert(root / "bert"),
        "fasttext": given.write_fasttext(root / "wiki.bin", list(WORDS)),
        "ocr_features": given.write_ocr_features(root / "ocr_features", ocr),
    }
    return corpus, features, ocr, paths


@pytest.fixture
def task(world):
    corpus, features, ocr, paths = world
    made = TextVqaTask(ocr, **SETTINGS, **paths)
    made.prepare(corpus, features)
    return made


def model_of(task, **more):
    torch.manual_seed(0)
    sizes = {"layers": 2, "heads": 2, "dim": 16, "inner": 24, "text_layers": 3, "dropout": 0.0}
    model = PublishedM4C(alignment=DOT, **(task.model_sizes() | sizes | more)).eval()
    task.start(model)
    return model


def batch_of(task, indices=(0, 1, 2)):
    return task.train.batch(list(indices), np.random.default_rng(0))


@torch.no_grad()
def test_the_question_is_what_the_first_layers_of_bert_make_of_it(task, world):
    from transformers import BertModel

    model, batch = model_of(task), batch_of(task)
    bert = BertModel.from_pretrained(world[3]["text_encoder"]).eval()
    assert len(bert.encoder.layer) == 4 and len(model.text_bert.encoder.layer) == 3
    every = bert(batch["ids_BT"], batch["pieces_BT"].long(), output_hidden_states=True).hidden_states
    text = batch["ids_BT"].shape[1]
    found = model.embed(batch)[0][:, :text]
    wanted = model.text_out(every[3])
    assert torch.allclose(found[batch["pieces_BT"]], wanted[batch["pieces_BT"]], atol=1e-5)
    assert batch["ids_BT"][0, 0] == 2 and batch["ids_BT"].shape[1] <= SETTINGS["longest"]


@torch.no_grad()
def test_words_read_are_the_published_linear_layer_of_all_their_numbers(task):
    model, batch = model_of(task), batch_of(task)
    parts = [batch["ocr_vectors_BOF"], batch["ocr_spelling_BOP"], batch["ocr_look_BOL"]]
    legacy = torch.randn(16, 50)  # weights of the 50 numbers that are always zero
    layers = [model.vectors, model.spelling, model.ocr_look]
    weight = torch.cat([*(layer.weight for layer in layers), legacy], 1)
    joined = torch.cat([*(F.normalize(p, dim=-1) for p in parts), torch.zeros(*parts[0].shape[:2], 50)], -1)
    assert joined.shape[-1] == given.VECTORS + 604 + given.FEATURES + 50
    wanted = model.norms["ocr_look"](F.linear(joined, weight, model.ocr_look.bias))
    wanted = wanted + model.norms["ocr_place"](model.ocr_place(batch["ocr_boxes_BO4"]))
    assert torch.allclose(model.embed(batch)[2], wanted, atol=1e-5)


def test_each_word_has_its_own_row_and_vector(task, world):
    batch = batch_of(task)
    numbers = sorted(world[0].scenes)
    for b, i in enumerate((0, 1, 2)):
        image_id = task.train.examples[i].image_id
        rows = [10 * numbers.index(image_id) + t.row for t in task.train.read[image_id]]
        assert batch["ocr_look_BOL"][b, : len(rows), 0].tolist() == rows
        words = [t.text.lower() for t in task.train.read[image_id]]
        wanted = FastText(world[3]["fasttext"])(words)
        assert np.allclose(batch["ocr_vectors_BOF"][b, : len(words)], wanted)


@torch.no_grad()
def test_padding_and_blindness(task):
    model, batch = model_of(task), batch_of(task)
    longer = dict(batch)
    longer["ids_BT"] = F.pad(batch["ids_BT"], (0, 1), value=7)
    longer["pieces_BT"] = F.pad(batch["pieces_BT"], (0, 1), value=False)
    model.max_text = 20
    assert torch.allclose(model(batch), model(longer), atol=1e-5)
    blind = model_of(task, blind=True)
    batch["previous_BS"] = batch["previous_BS"][:, :1]  # a pointer to a word read would show it
    other = batch | {n: batch[n].flip(0) + 1 for n in ("ocr_look_BOL", "ocr_vectors_BOF", "features_BND")}
    answers = len(task.answer_vocab)
    assert torch.allclose(blind(batch)[..., :answers], blind(other)[..., :answers], atol=1e-5)
    assert not torch.allclose(model(batch)[..., :answers], model(other)[..., :answers], atol=1e-3)


def test_it_trains_with_a_lower_rate_for_bert_and_is_judged(task, tmp_path):
    model = model_of(task)
    settings = TrainSettings.read(
        {"epochs": 2, "lr": 1e-3, "schedule": {"name": "constant"}, "lr_scales": {"text_bert.": 0.1}}
    )
    rates = {g["lr"]: len(g["params"]) for g in parameter_groups(model, settings)}
    assert rates[1e-4] == sum(1 for _ in model.text_bert.parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights, history = train(task, model, settings, tmp_path / "work", "cpu", 0)
    assert len(history) == 2
    for layer in ("text_bert.encoder.layer.0.attention.self.query", "vectors", "spelling", "ocr_look"):
        assert not torch.equal(weights[f"{layer}.weight"], before[f"{layer}.weight"]), layer
    model.load_state_dict(weights)
    result = M4cEvaluator(choosing=4, judged=6, shown=2)(model, task, "cpu")
    assert result.grounding and len(result.shown) == 2 and 0 <= result.scores["accuracy"] <= 100


def test_a_run_folder_reads_back(task, tmp_path):
    from attention_atlas.models.run_folder import load_run, save_run

    model = model_of(task)
    sizes = {"layers": 2, "heads": 2, "dim": 16, "inner": 24, "text_layers": 3, "dropout": 0.0}
    target = {"_target_": "attention_atlas.models.m4c_published.build_m4c", "alignment": DOT, **sizes}
    config = {"model": target | {"_recursive_": False}, "sizes": task.model_sizes()}
    save_run(tmp_path / "run", model.state_dict(), config, [{"loss": 1.0}])
    task.save(tmp_path / "run")
    loaded, _, _ = load_run(tmp_path / "run")
    batch = batch_of(task)
    assert type(loaded) is PublishedM4C
    with torch.no_grad():
        assert torch.equal(loaded(batch), model(batch))


def test_without_a_text_encoder_it_is_the_embedded_model():
    model = build_m4c(vocab_size=20, answers=9, feature_dim=6, look_dim=5, dim=16, heads=2)
    assert type(model) is M4C


def test_fasttext_files(tmp_path, monkeypatch):
    text = FastText(given.write_fasttext(tmp_path / "a.vec", ["exit", "2", "6"]))
    found = text(["exit", "unknown", "2"])  # "2" is a word, the header "3 6" is none
    assert found.shape == (3, given.VECTORS) and found.dtype == np.float32
    assert found[0].any() and found[2].any() and not found[1].any()
    binary = FastText(given.write_fasttext(tmp_path / "b.bin", ["exit", "entry"]))
    assert binary(["exit", "exitway"]).any(1).all()  # an unknown word has its n-grams
    for name, content, message in (
        ("c.vec", "1 2\nexit 0.1\nstop 0.1 0.2\n", "line 3: 'stop' does not have 1 numbers"),
        ("d.vec", "1 2\nother 0.1 0.2\n", "has none of the 2 words"),
        ("e.bin", "nothing", "not a FastText model"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(AtlasError, match=message):
            FastText(tmp_path / name)(["exit", "stop"])
    with pytest.raises(AtlasError, match=r"fasttext: .*none.vec: no such file; run 'make paper-check'"):
        FastText(tmp_path / "none.vec")
    with pytest.raises(AtlasError, match=r"neither a \.vec nor a \.bin"):
        FastText(tmp_path / "none.txt")


def test_archives_of_word_features(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    archive = OcrFeatures(tmp_path)
    assert archive.dim == 2 and archive.get("a", [2, 0]).tolist() == [[4, 5], [0, 1]]
    assert archive.get("b", []).shape == (0, 2)  # an image without words needs no file
    np.save(tmp_path / "wide.npy", np.zeros((1, 3), np.float32))
    np.save(tmp_path / "nan.npy", np.full((1, 2), np.nan, np.float32))
    np.save(tmp_path / "flat.npy", np.zeros(3, np.float32))
    np.save(tmp_path / "object.npy", np.array([{"x": 1}]), allow_pickle=True)
    for name, rows, message in (
        ("b", [0], "b.npy: no such file"),
        ("a", [3], "has 3 rows, but the image has a word 3"),
        ("a", [-1], "ocr=rosetta"),
        ("wide", [0], "has 3 columns, other files 2"),
        ("nan", [0], "not finite"),
        ("flat", [0], "expected floats"),
        ("object", [0], "cannot be read"),
    ):
        with pytest.raises(AtlasError, match=message):
            archive.get(name, rows)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AtlasError, match=r"has no \.npy file"):
        OcrFeatures(tmp_path / "empty")
    with pytest.raises(AtlasError, match="no such folder; run 'make paper-check'"):
        OcrFeatures(tmp_path / "none")


def test_bad_settings_are_named(world, task, tmp_path):
    corpus, features, ocr, paths = world
    with pytest.raises(ConfigError, match="give all three or none"):
        TextVqaTask(ocr, fasttext="x.vec")
    with pytest.raises(ConfigError, match="exchange: must be 0"):
        TextVqaTask(ocr, exchange=0.5, **paths)
    with pytest.raises(AtlasError, match=r"the tokenizer of .* cannot be loaded"):
        TextVqaTask(ocr, **(paths | {"text_encoder": str(tmp_path)})).prepare(corpus, features)
    with pytest.raises(AtlasError, match=r"text_encoder: .* is a bert of 4 layers; .* at least 5"):
        model_of(task, text_layers=5)
    with pytest.raises(AtlasError, match=r"text_encoder: .* cannot be loaded"):
        model_of(task, text_encoder=str(tmp_path))


def test_the_paper_profile_has_the_published_sizes(root: Path):
    from omegaconf import OmegaConf

    from attention_atlas.workflow.compose import compose

    def made(profile: str, name: str):
        words = [f"model={name}", "train=text_vqa", "data=textvqa", f"profile={profile}"]
        return OmegaConf.to_container(compose(root, "train", ["study=alignment", *words]), resolve=True)

    for name in ("m4c", "m4c_blind"):
        paper = made("paper", name)
        model, task, loop = paper["model"], paper["train"]["task"], paper["train"]["loop"]
        assert model["loss"] == "sigmoid"
        assert [model[n] for n in ("layers", "heads", "dim", "text_layers")] == [4, 12, 768, 3]
        assert [task[n] for n in ("longest", "objects", "words", "steps")] == [20, 100, 50, 12]
        assert task["text_encoder"] == "google-bert/bert-base-uncased" and task["exchange"] == 0
        assert loop["lr_scales"] == {"text_bert.": 0.1}
        for profile in ("mini", "smoke"):
            here = made(profile, name)
            assert here["train"]["task"]["text_encoder"] == here["train"]["task"]["fasttext"] == ""
    features = OmegaConf.load(root / "conf/features/faster_rcnn_npz.yaml")
    assert features.regions == 100 and features.dim == 2048


def test_one_matrix_of_the_size_of_a_head_in_each_layer_and_no_scale():
    general = {"_target_": "attention_atlas.alignments.general_kq.GeneralKQ"}
    sizes = {"vocab_size": 5, "answers": 6, "feature_dim": 8, "look_dim": 5, "inner": 8}
    model = build_m4c(alignment=general, **sizes)
    found = [p.shape for n, p in model.named_parameters() if ".alignment." in n]
    assert found == [(64, 64)] * 4  # 768 units in 12 heads, 4 layers
    layer = model.layers[0].attention.alignment
    q, k = torch.randn(1, 12, 2, 64), torch.randn(1, 12, 3, 64)
    matrix = next(layer.parameters())
    scores = layer(q, k)
    one = [torch.einsum("hqd,de,hke->hqk", q[0], m, k[0]) for m in (matrix, matrix.T)]
    assert any(torch.allclose(scores[0], wanted, atol=1e-4) for wanted in one)


def test_a_hundred_regions_without_names(root: Path, tmp_path: Path):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from attention_atlas.data.corpus import Corpus, Example, Scene
    from attention_atlas.regions.features_file import FeaturesFile

    features = np.random.default_rng(0).normal(size=(101, 2048)).astype(np.float32)
    boxes = np.tile(np.array([[2.0, 1.0, 9.0, 5.0]], np.float32), (101, 1))
    np.savez(tmp_path / "p1.npz", feat=features, bbox=boxes, image_w=12, image_h=8)
    config = OmegaConf.load(root / "conf/features/faster_rcnn_npz.yaml")
    config.folder = str(tmp_path)
    corpus = Corpus(tmp_path, {"p1": Scene("p1", "p1.jpg", 12, 8, "train")}, [Example("q", "p1", "what?")])
    source = instantiate(config)
    source.extract(corpus, out=tmp_path / "f.h5", work=tmp_path, device="cpu")
    found = FeaturesFile(tmp_path / "f.h5").read("p1")
    assert found.count == 100 and np.allclose(found.features[99], features[99], atol=1e-2)
