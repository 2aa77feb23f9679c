"""`attention-atlas phases`: study 5 for checkpoints of seven families, saved with their processors, and six
images of one's own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from look_tiny import TEXTS, photo
from tiny_checkpoints import FAMILIES

from attention_atlas.__main__ import main
from attention_atlas.errors import AtlasError
from attention_atlas.files import read_json
from attention_atlas.look.inputs import extended
from attention_atlas.models.vlm.load import load_vlm
from attention_atlas.models.vlm.loaded import LoadedVlm
from attention_atlas.models.vlm.samples import samples_of
from attention_atlas.plotting import draw
from attention_atlas.studies.vlm_phases.figures_norm import spread
from attention_atlas.studies.vlm_phases.own import DRAWN, own_corpus, phases

CAPTIONS = [*TEXTS[1:], "a red ball", "the sofa"]
FIXED = ("llava", "paligemma", "gemma3")  # an image of any size has as many tokens


def own_data(folder: Path, images: int = 6) -> Path:
    """images/ and texts.csv: images of noise, each with a text."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,text"]
    for n in range(images):
        photo(folder / f"images/{n}.png", 90 - 4 * n, 60, n)
        lines.append(f"{n}.png,{CAPTIONS[n % len(CAPTIONS)]}")
    (folder / "texts.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module", autouse=True)
def coarse_figures():
    """Every figure is made, but rendered for one family only: that takes longest."""
    patch = pytest.MonkeyPatch()
    full = draw.save

    def save(figure, stem):
        if "llava" in str(stem):
            return full(figure, stem)
        path = stem.with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return [path]

    patch.setattr(draw, "save", save)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return own_data(tmp_path_factory.mktemp("own") / "data")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = FAMILIES[name](tmp_path_factory.mktemp("models") / name)
        return made[name]

    return folder


@pytest.fixture(scope="module")
def ran(folders, data, tmp_path_factory):
    """{family: the folder that the command wrote}."""
    made: dict[str, Path] = {}

    def out(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("out") / name
            arguments = ["--data", str(data), "--out", str(made[name]), "--device", "cpu"]
            assert main(["phases", str(folders(name)), *arguments]) == 0
        return made[name]

    return out


def loaded_from(folder: Path, **more: str) -> LoadedVlm:
    source = {"_target_": "attention_atlas.studies.vlm_phases.any_model.load_any", "path": str(folder)}
    return load_vlm({"name": folder.name, "run_folder": None, **source, **more})


def table(out: Path) -> pd.DataFrame:
    found = pd.read_csv(out / "tables/metrics.csv", keep_default_na=False)
    for column in ("value", "ci_low", "ci_high", "chance"):
        found[column] = pd.to_numeric(found[column])
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_one_command_gives_all_tables_and_figures(name, ran):
    out = ran(name)
    assert {p.stem for p in (out / "figures").glob("*.png")} == set(DRAWN)
    if name == "llava":
        files = list((out / "figures").iterdir())
        assert len(files) == 2 * len(DRAWN) and all(p.stat().st_size > 4000 for p in files)
    # The only thing that images with one text each cannot have.
    (note,) = read_json(out / "metrics.json")["about"]["left out"]
    assert note.startswith("word-order pairs: left out: no column 'pair'")
    assert [p.name for p in out.parent.iterdir()] == [name], "the work folder is gone"
    rows = table(out)
    plain = rows[(rows["statistic"] == "") & (rows["setting"] == "")]
    for measure in ("norm share", "attention share", "norm share, no sinks", "attention share, no sinks"):
        part = plain[plain["measure"] == measure]
        row = part["condition"].str.split(" → ").str[0]
        assert set(row) == {"last image", "last prompt", "last text"}
        for column in ("value", "chance"):
            total = part.groupby([row, "layer"])[column].sum()
            assert len(total) == 9 and np.allclose(total, 1, atol=1e-5), (measure, column)
    # A token cannot attend to what comes after it: the last one of the image sees no text.
    assert "last image → caption" not in set(plain["condition"])
    cosine = plain[plain["measure"] == "cosine"]
    assert cosine["value"].abs().max() <= 1 and (cosine["n"] == 6).all()
    assert set(cosine["layer"]) == {0, 1, 2, 3}
    lens = plain[plain["kind"] == "lens"]
    assert set(lens["condition"]) == {"plain", "normalised"} and lens["value"].dropna().between(0, 1).all()
    cut = rows[(rows["kind"] == "knockout") & (rows["condition"] == "text → image") & (rows["group"] == "")]
    assert set(cut["setting"]) == {"1", "all"} and (cut["value"].abs() > 1e-6).all()
    if name in FIXED:
        # Cut off in all layers, the image does not matter: what is left is the effect of another image.
        net = cut[(cut["setting"] == "all") & (cut["measure"] == "net log-prob change")]["value"].item()
        other = rows[(rows["measure"] == "log-prob change") & (rows["input"] == "other")]
        assert net == pytest.approx(other[other["condition"] == ""]["value"].item(), abs=1e-4)


def test_numbers_are_those_of_the_adapter(ran, folders, data, tmp_path):
    """LLaVA through its processor, one text at a time, against study 5's own adapter, padded in batches."""
    template = "USER: <image>{prompt} ASSISTANT:"
    own = {"_target_": "attention_atlas.models.vlm.hub.load_hub", "pretrained": str(folders("llava"))}
    loaded = load_vlm({"name": "llava", "run_folder": None, "template": template, **own})
    assert not loaded.alone and loaded.grid == (3, 3)
    phases(loaded, own_corpus(data), tmp_path / "a", tmp_path / "work", title="LLaVA", config_hash="x")
    expected, found = table(tmp_path / "a"), table(ran("llava"))
    names = [c for c in expected.columns if c not in ("value", "ci_low", "ci_high", "chance")]
    assert len(found) > 300 and expected[names].equals(found[names])
    for column in ("value", "chance"):
        np.testing.assert_allclose(found[column], expected[column], atol=2e-4, rtol=1e-4)
    one, two = (read_json(f / "tables/shown.json")["samples"][0] for f in (tmp_path / "a", ran("llava")))
    assert one["roles"] == two["roles"] and one["tokens"] == two["tokens"] and one["grid"] == [3, 3]
    # The centre square, as shares of an image of 90 × 60 pixels or narrower.
    assert len(two["places"]) == 9 and two["places"][0][1] == 0 and two["places"][8][3] == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_a_later_word_changes_nothing_before_it(name, folders, data):
    """Texts are causal in every family, also where the prompt or the image sees both ways."""
    loaded = loaded_from(folders(name))
    corpus = own_corpus(data)
    sample = samples_of(corpus, corpus.examples[:1])[0]
    logits = []
    for text in ("a red block", "a red sofa"):
        inputs = loaded.batch([replace(sample, text=text)])
        with torch.no_grad():
            logits.append(loaded.model(**inputs).logits[0])
    ((start, stop),) = loaded.text_spans([replace(sample, text="a red")])
    assert stop > start and torch.allclose(logits[0][: stop - 1], logits[1][: stop - 1], atol=1e-5)
    assert not torch.allclose(logits[0][stop], logits[1][stop], atol=1e-2)


def test_types_of_an_answer():
    """Gemma 3 marks images with 1, PaliGemma the answer."""
    ids = torch.tensor([[1, 9, 9, 5]])
    for prompt, answer in (([0, 1, 1, 0], [0, 0]), ([0, 0, 0, 0], [1, 1])):
        whole = extended({"input_ids": ids, "token_type_ids": torch.tensor([prompt])}, [7, 8])
        assert whole["token_type_ids"].tolist() == [prompt + answer]


def test_what_a_model_cannot_have_is_left_out(folders, data, tmp_path, monkeypatch):
    """No final norm that is known, logits that are not those of its output matrix alone, no known geometry,
    an attention whose vectors cannot be read."""
    loaded = loaded_from(folders("llava"))
    loaded.norm = None
    loaded.model.register_forward_hook(lambda m, a, out: setattr(out, "logits", 0.1 * out.logits))
    loaded.model.config.model_type = "unknown"
    samples = {"context": 4, "lens": 4, "norm": 2, "knockout": 2}
    settings = {"title": "x", "config_hash": "x", "samples": samples}
    corpus = own_corpus(data)
    made = phases(loaded, corpus, tmp_path / "out", tmp_path / "work", **settings)
    starts = (
        "logit lens behind the final norm",
        "knock-out",
        "word-order pairs",
        "attention over the image",
    )
    assert {note.split(": left out: ")[0] for note in made.notes} == set(starts)
    assert any("differs from the model by" in note for note in made.notes)
    drawn = {p.stem for p in made.figures}
    assert set(DRAWN) - drawn == {"lens", "norm_image", "knockout", "knockout_own_image"}

    import attention_atlas.studies.vlm_phases.probe as probe

    def unreadable(*args, **kwargs):
        raise AtlasError("capture: its projections do not request norms")

    monkeypatch.setattr(probe, "measure", unreadable)
    few = settings | {"samples": {"context": 2, "norm": 2}}
    made = phases(loaded, corpus, tmp_path / "less", tmp_path / "work2", **few)
    assert {p.stem for p in made.figures} == {"context", "context_over_baseline"}
    assert "norm-based attention: left out: capture: its projections do not request norms" in made.notes


def test_what_cannot_be_used_is_one_line(folders, data, tmp_path, capsys):
    model = folders("llava")
    broken = shutil.copytree(model, tmp_path / "broken")  # one token of the image too many
    settings = (broken / "processor_config.json").read_text()
    wrong = settings.replace(
        '"vision_feature_select_strategy": "default"', '"vision_feature_select_strategy": "full"'
    )
    assert wrong != settings
    (broken / "processor_config.json").write_text(wrong)
    single = own_data(tmp_path / "single", images=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    for change, message in (
        ({"MODEL": str(broken)}, "broken: does not run on what its processor returns"),
        ({"--data": str(empty)}, "empty: has no texts.csv or captions.csv; add one"),
        ({"--data": "nowhere"}, "--data: nowhere: no such folder"),
        ({"--data": str(single)}, "study 5: one image only"),
        ({"--most": "1"}, "--most: 1 is less than 2"),
        ({"--prompt": " "}, "--prompt: is empty"),
        ({"MODEL": str(data)}, "MODEL: "),
    ):
        options = {"MODEL": str(model), "--data": str(data), "--out": str(tmp_path / "out")} | change
        assert main(["phases", options.pop("MODEL"), *(x for pair in options.items() for x in pair)]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and message in lines[0], (change, lines)
    assert not (tmp_path / "out").exists()


def test_values_lie_where_their_boxes_are():
    places = [[0, 0, 0.5, 0.5], None, [0.5, 0.5, 1, 1], [0, 0, 1, 1]]
    expected = np.full((4, 6), 12 / 24)
    expected[:2, :3] += 6 / 6
    expected[2:, 3:] += 3 / 6
    np.testing.assert_allclose(spread(np.array([6.0, 7.0, 3.0, 12.0]), places, (4, 6)), expected)


def test_the_pipeline_does_the_same(folders, data, ran, tmp_path):
    """python -m pipeline.metrics study=vlm_phases_own model=hub model.path=ID data=folder data.root=DIR"""
    from hydra.utils import instantiate

    from attention_atlas.workflow.compose import compose
    from attention_atlas.workflow.stage import resolved

    model = folders("qwen2_vl")
    words = ["study=vlm_phases_own", "model=hub", f"model.path={model}", "data=folder", f"data.root={data}"]
    cfg, _ = resolved(compose(ROOT, "metrics", [*words, "model.name=qwen2_vl", "workers=1"]))
    assert cfg.outputs.results == "results/vlm_phases_own"
    run = SimpleNamespace(artifact=lambda path: None)
    job = SimpleNamespace(
        device="cpu", run=run, out=lambda _: tmp_path / "out", work=lambda: tmp_path / "work"
    )
    assert instantiate(cfg.metrics)(cfg, job) == {"figures": float(len(DRAWN))}
    found, expected = table(tmp_path / "out"), table(ran("qwen2_vl"))
    np.testing.assert_allclose(found["value"], expected["value"], atol=1e-6)
    assert set(found["data"]) == {"folder"} and set(found["model"]) == {"qwen2_vl"}


def test_models_with_cross_attention_and_folders_of_others_are_refused(tmp_path, capsys):
    from tiny_checkpoints import mllama

    data = own_data(tmp_path / "own")
    command = ["phases", str(mllama(tmp_path / "model")), "--data", str(data)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "reads images by cross-attention (model.language_model.layers.1.cross_attn)" in error
    (tmp_path / "mine/figures").mkdir(parents=True)
    (tmp_path / "mine/figures/plan.png").touch()
    assert main([*command, "--out", str(tmp_path / "mine")]) == 2
    assert "mine/figures: is not of an earlier run; give another folder" in capsys.readouterr().err
    assert (tmp_path / "mine/figures/plan.png").exists()
