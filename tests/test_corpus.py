"""The corpus format round-trips, and each kind of bad row is one clear line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attention_atlas.data.corpus import (
    Example,
    Phrase,
    Relation,
    Scene,
    SceneObject,
    read_corpus,
    with_other_images,
    write_examples,
    write_scenes,
)
from attention_atlas.errors import AtlasError

TEXT = "A red chair stands next to the table."


def scene(image_id: str = "r1", split: str = "test") -> Scene:
    chair = SceneObject(1, "chair", ["red"], (10, 20, 40, 60), area=900, occlusion=0.1)
    table = SceneObject(2, "table", [], (50, 30, 90, 70), area=1200)
    return Scene(image_id, f"images/{image_id}.png", 144, 144, split, [chair, table], "dining room")


def example(example_id: str = "r1", **changes: Any) -> Example:
    phrases = [Phrase(0, 11, [1]), Phrase(27, 36, [2])]
    relations = [Relation((0, 11), (19, 26), (27, 36), "distance", [1], [2])]
    return Example(
        **{
            "id": example_id,
            "image_id": "r1",
            "text": TEXT,
            "phrases": phrases,
            "relations": relations,
            **changes,
        }
    )


def write(folder: Path, scenes: list[Scene], examples: list[Example]) -> None:
    write_scenes(folder / "scenes.jsonl", scenes)
    write_examples(folder / "descriptions.jsonl", examples)


def test_round_trip(tmp_path: Path) -> None:
    write(tmp_path, [scene(), scene("r2", "train")], [example()])
    corpus = read_corpus(tmp_path)
    read = corpus.examples[0]
    assert [read.text[p.start : p.end] for p in read.phrases] == ["A red chair", "the table"]
    assert read.text[slice(*read.relations[0].relation)] == "next to"
    assert corpus.scene(read).object(2).label == "table"
    assert corpus.split("test") == [read] and corpus.split("train") == []
    assert corpus.split("train+test") == [read]
    assert corpus.image_path("r1") == tmp_path / "images/r1.png"


def edit(path: Path, **changes: Any) -> None:
    row = json.loads(path.read_text().splitlines()[0])
    row.update(changes)
    path.write_text(json.dumps(row) + "\n")


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("descriptions", {"text": " ... "}, "text: has no words"),
        ("descriptions", {"image_id": "r9"}, "image_id: no scene 'r9'"),
        ("descriptions", {"txt": "x"}, "txt: unknown field"),
        (
            "descriptions",
            {"phrases": [{"start": 0, "end": 400, "objects": [], "kind": "object"}]},
            "outside its text",
        ),
        ("scenes", {"split": "tset"}, "split: 'tset'"),
        ("scenes", {"objects": [{"id": 1}]}, "objects: area: field is missing"),
    ],
)
def test_bad_rows(tmp_path: Path, file: str, changes: dict[str, Any], message: str) -> None:
    write(tmp_path, [scene()], [example()])
    edit(tmp_path / f"{file}.jsonl", **changes)
    with pytest.raises(AtlasError, match=message) as caught:
        read_corpus(tmp_path)
    assert f"{file}.jsonl" in str(caught.value) and "\n" not in str(caught.value)


def test_duplicated_ids(tmp_path: Path) -> None:
    write(tmp_path, [scene()], [example(), example()])
    with pytest.raises(AtlasError, match="example 'r1': id occurs twice"):
        read_corpus(tmp_path)
    write(tmp_path, [scene(), scene()], [example()])
    with pytest.raises(AtlasError, match="image_id 'r1' occurs twice"):
        read_corpus(tmp_path)


def test_missing_and_corrupt_files(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match=r"scenes.jsonl: no such file"):
        read_corpus(tmp_path)
    write(tmp_path, [scene()], [example()])
    (tmp_path / "scenes.jsonl").write_text('{"image_id": "r1", "pa')
    with pytest.raises(AtlasError, match=r"scenes.jsonl: line 1: not JSON"):
        read_corpus(tmp_path)


def test_unknown_split_and_object(tmp_path: Path) -> None:
    write(tmp_path, [scene()], [example()])
    corpus = read_corpus(tmp_path)
    with pytest.raises(AtlasError, match="split 'dev' is unknown"):
        corpus.split("dev")
    with pytest.raises(AtlasError, match="object 7 does not exist"):
        corpus.scenes["r1"].object(7)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    from attention_atlas.files import atomic_path

    with pytest.raises(RuntimeError), atomic_path(tmp_path / "x.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_other_images_are_the_next_that_differ() -> None:
    def of(images: str) -> list[Example]:
        return [Example(f"e{n}", image, f"text {n}", answers=["yes"]) for n, image in enumerate(images)]

    for images, wanted in (("abc", "bca"), ("aab", "bba"), ("abba", "baab"), ("aaabca", "bbbcab")):
        found = with_other_images(of(images))
        assert "".join(e.image_id for e in found) == wanted
        assert [(e.id, e.text, e.answers) for e in found] == [(e.id, e.text, e.answers) for e in of(images)]
    with pytest.raises(AtlasError, match="all examples have the same image"):
        with_other_images(of("aa"))
