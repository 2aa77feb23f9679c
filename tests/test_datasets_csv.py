"""CSV and TSV files of a person: unclosed quotation marks, double columns, one image by two names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from attention_atlas.data.csv_rows import csv_rows
from attention_atlas.data.folder import read_folder
from attention_atlas.data.tell_me_more import COLUMNS, read_tell_me_more
from attention_atlas.errors import AtlasError
from attention_atlas.linking.gold_file import read_gold_csv


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('image,text\na.png,A.\na.png,"A red box.\n' + "a.png,A lamp.\n" * 500, "line 3: unexpected end"),
        # More than csv's limit of a field, and one that another quotation mark closes.
        ('image,text\na.png,"A red box.\n' + "a.png,A lamp.\n" * 20000, "line 2: field larger"),
        ('image,text\na.png,A.\na.png,"A red box.\na.png,"A lamp."\n', "line 3: ',' expected after"),
        ('image,text\na.png,"A "big" lamp."\n', "line 2: ',' expected after"),
        ("image,text,text\na.png,A.,B.\n", "line 1: column 'text' occurs twice"),
        ("image, text,text\na.png,A.,B.\n", "line 1: column 'text' occurs twice"),
        ('image,text\na.png,"A\nlamp."\n\na.png\n', "line 5: 1 fields, the header has 2"),
    ],
)
def test_faults_of_a_csv_name_the_line(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path / "t.csv", content)
    with pytest.raises(AtlasError, match=r"t.csv: " + message) as caught:
        csv_rows(path)
    assert "\n" not in str(caught.value)


def test_quotation_marks_that_are_closed(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", 'image,text\r\na.png,"A ""big""\nlamp."\r\nb.png,A 5" pipe.\r\n')
    assert csv_rows(path) == (
        ["image", "text"],
        [(2, {"image": "a.png", "text": 'A "big"\nlamp.'}), (4, {"image": "b.png", "text": 'A 5" pipe.'})],
    )


def test_the_gold_file_shares_these_checks(tmp_path: Path) -> None:
    path = written(tmp_path / "g.csv", "example_id,start,end,regions\n\na,0,3,1\nb,0\n")
    with pytest.raises(AtlasError, match=r"g.csv: line 4: 2 fields, the header has 4"):
        read_gold_csv(path)
    written(path, "example_id,start,end,regions\n\na,0,three,1\n")
    with pytest.raises(AtlasError, match=r"g.csv: line 3: end: 'three'"):
        read_gold_csv(path)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (
            [*COLUMNS, "d5"],
            [*(["0", "1", "a.jpg", "room", "home"]), *["A."] * 6],
            "line 1: column 'd5' occurs twice",
        ),
        (COLUMNS, ["0", "1", "a.jpg"], "line 2: 3 fields, the header has 10"),
    ],
)
def test_faults_of_tell_me_more(tmp_path: Path, header: Any, row: Any, message: str) -> None:
    path = written(tmp_path / "sequences.csv", "\t".join(header) + "\n" + "\t".join(row) + "\n")
    splits = written(tmp_path / "splits.json", '{"1": "test"}')
    with pytest.raises(AtlasError, match=message):
        read_tell_me_more(path, splits, tmp_path, require_images=False)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(AtlasError, match="not UTF-8"):
        read_tell_me_more(path, splits, tmp_path, require_images=False)
    splits.write_bytes(b'{"1": "\xff"}')
    with pytest.raises(AtlasError, match=r"splits.json: not JSON"):
        read_tell_me_more(path, splits, tmp_path, require_images=False)


@pytest.mark.parametrize("same", ["./a.png", "sub/../a.png", ".\\a.png", "sub\\..//a.png"])
def test_one_image_by_two_names(tmp_path: Path, same: str) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    path = written(tmp_path / "t.csv", f"image,text\na.png,A lamp.\n{same},A chair.\n")
    corpus = read_folder(tmp_path, path)
    assert [e.image_id for e in corpus.examples] == ["a.png", "a.png"] and len(corpus.scenes) == 1
    written(path, f"image,text,split\na.png,A lamp.,train\n{same},A chair.,test\n")
    with pytest.raises(AtlasError, match=r"line 3: split: 'a.png' is in train and test"):
        read_folder(tmp_path, path)
    for outside in ("../a.png", str(tmp_path / "a.png")):
        written(path, f"image,text\n{outside},A lamp.\n")
        with pytest.raises(AtlasError, match=r"line 2: image: .* is not below"):
            read_folder(tmp_path, path)
