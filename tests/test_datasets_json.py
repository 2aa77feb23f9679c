"""JSON rows that a reader must refuse: each fault on one line that names file and field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attention_atlas.data import json_rows
from attention_atlas.data.clevr import read_clevr
from attention_atlas.data.coco_caption_pairs import read_coco_caption_pairs
from attention_atlas.data.coco_captions import read_coco_captions
from attention_atlas.data.corpus import Corpus, read_corpus
from attention_atlas.data.flickr30k import read_flickr30k
from attention_atlas.data.generated import of_generated
from attention_atlas.data.ocr_file import read_ocr
from attention_atlas.data.textvqa import RosettaOcr, read_textvqa
from attention_atlas.data.vqav2 import read_vqav2
from attention_atlas.data.winoground import read_winoground
from attention_atlas.errors import AtlasError
from attention_atlas.studies.vilt_layers.answers import read_given


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- JSON: every required field of every reader, set to null or taken away

Files = dict[str, Any]


def karpathy(**more: Any) -> Files:
    sentence = {"sentid": 1, "raw": "A lamp.", "tokens": ["a", "lamp"]}
    row = {"split": "test", "filename": "a.jpg", "sentences": [sentence], **more}
    return {"k.json": {"images": [row]}}


def vqa() -> Files:
    question = {"question_id": 1, "image_id": 7, "question": "How many?"}
    notes = {
        "question_id": 1,
        "image_id": 7,
        "answers": [{"answer": "0"}] * 10,
        "multiple_choice_answer": "0",
    }
    return {"q.json": {"questions": [question]}, "a.json": {"annotations": [notes]}}


def textvqa() -> Files:
    row = {"question_id": 1, "image_id": "x", "question": "What?", "image_width": 8, "image_height": 6}
    box = {"top_left_x": 0.1, "top_left_y": 0.1, "width": 0.5, "height": 0.5}
    ocr = [{"image_id": "x", "ocr_info": [{"word": "EXIT", "bounding_box": box}]}]
    return {"t.json": {"data": [{**row, "answers": ["exit"] * 10}]}, "o.json": {"data": ocr}}


def clevr() -> Files:
    thing = {"size": "large", "color": "red", "material": "metal", "shape": "cube", "pixel_coords": [9, 9, 9]}
    scene = {"image_index": 0, "image_filename": "CLEVR_val_000000.png", "objects": [thing]}
    program = [
        {"function": "scene", "inputs": [], "value_inputs": []},
        {"function": "count", "inputs": [0], "value_inputs": []},
    ]
    question = {"image_index": 0, "image_filename": "CLEVR_val_000000.png", "question_index": 0}
    question |= {"question": "How many things?", "answer": "1", "program": program}
    return {"s.json": {"scenes": [{**scene, "relationships": {}}]}, "q.json": {"questions": [question]}}


def coco() -> Files:
    notes = {"id": 1, "image_id": 1, "caption": "A lamp."}
    return {"c.json": {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [notes]}}


def winoground() -> Files:
    row = {"id": 0, "image_0": "a", "image_1": "b", "caption_0": "One.", "caption_1": "Two."}
    return {"w.jsonl": [row]}


def corpus() -> Files:
    thing = {"id": 1, "label": "lamp", "attributes": ["red"], "box": [0, 0, 5, 5], "area": 25, "text": ""}
    scene = {"image_id": "a", "path": "a.png", "width": 8, "height": 6, "split": "test", "objects": [thing]}
    phrase = {"start": 0, "end": 6, "objects": [1], "kind": "object"}
    example = {"id": "e", "image_id": "a", "text": "A lamp.", "phrases": [phrase], "answers": ["yes"]}
    return {"scenes.jsonl": [scene], "descriptions.jsonl": [example]}


def read_o(root: Path) -> Corpus:
    made = read_textvqa({"t": {"questions": root / "t.json", "split": "test"}}, root, require_images=False)
    RosettaOcr([str(root / "o.json")], looks=False).extract(made, root / "ocr.jsonl", root)
    return made


def read_made(root: Path) -> Corpus:
    return of_generated(read_corpus(root), root / "made.jsonl")


READERS: dict[str, tuple[Callable[[], Files], Callable[[Path], Any]]] = {
    "coco": (
        lambda: karpathy(cocoid=1, filepath="val2014"),
        lambda r: read_coco_captions(r / "k.json", r, require_images=False),
    ),
    "flickr30k": (karpathy, lambda r: read_flickr30k(r / "k.json", r, require_images=False)),
    "caption pairs": (coco, lambda r: read_coco_caption_pairs(r / "c.json", r, require_images=False)),
    "vqav2": (
        vqa,
        lambda r: read_vqav2(
            {"val2014": {"questions": r / "q.json", "annotations": r / "a.json", "split": "test"}},
            r,
            require_images=False,
        ),
    ),
    "textvqa": (textvqa, read_o),
    "clevr": (
        clevr,
        lambda r: read_clevr({"val": {"questions": r / "q.json", "scenes": r / "s.json", "split": "val"}}, r),
    ),
    "winoground": (winoground, lambda r: read_winoground(r / "w.jsonl", r, require_images=False)),
    "corpus": (corpus, read_corpus),
    "generated": (lambda: {**corpus(), "made.jsonl": [{"image_id": "a", "text": "A lamp."}]}, read_made),
    "answers": (lambda: {"g.jsonl": [{"id": "1", "answer": "yes"}]}, lambda r: read_given(r / "g.jsonl")),
    "ocr": (
        lambda: {
            "o.jsonl": [
                {
                    "image_id": "a",
                    "size": [8, 6],
                    "tokens": [{"text": "EXIT", "box": [0, 0, 4, 4], "confidence": 1.0}],
                }
            ]
        },
        lambda r: read_ocr(r / "o.jsonl"),
    ),
}
# May be null or absent, or are read by other settings (raw, tokens).
OPTIONAL = {("coco", "raw"), ("flickr30k", "tokens"), ("clevr", "relationships"), ("clevr", "value_inputs")}


def write(root: Path, files: Files) -> None:
    for name, content in files.items():
        rows = [json.dumps(row) for row in content] if name.endswith("l") else [json.dumps(content)]
        written(root / name, "\n".join(rows) + "\n")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values, those of lists by their first entry."""
    found = [path] if path else []
    if isinstance(value, dict):
        found += [p for key, inner in value.items() for p in places(inner, (*path, key))]
    elif isinstance(value, list) and value:
        found += places(value[0], (*path, 0))
    return found


CASES = [
    (reader, name, place)
    for reader, (files, _) in READERS.items()
    for name, content in files().items()
    for place in places(content)
    if len(place) > 1 and not any((reader, key) in OPTIONAL for key in place)
]


@pytest.mark.parametrize("reader", READERS)
def test_what_is_right_is_read(tmp_path: Path, reader: str) -> None:
    files, read = READERS[reader]
    write(tmp_path, files())
    read(tmp_path)


@pytest.mark.parametrize(("reader", "file", "place"), CASES)
def test_null_is_an_error_that_names_file_and_field(
    tmp_path: Path, reader: str, file: str, place: tuple[Any, ...]
) -> None:
    files, read = READERS[reader]
    content = files()
    inner = content[file]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = None
    write(tmp_path, content)
    field = next(key for key in reversed(place) if isinstance(key, str))
    with pytest.raises(AtlasError, match=re.escape(file)) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert field in message or "is null, not an object" in message or "program" in message, message


@pytest.mark.parametrize(
    ("given", "kept"), [("0", "0"), (0, "0"), (2.0, "2"), (2.5, "2.5"), ("none", "none"), (10**7, "10000000")]
)
def test_numbers_are_answers_and_stay_numbers(given: Any, kept: str) -> None:
    assert json_rows.answer({"answer": given}, "answer", "a.json") == kept


@pytest.mark.parametrize("given", [None, True, ["yes"], {"text": "yes"}])
def test_nothing_else_is_an_answer(given: Any) -> None:
    with pytest.raises(AtlasError, match=r"a.json: answer: is "):
        json_rows.answer({"answer": given}, "answer", "a.json")


def test_identifiers_and_numbers() -> None:
    assert [json_rows.identifier({"id": v}, "id", "f") for v in ("007", 7, 7.0)] == ["007", "7", "7"]
    assert [json_rows.number({"id": v}, "id", "f") for v in ("007", 7, 7.0)] == [7, 7, 7]
    for wrong in ("", " ", None, True, 1.5, [7]):
        with pytest.raises(AtlasError, match="f: id: is "):
            json_rows.identifier({"id": wrong}, "id", "f")
    with pytest.raises(AtlasError, match="f: id: field is missing"):
        json_rows.identifier({}, "id", "f")


def test_images_of_questions_and_annotations_must_agree(tmp_path: Path) -> None:
    files = vqa()
    files["a.json"]["annotations"][0]["image_id"] = 8
    write(tmp_path, files)
    with pytest.raises(AtlasError, match=r"a.json: question 1: image_id: is 8, but 7 in .*q.json; use"):
        READERS["vqav2"][1](tmp_path)
    files = clevr()
    files["q.json"]["questions"][0]["image_index"] = 3
    write(tmp_path, files)
    with pytest.raises(AtlasError, match=r"q.json: questions: 0: image_index: is 3, but 0 in the scenes"):
        READERS["clevr"][1](tmp_path)
    files["q.json"]["questions"][0] |= {"image_index": 0, "image_filename": "CLEVR_val_000009.png"}
    write(tmp_path, files)
    with pytest.raises(AtlasError, match=r"image_filename: no scene of 'CLEVR_val_000009.png'"):
        READERS["clevr"][1](tmp_path)


@pytest.mark.parametrize(
    ("reader", "file", "rows", "message"),
    [
        ("caption pairs", "c.json", "images", "images: 1: id: 1 occurs twice"),
        ("clevr", "s.json", "scenes", "image_filename: occurs twice"),
        ("textvqa", "o.json", "data", "data: 1: image_id: 'x' occurs twice"),
    ],
)
def test_a_row_that_occurs_twice(tmp_path: Path, reader: str, file: str, rows: str, message: str) -> None:
    files, read = READERS[reader]
    content = files()
    content[file][rows] = content[file][rows] * 2
    write(tmp_path, content)
    with pytest.raises(AtlasError, match=f"{file}: .*{message}|{file}: {message}"):
        read(tmp_path)


def test_json_lines_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "w.jsonl").write_bytes(b'{"id": 0}\n{"id": "\xff"}\n')
    with pytest.raises(AtlasError, match=r"w.jsonl: line 1: image_0|w.jsonl: line 1: caption_0"):
        read_winoground(tmp_path / "w.jsonl", tmp_path)
    (tmp_path / "w.jsonl").write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(AtlasError, match=r"w.jsonl: line 1: not JSON"):
        read_winoground(tmp_path / "w.jsonl", tmp_path)
