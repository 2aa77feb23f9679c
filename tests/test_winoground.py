"""Winoground and COCO validation captions in their published layouts; the scores of Winoground by hand."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import vlm_tiny as tiny
from PIL import Image

from attention_atlas.data.coco_caption_pairs import read_coco_caption_pairs
from attention_atlas.data.corpus import Example
from attention_atlas.data.winoground import read_winoground
from attention_atlas.errors import AtlasError
from attention_atlas.studies.vlm_phases.winoground_scores import (
    CHANCE,
    quadruples,
    score_quadruples,
    winoground,
)

LINE = {
    "id": 0,
    "image_0": "ex_0_img_0",
    "image_1": "ex_0_img_1",
    "caption_0": "an old person kisses a young person",
    "caption_1": "a young person kisses an old person",
    "tag": "Adjective-Age",
    "secondary_tag": "",
    "num_main_preds": 1,
    "collapsed_tag": "Object",
}


def written(root: Path, lines: list[dict], images: bool = True) -> Path:
    (root / "images").mkdir(parents=True)
    if images:
        for line in lines:
            for i in (0, 1):
                Image.new("RGB", (8, 6)).save(root / f"images/{line[f'image_{i}']}.png")
    path = root / "examples.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_winoground_layout(tmp_path: Path) -> None:
    second = LINE | {"id": 1, "image_0": "ex_1_img_0", "image_1": "ex_1_img_1"}
    corpus = read_winoground(written(tmp_path, [LINE, second]), tmp_path / "images")
    assert [e.id for e in corpus.examples] == [
        "winoground0.0",
        "winoground0.1",
        "winoground1.0",
        "winoground1.1",
    ]
    assert corpus.examples[1].text == LINE["caption_1"] and corpus.examples[1].image_id == "ex_0_img_1"
    assert corpus.examples[0].extra["tag"] == "Adjective-Age"
    assert corpus.scenes["ex_0_img_0"].width == 8 and len(corpus.split("test")) == 4
    assert corpus.image_path("ex_0_img_0").is_file()
    assert [q.id for q in quadruples(corpus.examples)] == ["winoground0", "winoground1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption_1": None}, "line 1: caption_1: field is missing"),
        ({"image_1": "ex_0_img_0"}, "image_1: 'ex_0_img_0' occurs twice"),
    ],
)
def test_winoground_errors(change: dict, message: str, tmp_path: Path) -> None:
    line = {k: v for k, v in (LINE | change).items() if v is not None}
    with pytest.raises(AtlasError, match=message):
        read_winoground(written(tmp_path, [line]), tmp_path / "images")


def test_winoground_without_images_or_lines(tmp_path: Path) -> None:
    path = written(tmp_path / "a", [LINE], images=False)
    with pytest.raises(AtlasError, match=r"ex_0_img_0\.png: no such image"):
        read_winoground(path, tmp_path / "a/images")
    assert len(read_winoground(path, tmp_path, require_images=False).examples) == 2
    with pytest.raises(AtlasError, match="is empty"):
        read_winoground(written(tmp_path / "b", []), tmp_path)


def coco(root: Path, **change) -> Path:
    (root / "val2014").mkdir(parents=True)
    images = [{"id": n, "file_name": f"COCO_val2014_{n:012d}.jpg", "width": 8, "height": 6} for n in (42, 7)]
    for row in images:
        Image.new("RGB", (8, 6)).save(root / "val2014" / row["file_name"])
    notes = [
        {"id": i, "image_id": n, "caption": f" A caption {i}. "} for i, n in enumerate((42, 7, 42), start=5)
    ]
    path = root / "captions_val2014.json"
    path.write_text(json.dumps({"images": images, "annotations": notes} | change))
    return path


def test_coco_layout(tmp_path: Path) -> None:
    corpus = read_coco_caption_pairs(coco(tmp_path), tmp_path / "val2014")
    assert [(e.id, e.image_id, e.text) for e in corpus.split("val")] == [
        ("coco5", "42", "A caption 5."),
        ("coco6", "7", "A caption 6."),
        ("coco7", "42", "A caption 7."),
    ]
    first = read_coco_caption_pairs(tmp_path / "captions_val2014.json", tmp_path / "val2014", limit=1)
    assert [e.image_id for e in first.examples] == ["7"]


def test_coco_errors(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match="no such file; run 'make paper-check'"):
        read_coco_caption_pairs(tmp_path / "no.json", tmp_path)
    lost = coco(tmp_path / "a", annotations=[{"id": 1, "image_id": 9, "caption": "x"}])
    with pytest.raises(AtlasError, match="image_id: 9 is not among images"):
        read_coco_caption_pairs(lost, tmp_path / "a/val2014")
    bare = coco(tmp_path / "b", annotations=[{"id": 1, "image_id": 7}])
    with pytest.raises(AtlasError, match="annotations: 0: caption: field is missing"):
        read_coco_caption_pairs(bare, tmp_path / "b/val2014")
    with pytest.raises(AtlasError, match="images: is missing or empty"):
        read_coco_caption_pairs(coco(tmp_path / "c", images=[]), tmp_path / "c/val2014")


def test_scores_by_hand() -> None:
    # Rows: captions 0 and 1; columns: images 0 and 1.
    table = {
        "all right": ([[4, 1], [2, 3]], (1, 1, 1, 1)),
        "text only": ([[3, 4], [2, 5]], (1, 0, 0, 1)),
        "image only": ([[5, 4], [6, 7]], (0, 1, 0, 1)),
        "matching only": ([[3, 1], [4, 3]], (0, 0, 0, 1)),
        "ties": ([[1, 1], [1, 1]], (0, 0, 0, 0)),
    }
    for scores, expected in table.values():
        found = winoground(np.array([scores], dtype=float))
        assert tuple(int(found[name][0]) for name in CHANCE) == expected


def test_chance_is_that_of_all_orders() -> None:
    orders = np.array(list(itertools.permutations([1.0, 2.0, 4.0, 8.0]))).reshape(-1, 2, 2)
    for name, right in winoground(orders).items():
        assert right.mean() == pytest.approx(CHANCE[name])


def test_a_model_scores_captions_given_images(tmp_path: Path) -> None:
    from attention_atlas.models.vlm.samples import Sample

    loaded, corpus = tiny.llava(), tiny.corpus(tmp_path)
    found = quadruples(corpus.examples)
    scores = score_quadruples(loaded, corpus, found, "describe the picture.", batch=3)
    one, two = found[0].first, found[0].second
    alone = Sample("x", "im4", corpus.image_path(two.image_id), "describe the picture.", one.text)
    assert scores.shape == (1, 2, 2)
    assert scores[0, 0, 1] == pytest.approx(loaded.log_prob([alone], end=False)[0][0], abs=1e-3)


def test_pairs_that_are_none() -> None:
    lone = [Example("a", "i", "x", extra={"pair": "p"})]
    with pytest.raises(AtlasError, match="pair 'p': 1 captions of 1 images"):
        quadruples(lone)
    assert quadruples([Example("a", "i", "x")]) == []


def test_examples_without_a_value_have_no_pair():
    from attention_atlas.data.corpus import Example
    from attention_atlas.studies.vlm_phases.winoground_scores import quadruples

    def example(n, pair):
        return Example(f"{n}", f"image {n}", "a text", extra={"pair": pair})

    found = quadruples([example(0, "x"), example(1, ""), example(2, "x"), example(3, None)])
    assert [(q.id, q.first.id, q.second.id) for q in found] == [("x", "0", "2")]
