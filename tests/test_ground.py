"""`attention-atlas ground`: planted heads, attention without a place, rows against eager attention, files."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from ground_tiny import PHRASES, boxes_csv, llava_next, qwen2_vl
from look_tiny import llava, paligemma, photo
from PIL import Image

from attention_atlas.__main__ import main
from attention_atlas.data.phrase_boxes import read_boxes
from attention_atlas.errors import AtlasError
from attention_atlas.ground import Example, ground
from attention_atlas.ground.attend import RowCapture, phrase_positions
from attention_atlas.ground.page import overlay
from attention_atlas.ground.scene import Scene
from attention_atlas.ground.scores import CHANCES, MEASURES
from attention_atlas.look.load import load
from attention_atlas.measures.places import Places

PROMPT = "find a {phrase} lamp."
CELLS = [(x, y) for y in range(3) for x in range(3)]  # of the tiny models' 48 × 48 images


@pytest.fixture(scope="module")
def llava_folder(tmp_path_factory):
    return llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def tiny(llava_folder):
    return load(str(llava_folder), "cpu")


def squares(images: int, seed: int = 0) -> list[Example]:
    """Images of nine tokens; the box of each phrase is that of one token."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(images):
        image = Image.new("RGB", (48, 48))
        for phrase in PHRASES[:2]:
            x, y = CELLS[rng.integers(9)]
            out.append(Example(image, phrase, [(16 * x, 16 * y, 16 * x + 16, 16 * y + 16)]))
    return out


def stub(monkeypatch, map_of) -> None:
    """Instead of a pass, 3 layers: map_of(number of the example) gives (heads,9)."""
    calls = iter(range(10**6))

    def maps(self, inputs, rows, image_T, keys):
        assert len(image_T) == 9
        return [0, 1, 2], torch.as_tensor(map_of(next(calls)), dtype=torch.float32).reshape(3, -1, 9)

    monkeypatch.setattr(RowCapture, "maps", maps)


def test_the_head_that_looks_at_the_box_is_picked(tiny, monkeypatch):
    examples, rng = squares(10), np.random.default_rng(1)

    def map_of(number: int) -> np.ndarray:
        map_CT = rng.random((12, 9))
        left, top = (int(edge) // 16 for edge in examples[number].boxes[0][:2])
        map_CT[6] = 0
        map_CT[6, 3 * top + left] = 0.01  # layer 1, head 2; little of its attention is on the image
        map_CT[1] = 0.1  # uniform
        map_CT[2] = 0  # sees no image
        return map_CT

    stub(monkeypatch, map_of)
    found = ground(*tiny, examples, PROMPT, best=1, folds=4)
    rows = {(row["measure"], row["layer"], row["head"]): row for row in found.rows()}
    assert len(rows) == 3 * 12
    for m, measure in enumerate(MEASURES):
        planted = rows[measure, 1, 2]
        assert planted["rank"] == 1 and planted["n"] == 20 and planted["images"] == 10
        assert [planted[k] for k in ("value", "ci_low", "ci_high")] == [1, 1, 1]
        assert planted["share"] == pytest.approx(0.01) and planted["control"] < 0.5
        assert planted["above_control_ci_low"] > 0
        assert rows[measure, 0, 1]["value"] == pytest.approx(rows[measure, 0, 1]["chance_uniform"], abs=1e-6)
        assert rows[measure, 0, 1]["chance_uniform"] == pytest.approx(1 / 9)
        assert rows[measure, 0, 2]["value"] == rows[measure, 0, 2]["share"] == 0
        for kind in ("best_head", "mean_of_best"):
            held, whole = (found.picks[measure][kind][name] for name in ("held_out", "in_sample"))
            assert held["heads"] == [[[1, 2]]] * 4 and whole["heads"] == [[1, 2]]
            assert held["value"] == whole["value"] == held["ci_low"] == 1
            assert held["above"]["control"]["ci_low"] > 0
            uniform = held["above"]["chance_uniform"]
            assert uniform["value"] == pytest.approx(1 - 1 / 9) and uniform["ci_low"] > 0.8
        # The control is the same map against the boxes of other images: equal boxes score 1, others 0.
        same = [[float(a.boxes == b.boxes) for b in examples if b.image is not a.image] for a in examples]
        assert found.control_EMC[:, m, 6].mean() == pytest.approx(np.mean(same), abs=0.1)


def test_attention_that_does_not_know_the_boxes_scores_chance(tiny, monkeypatch):
    rng = np.random.default_rng(2)
    stub(monkeypatch, lambda number: rng.random((150, 9)) ** 2)
    found = ground(*tiny, squares(40, seed=3), PROMPT)
    numbers = found.estimates
    for m, measure in enumerate(MEASURES):
        # The permutation control is null: nearly all intervals of 95 % hold 0.
        low, high = numbers["above_control_ci_low"][m], numbers["above_control_ci_high"][m]
        assert ((low <= 0) & (high >= 0)).mean() >= 0.88
        assert abs(float(numbers["above_control"][m].mean())) < 0.01
        assert found.picks[measure]["best_head"]["in_sample"]["value"] == numbers["value"][m].max()
    # Picked and measured on the same images, heads are above chance by luck; on others they are not.
    above = {
        name: [
            found.picks[measure][kind][name]["above"][against]
            for measure in MEASURES
            for kind in ("best_head", "mean_of_best")
            for against in ("control", "chance_uniform")
        ]
        for name in ("in_sample", "held_out")
    }
    assert min(x["ci_low"] for x in above["in_sample"]) > 0
    assert sum(x["ci_low"] <= 0 <= x["ci_high"] for x in above["held_out"]) >= 9  # of 12
    means = {name: np.mean([x["value"] for x in found]) for name, found in above.items()}
    assert abs(means["held_out"]) < 0.02 and means["in_sample"] > 0.05


def test_the_mean_map_finds_what_its_heads_find_together(tiny, monkeypatch):
    """Two heads that see the box and each a wrong token: their mean is right."""
    examples = squares(8)

    def map_of(number: int) -> np.ndarray:
        map_CT = np.ones((12, 9))
        left, top = (int(edge) // 16 for edge in examples[number].boxes[0][:2])
        box = 3 * top + left
        for head, off in ((0, 1), (1, 2)):
            map_CT[head] = 0
            map_CT[head, [box, (box + off) % 9]] = (0.4, 0.6)
        return map_CT

    stub(monkeypatch, map_of)
    found = ground(*tiny, examples, PROMPT, best=2, folds=2)
    assert found.picks["mass"]["mean_of_best"]["held_out"]["heads"] == [[[0, 0], [0, 1]]] * 2
    assert found.picks["mass"]["mean_of_best"]["held_out"]["value"] == pytest.approx(0.4, abs=1e-3)
    mean = found.mean_2EM["in_sample"][0]
    assert found.values_EMC[:, 0, :2].max() == 0
    assert mean[:, 1] == pytest.approx(0.4, abs=1e-3)
    assert mean[:, 2] == pytest.approx(1 / 3)  # of the region's three tokens, one is the box


# Attention --------------------------------------------------------------------------------------------


def models(tmp_path):
    yield load(str(llava(tmp_path / "llava")), "cpu")
    yield load(str(paligemma(tmp_path / "paligemma")), "cpu")
    yield qwen2_vl()
    yield llava_next()


def test_rows_are_those_of_the_eager_matrices(tmp_path):
    image = photo(tmp_path / "a.png")
    for model, processor in models(tmp_path):
        capture = RowCapture(model)
        for phrase in ("red block", "where"):
            example = Example(image, phrase, [(0, 0, 9, 9)])
            for query in ("phrase", "last"):
                scene = Scene(model, processor, PROMPT, query)
                inputs, rows, placed, places = scene.of(example)
                ids = inputs["input_ids"][0]
                layers, map_LHT = capture.maps(inputs, rows, placed, scene.keys)
                model.set_attn_implementation("eager")
                with torch.no_grad():
                    attn_LHSS = torch.cat(model(**inputs, output_attentions=True).attentions)
                model.set_attn_implementation("sdpa")
                expected = attn_LHSS[:, :, rows].mean(2)[..., placed]
                assert layers == [0, 1, 2] and len(placed) == len(places.area_T)
                torch.testing.assert_close(map_LHT, expected, atol=1e-5, rtol=0)
                if query == "last":
                    assert rows == [len(ids) - 1]
                else:
                    text = processor.tokenizer.decode(ids[rows])
                    assert "".join(text.split()) == phrase.replace(" ", "")


def test_a_model_of_each_kind_runs_from_boxes_to_files(tmp_path):
    boxes_csv(tmp_path)
    examples = read_boxes(tmp_path / "boxes.csv", tmp_path)
    assert len(examples) == 12 and [len(e.boxes) for e in examples[:3]] == [2, 2, 1]
    for model, processor in (qwen2_vl(), llava_next()):
        found = ground(model, processor, examples, query="last", layers=[0, 2], best=2, folds=3)
        assert found.layers == [0, 2] and found.values_EMC.shape == (12, 3, 8) and not found.notes
        assert np.isfinite(found.values_EMC).all() and found.values_EMC.max() <= 1 + 1e-5
        assert (found.share_EC > 0).all()
        found.save(tmp_path / "out")
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
            "heads.csv",
            "index.html",
            "summary.json",
        ]


class Letters:
    """A tokenizer of single letters, which decodes to upper case."""

    def decode(self, ids, **_):
        return "".join(map(chr, ids)).upper()


def test_phrases_are_found_where_the_template_has_them():
    def found(template: str, phrase: str, text: str) -> str:
        ids = [ord(c) for c in text]
        roles = ["text" if c != "#" else "image" for c in text]
        places = phrase_positions(Letters(), ids, roles, template, phrase)
        return "".join(text[p] if p in places else "." for p in range(len(text)))

    assert found(
        "{phrase}, the cat?", "the cat", "user:##the cat, the cat?"
    ) == ".......the cat.........".ljust(24, ".")
    assert found("the cat, {phrase}?", "the cat", "##the cat, the cat? end")[11:18] == "the cat"
    # Otherwise spelled around it: the last occurrence.
    assert found("is it the {phrase}?", "cat", "##a cat or a cat") == ".............cat"
    assert found("is it {phrase}?", "dog", "##is it a cat?") == "." * 14
    assert found("is it {phrase}?", "straße", "##is it STRASSE?")[8:] == "STRASSE."


def test_what_the_processor_cuts_off_is_left_out(tiny):
    """LLaVA-1.5 sees the square in the middle: columns 15 to 75 of 90."""
    images = [Image.new("RGB", (90, 60)) for _ in range(3)]
    examples = [Example(p, "red block", [(20, 5, 60, 50)]) for p in images]
    hidden = Example(images[0], "blue ball", [(0, 0, 15, 60)])
    found = ground(*tiny, [hidden, *examples], PROMPT)
    assert len(found.examples) == 3 and "1 of 4 phrases are left out" in found.notes[0]
    with pytest.raises(AtlasError, match="fewer than 2 images"):
        ground(*tiny, [replace(hidden, image=p) for p in images], PROMPT)


def test_the_order_of_the_examples_does_not_matter_to_their_scores(tiny):
    examples = squares(3)
    first, second = (ground(*tiny, given, PROMPT) for given in (examples, examples[::-1]))
    np.testing.assert_allclose(first.values_EMC, second.values_EMC[::-1], atol=1e-6)
    again = ground(*tiny, examples, PROMPT)
    assert again.summary() == first.summary() and again.rows() == first.rows()


def test_an_overlay_is_bright_where_the_map_is_and_frames_the_box():
    import base64
    import io

    places = Places(np.array([(0, 0, 50, 60), (50, 0, 100, 60)]))
    uri = overlay(Image.new("RGB", (100, 60), (90, 90, 90)), places, np.array([0.0, 1.0]), [(10, 10, 40, 50)])
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))).astype(int)
    assert pixels.shape == (60, 100, 3)
    assert pixels[30, 75, 0] > 200 > 100 > pixels[30, 25, 0]
    assert pixels[30, 10, 2] > 150 > 100 > pixels[30, 5, 2]


# Files and errors -------------------------------------------------------------------------------------


def test_the_command_writes_the_three_files(llava_folder, tmp_path, capsys):
    boxes_csv(tmp_path)
    arguments = ["ground", str(llava_folder), "--data", str(tmp_path), "--limit", "10", "--folds", "3"]
    assert main([*arguments, "--prompt", PROMPT, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["schema"] == "atlas.ground/2" and summary["n"] == 10 and summary["folds"] == 3
    rows = list(csv.DictReader((tmp_path / "out/heads.csv").open()))
    assert len(rows) == 3 * 3 * 4
    for measure in MEASURES:
        own = [row for row in rows if row["measure"] == measure]
        first = next(row for row in own if row["rank"] == "1")
        picked = summary["picked"][measure]["best_head"]["in_sample"]
        assert picked["heads"] == [[int(first["layer"]), int(first["head"])]]
        assert float(first["value"]) == max(float(row["value"]) for row in own)
        for name in ("value", "ci_low", "ci_high"):
            assert float(first[name]) == pytest.approx(picked[name], abs=1e-5)
        assert {f"chance_{name}" for name in CHANCES} <= set(first)
        assert f"{measure}: best head {first['layer']}.{first['head']}" in printed
    page = (tmp_path / "out/index.html").read_text()
    assert page.count('class="best') >= 3 and page.count("data:image/jpeg") == 4 * 4
    assert "<script" not in page and "http" not in page and "{{" not in page


def test_a_failed_save_leaves_nothing(tiny, tmp_path, monkeypatch):
    found = ground(*tiny, squares(2), PROMPT)

    def broken(_):
        raise RuntimeError("no page")

    monkeypatch.setattr("attention_atlas.ground.page.page", broken)
    with pytest.raises(RuntimeError, match="no page"):
        found.save(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_the_example_in_the_docs_runs(llava_folder, tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs/howto/ground.md").read_text(encoding="utf-8")
    code = re.search(r"```py\n(.*?)```", text, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    photo(Path("kitchen.jpg"), 200, 200)
    photo(Path("garden.jpg"), 200, 200)
    model, processor = load(str(llava_folder), "cpu")
    exec(compile(code, "docs/howto/ground.md", "exec"), {"model": model, "processor": processor})
    assert "ci_low" in capsys.readouterr().out and (tmp_path / "ground/index.html").is_file()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--data": "nowhere"}, "--data: nowhere: no such folder"),
        ({"--boxes": "gone.csv"}, "gone.csv: no such file"),
        ({"--prompt": "what?"}, r"--prompt: 'what\?' has no \{phrase\}"),
        ({"--query": "first"}, "--query: 'first' is unknown; give phrase or last"),
        ({"--best": "0"}, "--best: 0 is less than 1"),
        ({"--folds": "1"}, "--folds: 1 is less than 2"),
        ({"--limit": "1"}, "--limit: 1 is less than 2"),
        ({"--layers": "7"}, r"--layers: \[7\]: is no layer with attention; known: 0\.\.2"),
        ({"--layers": "x"}, "--layers: 'x' is no layer"),
        ({"--out": "boxes.csv"}, r"--out: boxes\.csv: is a file"),
        ({"--split": "val"}, "--split: has no effect without --refcoco"),
        ({"--refcoco": "refs.json"}, "--refcoco: needs RefCOCO's instances.json"),
        ({"--boxes": "boxes.csv", "--coco": "boxes.csv"}, "--boxes: has no effect with --coco"),
        ({"ROW": "0.png,zzzq,0,0,9,9"}, "boxes.csv: line 16: phrase: 'zzzq' is not in the tokenised prompt"),
        ({"ROW": "0.png,ball,80,0,30,9"}, r"boxes.csv: line 16: box: .* do not lie in 0\.png \(90 × 60"),
        ({"MODEL": "nowhere/model"}, "MODEL: 'nowhere/model' cannot be loaded"),
    ],
)
def test_what_cannot_be_used_is_one_line(changed, message, llava_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = boxes_csv(tmp_path)
    if "ROW" in changed:
        path.write_text(path.read_text() + changed["ROW"] + "\n")
    options = {"--data": ".", "--out": "out"} | {k: v for k, v in changed.items() if k.startswith("--")}
    before = sorted(p.name for p in tmp_path.iterdir())
    model = changed.get("MODEL", str(llava_folder))
    assert main(["ground", model, *(part for pair in options.items() for part in pair)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and re.search(message, lines[0]), lines
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_model_whose_image_tokens_have_no_place_is_named(tiny, monkeypatch):
    model, processor = tiny
    monkeypatch.setattr(model.config, "model_type", "unknown")
    with pytest.raises(AtlasError, match="unknown: its geometry is not known"):
        ground(model, processor, squares(2), PROMPT)


def test_a_prompt_before_the_image_is_named(tiny):
    with pytest.raises(AtlasError, match="no head sees the image from its query"):
        ground(*tiny, squares(2), "where is the {phrase}? <image>")
