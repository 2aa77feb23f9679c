"""TextVQA's published files, in a small copy of their layout."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from attention_atlas.data.ocr_file import LOOK, read_ocr
from attention_atlas.data.textvqa import RosettaOcr, read_textvqa
from attention_atlas.errors import AtlasError, ConfigError


def files(root):
    """Four training and four validation images, two questions each; the second image is turned."""
    for part, names in (("train", "abcd"), ("val", "efgh")):
        questions, words = [], []
        for n, name in enumerate(names):
            Image.fromarray(np.full((20, 40, 3), 90, np.uint8)).save(root / f"{name}.jpg")
            for k in range(2):
                questions.append(
                    {
                        "question_id": f"{part}{n}{k}",
                        "question": "what does it say?",
                        "image_id": name,
                        "image_width": 1024 if n == 1 else 768,
                        "image_height": 768,
                        "answers": ["exit"] * 9 + ["exlt"],
                        "image_classes": ["Sign"],
                    }
                )
            box = {"top_left_x": 0.25, "top_left_y": 0.5, "width": 0.5, "height": 0.9, "rotation": 0}
            words.append(
                {
                    "image_id": name,
                    "ocr_tokens": ["EXIT"],
                    "ocr_info": [{"word": "EXIT", "bounding_box": box}],
                }
            )
        (root / f"{part}.json").write_text(json.dumps({"dataset_name": "textvqa", "data": questions}))
        (root / f"{part}_ocr.json").write_text(json.dumps({"data": words}))
    return {
        "train": {"questions": str(root / "train.json"), "split": "train"},
        "val": {"questions": str(root / "val.json"), "split": "val"},
    }


def test_questions_images_and_splits(tmp_path):
    corpus = read_textvqa(files(tmp_path), tmp_path)
    assert {s: len(corpus.split(s)) for s in ("train", "val", "test")} == {"train": 8, "val": 4, "test": 4}
    assert (corpus.scenes["b"].width, corpus.scenes["b"].height) == (40, 20)  # of the image itself
    assert corpus.examples[0].answers.count("exit") == 9 and corpus.image_path("a").name == "a.jpg"
    by_image = {e.image_id: corpus.scene(e).split for e in corpus.examples}
    assert sorted(by_image.values()) == ["test"] * 2 + ["train"] * 4 + ["val"] * 2
    # Seeds differ in training, never in the images that are tested.
    for seed in range(1, 6):
        other = read_textvqa(files(tmp_path), tmp_path, seed=seed)
        assert {e.image_id: other.scene(e).split for e in other.examples} == by_image
    again = read_textvqa(files(tmp_path), tmp_path, subset=3)
    assert {s: len(again.split(s)) for s in ("train", "val", "test")} == {"train": 3, "val": 3, "test": 3}


def test_rosetta_words_become_an_ocr_file(tmp_path):
    corpus = read_textvqa(files(tmp_path), tmp_path)
    source = RosettaOcr([str(tmp_path / "train_ocr.json"), str(tmp_path / "val_ocr.json")])
    source.extract(corpus, tmp_path / "ocr.jsonl", tmp_path)
    found = read_ocr(tmp_path / "ocr.jsonl")
    assert list(found) == list("abcdefgh") and found["a"].size == (40, 20)
    (word,) = found["a"].tokens
    assert word.text == "EXIT" and word.box == (10.0, 10.0, 30.0, 20.0)  # cut at the image's edge
    assert len(word.look) == LOOK and np.allclose(word.look, 90, atol=3)
    assert word.row == 0
    with pytest.raises(AtlasError, match="no image 'e'"):
        RosettaOcr([str(tmp_path / "train_ocr.json")]).extract(corpus, tmp_path / "x.jsonl", tmp_path)


@pytest.mark.parametrize("field", ["question", "image_id", "image_width", "answers", "question_id"])
def test_missing_fields_are_named(tmp_path, field):
    parts = files(tmp_path)
    value = json.loads((tmp_path / "val.json").read_text())
    del value["data"][3][field]
    (tmp_path / "val.json").write_text(json.dumps(value))
    with pytest.raises(AtlasError, match=f"val.json: data: 3: {field}: field is missing"):
        read_textvqa(parts, tmp_path)


def test_other_bad_input_is_named(tmp_path):
    parts = files(tmp_path)
    with pytest.raises(ConfigError, match="subset"):
        read_textvqa(parts, tmp_path, subset=0)
    with pytest.raises(AtlasError, match=r"none.json: no such file"):
        read_textvqa({"train": {"questions": tmp_path / "none.json"}}, tmp_path)
    with pytest.raises(ConfigError, match="questions: is missing"):
        read_textvqa({"train": {}}, tmp_path)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(AtlasError, match=r"list.json: data: is missing"):
        read_textvqa({"train": {"questions": tmp_path / "list.json"}}, tmp_path)
    with pytest.raises(AtlasError, match=r"in two parts|occurs twice"):
        read_textvqa({"train": parts["train"], "again": {**parts["train"], "split": "val"}}, tmp_path)
    (tmp_path / "bad.json").write_text(json.dumps({"data": [{"image_id": "a", "ocr_info": [{"word": "x"}]}]}))
    corpus = read_textvqa({"train": parts["train"]}, tmp_path)
    with pytest.raises(AtlasError, match="bounding_box: field is missing"):
        RosettaOcr([str(tmp_path / "bad.json")]).extract(corpus, tmp_path / "x.jsonl", tmp_path)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(AtlasError, match=r"a.jpg"):
        read_textvqa(parts, tmp_path)
