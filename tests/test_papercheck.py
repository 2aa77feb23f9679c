"""make paper-check: present, missing, wrong and optional files; the list itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.files import sha256
from attention_atlas.workflow import paper_check as papercheck

LIST = """
files:
  - {study: one, path: raw/a.txt, what: letters, source: "https://a.example", bytes: 3, sha256: HASH}
  - {study: one, path: raw/folder, what: images, source: "https://b.example", files: 2, disk: 1.5}
  - {study: two, path: raw/extra.txt, what: more, source: "https://c.example", optional: true}
needs:
  - {study: two, what: training, disk: unknown, gpu: 24}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "abc").write_text("abc")
    (tmp_path / "list.yaml").write_text(LIST.replace("HASH", sha256(tmp_path / "abc")))
    (tmp_path / "raw/folder/deep").mkdir(parents=True)
    return tmp_path


def states(root: Path, **options) -> list[tuple[str, str]]:
    files = papercheck.read_list(root / "list.yaml")["files"]
    return [(f.state, f.detail) for f in (papercheck.check_entry(e, root, **options) for e in files)]


def test_files_in_linked_folders_count(root: Path) -> None:
    (root / "elsewhere").mkdir()
    for name in ("1.png", "2.png"):
        (root / "elsewhere" / name).write_text("")
    (root / "raw/folder/train2014").symlink_to(root / "elsewhere")
    assert states(root)[1] == ("present", "2 files")


def test_from_missing_to_present(root: Path) -> None:
    (root / "raw/folder").joinpath("deep/1.png").write_text("")
    assert states(root) == [("missing", ""), ("wrong", "1 files, expected 2"), ("optional", "")]
    (root / "raw/a.txt").write_text("abc")
    (root / "raw/folder/2.png").write_text("")
    (root / "raw/extra.txt").write_text("12")
    assert states(root) == [
        ("present", "3 bytes, size and hash correct"),
        ("present", "2 files"),
        ("present", "2 bytes, not checked"),
    ]


def test_wrong_files_are_reported(root: Path) -> None:
    (root / "raw/a.txt").write_text("abcd")
    assert states(root)[0] == ("wrong", "4 bytes, expected 3; download it again")
    (root / "raw/a.txt").write_text("abd")
    assert states(root)[0][0] == "wrong" and "unexpected content" in states(root)[0][1]
    assert states(root, hashes=False)[0] == ("present", "3 bytes, size correct")
    assert states(root)[1] == ("wrong", "0 files, expected 2")


def test_the_report(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--list", str(root / "list.yaml"), "--root", str(root)]
    assert papercheck.main(arguments) == 0
    text = capsys.readouterr().out
    for part in (
        "[missing ] raw/a.txt",
        "from: https://a.example",
        "size: 3 bytes; sha256: " + sha256(root / "abc"),
        "disk: 1.5 GB, GPU memory: none",
        "[optional] raw/extra.txt",
        "training: disk: unknown, GPU memory: 24 GB",
        "1 of 3 entries are in order, 2 need action.",
    ):
        assert part in text, part
    assert text.index("one\n") < text.index("two\n")
    assert papercheck.main([*arguments, "--strict"]) == 1
    (root / "raw/a.txt").write_text("abc")
    for name in ("1", "2"):
        (root / "raw/folder" / name).write_text("")
    assert papercheck.main([*arguments, "--strict"]) == 0


def test_a_bad_list_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "list.yaml"
    path.write_text("files: [{study: s, path: p, what: w}]")
    with pytest.raises(AtlasError, match="file 1: source: field is missing"):
        papercheck.read_list(path)
    path.write_text("files: [{study: s, path: p, what: w, source: x, byte: 3}]")
    with pytest.raises(AtlasError, match=r"p: byte: unknown field; did you mean 'bytes'\?"):
        papercheck.read_list(path)
    assert papercheck.main(["--list", str(root / "absent.yaml")]) == 1
    assert "absent.yaml: no such file" in capsys.readouterr().err


def test_the_list_of_this_repository() -> None:
    here = Path(__file__).resolve().parent.parent
    table = papercheck.read_list(here / papercheck.LIST)
    paths = [entry["path"] for entry in table["files"]]
    assert len(paths) == len(set(paths)) and all(p.startswith("data/raw/") for p in paths)
    assert {"grounding"} <= {entry["study"] for entry in table["files"]}
    for entry in table["files"]:
        assert len(entry.get("sha256", "0" * 64)) == 64, entry["path"]
        assert isinstance(entry.get("bytes", 0), int) or str(entry["bytes"]).startswith("unknown")
    assert all({"study", "what", "disk", "gpu"} <= set(need) for need in table["needs"])
