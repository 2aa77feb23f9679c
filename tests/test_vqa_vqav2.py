"""The VQAv2 reader on hand-written files of the published layout."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from PIL import Image

from attention_atlas.data.vqav2 import read_vqav2
from attention_atlas.errors import AtlasError, ConfigError

TEXTS = ("What color is the cup?", "Where is the cat?", "How many dogs are there?", "Is it raining?")


def write(root, part, numbers):
    """Four questions about each image; images are paired (1 with 2, 3 with 4, ...) question by
    question.
    """
    questions, annotations, pairs = [], [], []
    for image in numbers:
        for k, text in enumerate(TEXTS):
            number = 10 * image + k
            questions.append({"image_id": image, "question": text, "question_id": number})
            people = [{"answer": "red", "answer_confidence": "yes", "answer_id": n + 1} for n in range(10)]
            annotations.append(
                {
                    "question_type": "what color is the" if k == 0 else "",
                    "multiple_choice_answer": "red",
                    "answers": people,
                    "image_id": image,
                    "answer_type": "other",
                    "question_id": number,
                }
            )
            if image % 2:
                pairs.append([number, number + 10])
        path = root / f"{part}/COCO_{part}_{image:012d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(path)
    files = {"questions": questions, "annotations": annotations, "pairs": pairs}
    out = {"split": part[: -len("2014")]}
    for name, rows in files.items():
        path = root / f"{part}_{name}.json"
        path.write_text(json.dumps(rows if name == "pairs" else {name: rows, "info": {}}))
        out[name] = str(path)
    return out


@pytest.fixture
def parts(tmp_path):
    return {
        "train2014": write(tmp_path, "train2014", range(1, 7)),
        "val2014": write(tmp_path, "val2014", range(11, 19)),
    }


def test_reads_the_published_layout(parts, tmp_path):
    corpus = read_vqav2(parts, tmp_path, seed=1)
    assert len(corpus.examples) == 14 * 4
    first = corpus.examples[0]
    assert (first.id, first.image_id, first.text) == ("10", "train2014_1", TEXTS[0])
    assert first.answers == ["red"] * 10
    assert first.extra == {
        "group": "what color",
        "question_type": "what color is the",
        "answer": "red",
        "pair": "20",
    }
    assert corpus.examples[1].extra["question_type"] == "where is the"  # absent in the file: by its text
    assert corpus.image_path("val2014_11").name == "COCO_val2014_000000000011.jpg"
    assert (corpus.scenes["train2014_1"].width, corpus.scenes["train2014_1"].height) == (8, 6)
    splits = Counter(s.split for s in corpus.scenes.values())
    assert splits == {"train": 6, "val": 4, "test": 4}


def test_subset_is_balanced_seeded_and_keeps_pairs(parts, tmp_path):
    one = read_vqav2(parts, tmp_path, subset=2, seed=3, test_share=0.0)
    counts = Counter((one.scene(e).split, e.extra["group"]) for e in one.examples)
    assert set(counts.values()) == {2} and len(counts) == 2 * 4
    ids = {e.id for e in one.examples}
    assert all(e.extra["pair"] in ids for e in one.examples)
    again = read_vqav2(parts, tmp_path, subset=2, seed=3, test_share=0.0)
    other = read_vqav2(parts, tmp_path, subset=2, seed=4, test_share=0.0)
    assert [e.id for e in again.examples] == [e.id for e in one.examples]
    assert ids != {e.id for e in other.examples}


def test_groups_choose_questions(parts, tmp_path):
    corpus = read_vqav2(parts, tmp_path, groups=["where"])
    assert {e.text for e in corpus.examples} == {"Where is the cat?"}


def test_faults_name_file_and_remedy(parts, tmp_path):
    with pytest.raises(ConfigError, match="subset"):
        read_vqav2(parts, tmp_path, subset=0)
    with pytest.raises(AtlasError, match="no such file"):
        read_vqav2({"train2014": parts["train2014"] | {"questions": "nowhere.json"}}, tmp_path)
    mixed = parts["train2014"] | {"annotations": parts["val2014"]["annotations"]}
    with pytest.raises(AtlasError, match="question 10: no annotation"):
        read_vqav2({"train2014": mixed}, tmp_path)
    path = tmp_path / "val2014_questions.json"
    rows = json.loads(path.read_text())
    rows["questions"].append(rows["questions"][0])
    path.write_text(json.dumps(rows))
    with pytest.raises(AtlasError, match="110 occurs twice"):
        read_vqav2(parts, tmp_path)
    (tmp_path / "train2014/COCO_train2014_000000000003.jpg").unlink()
    with pytest.raises(AtlasError, match="no such image"):
        read_vqav2({"train2014": parts["train2014"]}, tmp_path)
