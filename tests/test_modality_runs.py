"""Study 2 from trained models to figures, on a hand-made world: dumps, comparison, page, images."""

from __future__ import annotations

import dataclasses
import json

import captioning_world as world
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from attention_atlas.data.corpus import Example
from attention_atlas.data.generated import of_generated
from attention_atlas.dumps.runs import dump_runs
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import write_jsonl
from attention_atlas.language.parse import parse_texts, write_parses
from attention_atlas.language.words import words
from attention_atlas.measures.entropy import Entropy
from attention_atlas.measures.results import write_results
from attention_atlas.measures.table import measured, read_table
from attention_atlas.models.caption_transformer import CaptionTransformer
from attention_atlas.models.run_folder import load_run, save_run
from attention_atlas.models.text_only import TextOnlyTransformer
from attention_atlas.plotting.style import style
from attention_atlas.recording import AttentionStore
from attention_atlas.regions.features_file import FeaturesFile
from attention_atlas.studies.modality import figures as modality
from attention_atlas.studies.modality import figures_examples as modality_examples
from attention_atlas.studies.modality.dependencies import Dependencies
from attention_atlas.studies.modality.frequency import NounFrequency
from attention_atlas.studies.modality.locality import Locality
from attention_atlas.studies.modality.pos import PosMass
from attention_atlas.studies.modality.run import run_modality
from attention_atlas.studies.modality.start import StartShare
from attention_atlas.training.tasks.image_captions import ImageCaptioningTask
from attention_atlas.training.tasks.language_model import LanguageModelTask

SMALL = {"layers": 2, "heads": 2, "dim": 16, "inner": 32, "max_length": 18, "dropout": 0.0}
TEXTS = [
    "a lamp standing on a small wooden table next to a sofa",
    "two red chairs in a living room",
    "a doesn't-matter rug lying below the desk",
    "a café table with a plant on top",
]
EXPERIMENT = {
    "name": "modality",
    "pair": ["captioner", "gpt2"],
    "compare": [["captioner", "gpt2"], ["captioner", "blank"]],
    "examples": 2,
    "runs": {
        "captioner": {"model": "captioner", "title": "Captioner"},
        "other": {"model": "captioner", "image": "shuffled"},
        "blank": {"model": "captioner", "image": "blank"},
        "raw": {"model": "captioner", "convention": "unnormalised"},
        "gpt2": {"model": "gpt2", "title": "GPT-2"},
    },
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Untrained models of both kinds, four captions, their dumps, tables and page."""
    root = tmp_path_factory.mktemp("study")
    made = world.corpus(train=4, held=4)
    images = list(made.scenes)
    texts = [Example(f"{i}.c", i, TEXTS[n % 4]) for n, i in enumerate(images)]
    made = dataclasses.replace(made, examples=texts, root=root / "images")
    for scene in made.scenes.values():
        (root / "images" / scene.path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 80), (90, 120, 160)).save(root / "images" / scene.path)
    features = FeaturesFile(world.write_features(root / "features.h5", made))
    task = ImageCaptioningTask(min_count=1, batch_size=2)
    task.prepare(made, features)
    torch.manual_seed(0)
    model = CaptionTransformer(**task.model_sizes(), **SMALL)
    target = "attention_atlas.models.caption_transformer.CaptionTransformer"
    config = {"model": {"_target_": target, **SMALL}, "sizes": task.model_sizes()}
    save_run(root / "captioner", dict(model.state_dict()), config, [{"epoch": 1.0}])
    task.save(root / "captioner")
    text_task = LanguageModelTask(pieces=270)
    text_task.prepare(made)
    small = {"layers": 2, "heads": 3, "dim": 24, "max_length": 64}
    text_model = TextOnlyTransformer(**text_task.model_sizes(), **small)
    target = "attention_atlas.models.text_only.TextOnlyTransformer"
    config = {"model": {"_target_": target, **small}, "sizes": text_task.model_sizes()}
    save_run(root / "gpt2", dict(text_model.state_dict()), config, [{"epoch": 1.0}])
    text_task.save(root / "gpt2")
    held = [i for i in images if made.scenes[i].split == "test"]
    write_jsonl(root / "g.jsonl", [{"image_id": i, "text": TEXTS[n % 4]} for n, i in enumerate(held)])
    corpus = of_generated(made, root / "g.jsonl", "captions")
    parses = parse_texts([e.id for e in corpus.examples], [e.text for e in corpus.examples])
    write_parses(root / "parse.jsonl", parses)
    where = {"corpus": corpus, "features": features, "split": "test", "config_hash": "x"}
    dump_runs(
        EXPERIMENT["runs"], lambda name: root / name, out=root / "attention", work=root / "work", **where
    )
    metrics = {
        "pos": PosMass(above={"NOUN": [0.3]}),
        "dep": Dependencies({"det": "to dependent", "prep": "to head", "pobj": "to head"}, by_head=["prep"]),
        "entropy": Entropy(kinds=["decoder_self"]),
        "start": StartShare(),
        "locality": Locality(),
        "frequency": NounFrequency(least=1),
    }
    out = root / "results"
    found = run_modality(metrics, EXPERIMENT, root / "attention", root / "parse.jsonl", corpus, features, out)
    write_results(out, *found)
    yield root, corpus
    features.close()


def test_text_only_attention_is_the_models_own(study):
    root, corpus = study
    store = AttentionStore(root / "attention" / "gpt2" / "attention.h5")
    store.validate()
    model, subwords, _ = load_run(root / "gpt2")
    for example in corpus.examples:
        ids, pieces, _ = subwords.encode(example.text)
        model.gpt2.set_attn_implementation("eager")
        with torch.no_grad():
            out = model.gpt2(torch.tensor([[subwords.end, *ids]]), output_attentions=True)
        expected = torch.stack(out.attentions)[:, 0].numpy()
        np.testing.assert_allclose(store.read(example.id, "decoder_self"), expected, atol=1e-3)
        axis = store.axis(example.id, "source")
        assert axis.tokens == ["<|endoftext|>", *pieces] and axis.roles[0] == "bos"
        assert max(axis.word) == len(words(example.text)) - 1


def test_the_image_reaches_words_only_through_deeper_layers(study):
    """Layer 1's masked self-attention has seen words alone; it is the same for any image."""
    root, corpus = study
    own, other, blank, raw = (
        AttentionStore(root / "attention" / run / "attention.h5")
        for run in ("captioner", "other", "blank", "raw")
    )
    for example in corpus.examples:
        a = own.read(example.id, "decoder_self")
        for changed in (other, blank):
            b = changed.read(example.id, "decoder_self")
            np.testing.assert_array_equal(a[0], b[0])
            assert np.abs(a[1] - b[1]).max() > 1e-4
        assert np.abs(a - raw.read(example.id, "decoder_self")).max() > 1e-2
    assert "cross" in own.kinds and "cross" not in blank.kinds
    assert raw.attrs["convention"] == "unnormalised"


def test_table_has_all_runs_and_differences(study):
    table = read_table(study[0] / "results" / "tables" / "metrics.csv")
    assert set(table["model"]) >= set(EXPERIMENT["runs"]) and set(table["against"]) == {"", "gpt2", "blank"}
    first = measured(table, model="captioner", against="blank", measure="locality", layer=0, head=-1)
    assert (first["value"] == 0).all() and len(first) == 2  # the first layer has not seen the image
    summary = json.loads((study[0] / "results" / "metrics.json").read_text())
    assert summary["about"]["captions"] == 4


def test_page_works_without_a_network(study):
    page = (study[0] / "results" / "heads.html").read_text(encoding="utf-8")
    for forbidden in ("http://", "https://", 'src="/', "@import", "url("):
        assert forbidden not in page.replace("http://www.w3.org/2000/svg", "")
    data = page.split('<script id="data" type="application/json">')[1].split("</script>")[0]
    content = json.loads(data)
    assert set(content["models"]) == {"captioner", "gpt2"} and len(content["captions"]) == 2
    for caption in content["captions"]:
        attn = np.array(caption["models"]["captioner"]["attention"])
        assert attn.shape[:2] == (2, 2) and attn.shape[2] == len(caption["words"])
        np.testing.assert_allclose(attn.sum(-1), 1, atol=0.02)
        assert caption["image"].startswith("data:image/png;base64,")


def test_every_figure_is_drawn(study, tmp_path):
    root, _ = study
    table = read_table(root / "results" / "tables" / "metrics.csv")
    examples = str(root / "results" / "tables" / "examples.json")
    both = {"captioner": "Captioner", "gpt2": "GPT-2"}
    quantity = {"title": "nouns", "measure": "pos_mass", "condition": "NOUN", "factor": 100}
    with style():
        figures = [
            modality.parts_of_speech(table, "captioner", ["DET", "NOUN", "ADJ", "INTJ"]),
            modality.parts_of_speech(table, "captioner", ["DET", "NOUN"], scaled=True),
            modality.dependencies(table, "captioner", ["det", "prep", "nummod"]),
            modality.entropies(table, both),
            modality.frequency(table, both, ["positions", "words"]),
            modality.runs(table, [quantity], both | {"blank": "Blank"}),
            modality_examples.maps(table, examples, list(both)),
            modality_examples.heads(table, examples, list(both)),
            modality_examples.top_objects(table, examples),
        ]
        for i, figure in enumerate(figures):
            assert isinstance(figure, Figure)
            figure.savefig(tmp_path / f"{i}.png", dpi=30)
    notes = [figures[0]._supxlabel.get_text(), figures[2]._supxlabel.get_text()]
    assert "absent: INTJ" in notes[0] and "nummod does not occur" in notes[1]
    scaled = figures[1].axes[0].images[0].get_array()
    assert scaled.min() == 0 and scaled.max() == 1
    for call in (
        lambda: modality.entropies(table, {"none": "None"}),
        lambda: modality_examples.maps(table, examples, ["none"]),
        lambda: modality_examples.maps(table, str(tmp_path / "none.json"), list(both)),
        lambda: modality_examples.heads(table, examples, list(both), caption=9),
        lambda: modality_examples.maps(table, examples, list(both), start="hide"),
    ):
        with pytest.raises(AtlasError):
            call()


def test_mean_map_leaves_start_out_and_renormalises():
    attn = np.zeros((1, 2, 2, 3))
    attn[0, 0] = [[1, 0, 0], [0.5, 0.5, 0]]
    attn[0, 1] = [[1, 0, 0], [0.9, 0.1, 0]]
    dropped, sources = modality_examples.mean_map(attn, ["a", "lamp"], "drop")
    assert sources == ["a"] and dropped[1, 0] == pytest.approx(1.0) and np.ma.is_masked(dropped[0, 0])
    kept, sources = modality_examples.mean_map(attn, ["a", "lamp"], "keep")
    assert sources == ["START", "a"]
    np.testing.assert_allclose(kept[1], [0.7, 0.3])


def test_runs_are_checked(study, tmp_path):
    root, corpus = study
    where = {"corpus": corpus, "features": None, "split": "test", "config_hash": "x"}
    for run, message in (
        ({"title": "x"}, "no model"),
        ({"model": "captioner", "picture": "own"}, "unknown 'picture'"),
        ({"model": "captioner", "image": "upside down"}, "image: 'upside down'"),
    ):
        with pytest.raises(ConfigError, match=message):
            dump_runs({"r": run}, lambda name: root / name, out=tmp_path, work=tmp_path / "w", **where)
