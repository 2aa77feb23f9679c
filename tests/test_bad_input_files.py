"""Bad files of every kind: one line that names the file, nothing half-written; a good file beside each."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
from bad_inputs import KINDS

from attention_atlas.errors import AtlasError

FOREIGN = bytes.fromhex("89504e470d0a1a0a") + bytes(range(256)) * 4  # begins as a PNG, and is none


# A report is written without its summary; missing words and boxes are errors where they are needed.
FINE = {
    ("summary", "absent"),
    *(("vectors", "empty"), ("vectors", "zeros")),
    *(("cub boxes", "empty"), ("descriptions", "empty")),
}


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("opened"),)


def refused(read, path: Path) -> str:
    """The message of the AtlasError that `read(path)` raises: one line with the file; no file is made."""
    before = sorted(p.name for p in path.parent.iterdir())
    with pytest.raises(AtlasError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message and path.name.rpartition(".")[0] in message and len(message) < 600, message
    made = {p.name for p in path.parent.iterdir()} - set(before)
    assert not {name for name in made if ".part" in name or name.endswith((".tmp", "made.h5"))}, made
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_file_is_read(kind: str, tmp_path: Path) -> None:
    file, write, read, _ = KINDS[kind]
    write(tmp_path / file)
    read(tmp_path / file)


@pytest.mark.parametrize("damage", ["empty", "half", "zeros", "foreign", "folder", "absent", "pickle"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_one_line(kind: str, damage: str, tmp_path: Path, monkeypatch) -> None:
    file, write, read, lines = KINDS[kind]
    if (kind, damage) in FINE or (damage == "half" and lines):
        pytest.skip("read as a shorter file, or as none")
    path = tmp_path / file
    write(path)
    read(path)  # makes what lies beside it
    whole = path.read_bytes()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    content = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "zeros": bytes(len(whole)),
        "foreign": FOREIGN,
        "pickle": pickle.dumps(Bomb()),
    }
    monkeypatch.chdir(tmp_path)
    if damage == "folder":
        path.mkdir()
    elif damage != "absent":
        path.write_bytes(content[damage])
    refused(read, path)
    assert not Path("opened").exists()


IMAGE = "image,text\na.png,A lamp.\n"
BOX = "image,phrase,x,y,w,h\na.png,lamp,1,1,5,5\n"
LONG = "A lamp. " * 20_000  # a field above 131,072 characters
DEEP = "[" * 100_000


# (kind, text in the good file, text in its place, what the line says)
CONTENT = [
    ("texts of a folder", IMAGE, f"image,text\na.png,{LONG}\n", "line 2: field larger than field limit"),
    ("texts of a folder", IMAGE, "image,text\na.png,A lamp.,\n", "line 2: 3 fields"),
    ("texts of a folder", IMAGE, "image,id,text\na.png,1,A.\na.png,1,B.\n", "id occurs twice"),
    ("texts of a folder", IMAGE, "image;text\na.png;A lamp.\n", "image: column is missing"),
    ("texts of a folder", IMAGE, 'image,text\na.png,"A lamp.\n', "line 2: unexpected end"),
    ("texts of a folder", IMAGE, "image,text\n../a.png,A lamp.\n", "is not below"),
    ("texts of a folder", IMAGE, "image,text\nb.png,A lamp.\n", "no such image"),
    ("texts of a folder", IMAGE, "image,text\na.png,...\n", "text: has no words"),
    ("texts of a folder", IMAGE, "image,text\n", "has no rows"),
    ("boxes", BOX, BOX.replace("1,1,5,5", "nan,1,5,5"), "line 2: x: 'nan' is not a number"),
    ("boxes", BOX, BOX.replace("1,1,5,5", "1,1,5,1e999"), "line 2: h: '1e999' is not a number"),
    ("boxes", BOX, BOX.replace("5,5", "5,0"), "line 2: h: 0 is less than a pixel"),
    ("boxes", BOX, BOX.replace("a.png", "../a.png"), "image: '../a.png' is outside the folder"),
    ("gold links", "e,0,4,0", "e,4,0,0", "line 2: end: 0 is not after"),
    ("gold links", "e,0,4,0", "e,-1,4,0", "line 2: start: '-1'"),
    ("metric table", "0.5", "half", "value: line 2: 'half' is not a number"),
    ("scenes", '"width": 12', '"width": "12"', 'line 1: width: is "12"'),
    ("scenes", '"width": 12', '"width": NaN', "line 1: width: is NaN"),
    ("scenes", '"width": 12', f'"width": {"9" * 5000}', "line 1: not JSON"),
    ("scenes", '"split": "test"', '"split": "tset"', "split: 'tset' is not one of"),
    ("scenes", '"split": "test"', '"split": null', "line 1: split: is null"),
    ("scenes", '"split": "test"', '"split": "test", "colour": 1', "line 1: colour: unknown field"),
    ("scenes", '"path": "a.png"', '"path": "../../a.png"', "'../../a.png' is outside the folder"),
    ("scenes", '"path": "a.png"', '"path": "/etc/a.png"', "'/etc/a.png' is outside the folder"),
    ("scenes", "{", DEEP, "line 1: not JSON"),
    ("descriptions", "A lamp.", "A \\ud83d lamp.", "line 1: not JSON ('utf-8' codec can't encode"),
    ("descriptions", '"image_id": "a"', '"image_id": "b"', "image_id: no scene 'b'"),
    ("descriptions", '"text": "A lamp."', '"text": "A lamp.", "phrases": [null]', "phrases: not an object"),
    ("generated texts", "A lamp.", "\\uDC00", "line 1: not JSON"),
    ("generated texts", '"text": "A lamp."', '"text": ["A lamp."]', "line 1: text: is missing or not text"),
    ("read words", "1.0", "NaN", "tokens: 0: confidence: is NaN"),
    ("read words", "[0, 0, 4, 4]", "[0, 0, 4, Infinity]", "tokens: 0: box: is Infinity"),
    ("read words", "[0, 0, 4, 4]", "[4, 0, 0, 4]", "has no area"),
    ("given answers", '"yes"', "null", "line 1: answer: is null"),
    ("winoground", '"One."', "1", "caption_0: is 1, not text"),
    ("links", '"start": 0', '"start": null', "line 1: "),
    ("links", '"regions": [0]', '"regions": []', "and regions []"),
    ("links", '"links": [', '"links": [7, ', "line 1: cannot be read ("),
    ("parses", '"start": 0', '"start": 9', "line 1: id 'e': span"),
    ("parses", '"phrases": [', '"phrases": [null, ', "line 1: "),
    ("parses", '"relations": []', '"relations": [{"target": [0]}]', "line 1: "),
    (
        "karpathy",
        '"sentences": [{"sentid": 1',
        '"sentences": null, "x": [{"sentid": 1',
        "image 1: sentences: is null",
    ),
    ("karpathy", '"sentences": [', '"sentences": [null, ', "sentences: 0: is null"),
    ("karpathy", '"a.png"', '"../../a.png"', "is outside the folder of images"),
    ("karpathy", '"cocoid": 1', '"cocoid": [1]', "image 1: cocoid: is [1]"),
    ("karpathy", '"cocoid": 1', '"cocoid": 1e400', "image 1: cocoid: is Infinity"),
    ("questions", '"question_id": 1', '"question_id": 1.5', "question_id: is 1.5"),
    ("questions", '"question_id": 1', '"question_id": 2', "no question"),
    ("questions", '"How many?"', '{"text": "How many?"}', "not text"),
    ("instances", '"area": 9', '"area": null', "missing or wrong"),
    ("instances", '"bbox": [1, 1, 3, 3]', '"bbox": [1, 1, 3]', "not a file of instances"),
    ("coco boxes", '"bbox": [1, 1, 3, 3]', '"bbox": [1, 1, NaN, 3]', "annotation 1: bbox: is NaN"),
    ("coco boxes", '"category_id": 1', '"category_id": 2', "category_id: 2 is not among"),
    ("coco boxes", '"file_name": "a.png"', '"file_name": null', "file_name: is null"),
    ("coco boxes", '"file_name": "a.png"', '"file_name": "../a.png"', "outside"),
    ("paragraphs", '"A lamp."', "null", "paragraph: field is missing or wrong"),
    ("vocabulary", '"lamp"', '"lamp", "lamp"', "'lamp' occurs twice"),
    ("vocabulary", '"lamp"', "7", "words: is not a list of texts"),
    ("answer list", '"yes"', "null", "answers: is null"),
    ("words of a checkpoint", '"1"', '"2"', "ids are not 1..1"),
    ("shown", '"x"', '"y"', "schema: is not x"),
    ("examples of a study", '"captions":[]', '"captions":[{}]', "models: is missing"),
    ("examples of a study", '"captions":[]', '"figures":[]', "captions: is missing"),
    ("summary", '{"n": 1}', "[1]", "not a summary"),
    ("tell me more", "A lamp.\t", "", "line 2: "),
    ("bottom-up tsv", "\t40\t40", "\t40\tforty", "line 1: num_boxes, image_w, image_h: not whole"),
    ("bottom-up tsv", "\t2\t", "\t-2\t", "line 1"),
    ("bottom-up tsv", "\t2\t", "\t3\t", "line 1"),
    ("names", "b/a", "../a", "is outside the folder"),
    ("names", "b/a", "/etc/a", "is outside the folder"),
    ("names", "b/a", "b/a\nb/a", "occurs twice"),
    ("cub boxes", "60.0", "sixty", "line 1: not 'id x y width height'"),
    ("cub boxes", "60.0", "nan", "line 1: not 'id x y width height'"),
    ("vectors", "lamp 1 2 3", "lamp 1 2", "line 2: 'cat' does not have 2 numbers"),
    ("vectors", "lamp 1 2 3", "lamp 1 2 x", "line 1: 'lamp'"),
]


@pytest.mark.parametrize(("kind", "old", "new", "says"), CONTENT)
def test_bad_content_names_the_field(kind: str, old: str, new: str, says: str, tmp_path: Path) -> None:
    file, write, read, _ = KINDS[kind]
    path = tmp_path / file
    write(path)
    read(path)
    text = path.read_text()
    assert old in text, text
    path.write_text(text.replace(old, new))
    assert says in refused(read, path)


@pytest.mark.parametrize(
    "kind", [name for name, kind in KINDS.items() if kind.file.endswith(("csv", "json", "jsonl"))]
)
def test_a_byte_order_mark_and_windows_line_ends_are_read(kind: str, tmp_path: Path) -> None:
    file, write, read, _ = KINDS[kind]
    path = tmp_path / file
    write(path)
    content = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    read(path)
