"""Phrases with boxes from a CSV, COCO and RefCOCO: what is read, and what is wrong with a row."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from look_tiny import photo
from PIL import Image

from attention_atlas.data.phrase_boxes import Example, checked, read_boxes, some
from attention_atlas.errors import AtlasError
from attention_atlas.ground.coco import read_coco, read_refcoco
from attention_atlas.regions.hf_detector import load_detector

HEADER = "image,phrase,x,y,w,h,note\n"


@pytest.fixture
def images(tmp_path):
    for name in ("a.png", "b.png"):
        photo(tmp_path / name, 90, 60)
    return tmp_path


def test_rows_of_one_phrase_are_one_example(images):
    path = images / "boxes.csv"
    path.write_text(
        HEADER + "a.png,red  mug,1,2,3,4,\nb.png,cat,0,0,90,60.5,x\n\na.png, red mug ,10,20,30,40,\n"
    )
    first, second = checked(read_boxes(path, images))
    assert (first.image, first.phrase, first.size) == (images / "a.png", "red mug", (90, 60))
    assert list(first.boxes) == [(1, 2, 4, 6), (10, 20, 40, 60)]
    assert [w.rpartition("/")[2] for w in first.where] == ["boxes.csv: line 2", "boxes.csv: line 5"]
    assert list(second.boxes) == [(0, 0, 90, 60)]  # cut at the edge


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("c.png,cat,1,1,9,9,", "line 2: image: 'c.png' is not in "),
        (",cat,1,1,9,9,", "line 2: image: is empty"),
        ("a.png, ,1,1,9,9,", "line 2: phrase: is empty"),
        ("a.png,cat,1,,9,9,", "line 2: y: '' is not a number"),
        ("a.png,cat,1,1,nan,9,", "line 2: w: 'nan' is not a number"),
        ("a.png,cat,0.1,0.1,0.5,0.5,", "line 2: w: 0.5 is less than a pixel; give pixels, not fractions"),
        ("a.png,cat,1,1,9,-9,", "line 2: h: -9 is less than a pixel"),
        ("a.png,cat,1,1,9", "line 2: 5 fields, the header has 7"),
        ("a.png,cat,1,1,9,9,\nb.png,dog,50,1,50,9,", "line 3: box: left, top, right, bottom 50, 1, 100, 10"),
        (
            "a.png,cat,1,1,9,9,\nb.png,dog,-5,1,50,9,",
            r"line 3: box: .*do not lie in b.png \(90 × 60 pixels\)",
        ),
        ("a.png,cat,1,1,9,9,", "boxes: are in 1 image; .* give boxes in at least 2"),
        ("a.png,cat,1,1,9,9,\nbad.png,cat,1,1,9,9,", "line 3: image: .*bad.png: not an image"),
        ("", "boxes.csv: has no rows"),
    ],
)
def test_a_wrong_row_is_named(rows, message, images):
    (images / "bad.png").write_text("no image")
    path = images / "boxes.csv"
    path.write_text(HEADER + rows + "\n")
    with pytest.raises(AtlasError, match=message):
        checked(read_boxes(path, images))


def test_columns_and_arguments_are_checked(images):
    path = images / "boxes.csv"
    path.write_text("image,phrase,x,y,w\n")
    with pytest.raises(
        AtlasError, match="h: column is missing; the first line must name image,phrase,x,y,w,h"
    ):
        read_boxes(path, images)
    image = Image.new("RGB", (9, 9))
    for example, message in (
        (Example(image, " ", [(0, 0, 1, 1)]), "example 0: phrase: is empty"),
        (Example(image, "cat", []), "example 0: boxes: none"),
        (
            Example(image, "cat", [(0, 0, 1, 1), (5, 5, 5, 9)]),
            "example 0: box 1: box: .* 5, 5, 5, 9 do not lie",
        ),
        (Example(image, "cat", [(0, float("nan"), 1, 1)]), "do not lie"),
    ):
        with pytest.raises(AtlasError, match=message):
            checked([example])


def test_some_examples_are_drawn_in_their_order():
    examples = [Example(str(n), "x", [(0, 0, 1, 1)]) for n in range(50)]
    drawn = some(examples, 10, seed=1)
    numbers = [int(e.image) for e in drawn]
    assert len(numbers) == 10 and numbers == sorted(set(numbers)) and numbers != list(range(10))
    assert some(examples, 10, seed=1) == drawn and some(examples, 10, seed=2) != drawn
    assert some(examples, None) == some(examples, 99) == examples


def instances(**changed) -> dict:
    table = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"id": 2, "image_id": 8, "category_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 0},
            {"id": 3, "image_id": 7, "category_id": 1, "bbox": [10.5, 2, 3, 4], "iscrowd": 0},
            {"id": 4, "image_id": 8, "category_id": 1, "bbox": [0, 0, 50, 50], "iscrowd": 1},
            {"id": 5, "image_id": 8, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0},
        ],
    }
    return table | changed


def written(path: Path, value) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_a_category_of_a_coco_image_is_one_example(images):
    examples = checked(read_coco(written(images / "i.json", instances()), images))
    assert [(e.image.name, e.phrase, list(e.boxes)) for e in examples] == [
        ("a.png", "dog", [(1, 2, 4, 6), (10.5, 2, 13.5, 6)]),
        ("b.png", "cat", [(0, 0, 9, 9)]),
    ]  # the dogs of b.png are a crowd
    assert examples[0].where[1].endswith("i.json: annotation 3")
    wrong = instances()["annotations"]
    for change, message in (
        ({"bbox": [1, 2]}, r"annotation 1: bbox: is \[1, 2\], not 4 numbers"),
        ({"category_id": 9}, "annotation 1: category_id: 9 is not among the categories"),
        ({"image_id": 9}, "annotation 1: image_id: 9 is not among the images"),
        ({"bbox": [80, 2, 30, 9]}, "annotation 1: box: .* do not lie in a.png"),
    ):
        table = instances(annotations=[wrong[0] | change, *wrong[1:]])
        with pytest.raises(AtlasError, match=message):
            checked(read_coco(written(images / "i.json", table), images))
    with pytest.raises(AtlasError, match="images: is missing or empty"):
        read_coco(written(images / "i.json", {}), images)
    with pytest.raises(AtlasError, match=r"--images: .*nowhere: no such folder"):
        read_coco(images / "i.json", images / "nowhere")


def refs() -> list[dict]:
    return [
        {"ref_id": 0, "ann_id": 3, "split": "val", "sentences": [{"sent": "right  dog"}, {"sent": "dog"}]},
        {"ref_id": 1, "ann_id": 2, "split": "testA", "sentences": [{"sent": "the cat"}]},
    ]


def test_each_sentence_of_refcoco_is_one_example(images):
    table = written(images / "instances.json", instances())
    path = written(images / "refs.json", refs())
    examples = checked(read_refcoco(path, table, images))
    assert [(e.image.name, e.phrase, list(e.boxes)) for e in examples] == [
        ("a.png", "right dog", [(10.5, 2, 13.5, 6)]),
        ("a.png", "dog", [(10.5, 2, 13.5, 6)]),
        ("b.png", "the cat", [(0, 0, 9, 9)]),
    ]
    assert [e.phrase for e in read_refcoco(path, table, images, "testA")] == ["the cat"]
    with pytest.raises(AtlasError, match=r"split: no reference is in 'testB'; did you mean 'testA'\?"):
        read_refcoco(path, table, images, "testB")
    for change, message in (
        ({"ann_id": 99}, "refs.json: entry 1: ann_id: 99 is not in"),
        ({"sentences": []}, "refs.json: entry 1: sentences: is .*not a list with entries"),
        ({"sentences": [{"sent": None}]}, "refs.json: entry 1: sentence 0: sent: is null"),
        ({"sentences": [{"sent": " "}]}, "refs.json: entry 1: sentence 0: phrase: is empty"),
    ):
        rows = refs()
        rows[1] |= change
        with pytest.raises(AtlasError, match=message):
            checked(read_refcoco(written(images / "refs.json", rows), table, images))


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("opened"),)


@pytest.mark.parametrize("name", ["refs(unc).p", "refs.json"])
def test_a_pickle_is_never_opened(name, images, monkeypatch):
    monkeypatch.chdir(images)
    (images / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(AtlasError, match=r"is a pickle.*convert it once: json\.dump"):
        read_refcoco(images / name, images / "instances.json", images)
    assert not Path("opened").exists()


def test_detections_of_a_class_are_one_example(images, monkeypatch):
    """Against transformers' own post-processing."""
    import torch
    from test_vision_hf_detector import NAMES, tiny

    from attention_atlas.data.images import read_rgb
    from attention_atlas.regions.detected import detected

    folder = tiny("yolos", images / "detector")
    net, processor = load_detector(folder)
    expected = set()
    for name in ("a.png", "b.png"):
        image = read_rgb(images / name)
        with torch.no_grad():
            made = net(**processor(images=[image], return_tensors="pt"))
        (own,) = processor.post_process_object_detection(made, 0.0, target_sizes=[(60, 90)])
        expected |= {
            (name, NAMES[int(label)], tuple(np.clip(box.numpy(), 0, (90, 60, 90, 60)).round(1).tolist()))
            for label, box in zip(own["labels"], own["boxes"])
        }
    found = checked(detected(folder, images, score=0.0))
    boxes = {(e.image.name, e.phrase, tuple(np.round(box, 1).tolist())) for e in found for box in e.boxes}
    assert len({(e.image, e.phrase) for e in found}) == len(found)
    assert len(boxes) == len(expected) and sorted(b[:2] for b in boxes) == sorted(b[:2] for b in expected)
    for (*_, box), (*_, own) in zip(sorted(boxes), sorted(expected)):
        assert box == pytest.approx(own, abs=0.2)
    with pytest.raises(AtlasError, match="finds nothing with a score of 1; lower --score"):
        detected(folder, images, score=1.0)
    (images / "empty").mkdir()
    with pytest.raises(AtlasError, match=r"empty: has no images \(\.jpg"):
        detected(folder, images / "empty")


def test_the_command_reads_what_its_options_name(images):
    import argparse

    from attention_atlas.ground import command

    def phrases(*options: str) -> list[str]:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        folder = ["--data", str(images)] if "--images" not in options else []
        args = parser.parse_args(["model", *folder, "--out", "out", *options])
        return [example.phrase for example in command.examples_of(args)]

    (images / "boxes.csv").write_text(HEADER + "a.png,mug,1,2,3,4,\n")
    (images / "more.csv").write_text(HEADER + "a.png,cup,1,2,3,4,\n")
    table = str(written(images / "instances.json", instances()))
    path = str(written(images / "refs.json", refs()))
    assert phrases() == ["mug"] and phrases("--boxes", str(images / "more.csv")) == ["cup"]
    assert phrases("--coco", table, "--images", str(images)) == ["dog", "cat"]
    assert phrases("--coco", table, "--refcoco", path) == ["right dog", "dog", "the cat"]
    assert phrases("--coco", table, "--refcoco", path, "--split", "testA") == ["the cat"]
    for options, message in (
        (("--score", "0.3"), "--score: has no effect without --detector"),
        (("--detector", "x", "--score", "3"), r"--score: 3 is outside 0\.\.1"),
        (("--detector", "nowhere/x"), "'nowhere/x' cannot be loaded as an object detector"),
        (("--detector", "x", "--coco", table), "--coco: has no effect with --detector"),
    ):
        with pytest.raises(AtlasError, match=message):
            phrases(*options)
