"""A user's own folder of images and CSV of texts: the example of docs/data.md, and every mistake in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from attention_atlas.data.folder import read_folder
from attention_atlas.errors import AtlasError

CSV = 'image,text\na.png,"A lamp, and a chair."\nsub/b.png,Two beds.\n'


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (12, 8)).save(folder / "a.png")
    Image.new("RGB", (5, 6)).save(folder / "sub/b.png")
    return folder


def texts(tmp_path: Path, content: str) -> Path:
    (tmp_path / "texts.csv").write_text(content, encoding="utf-8")
    return tmp_path / "texts.csv"


def test_two_columns_are_enough(tmp_path: Path, images: Path) -> None:
    corpus = read_folder(images, texts(tmp_path, CSV))
    assert [(e.id, e.image_id, e.text) for e in corpus.examples] == [
        ("row0", "a.png", "A lamp, and a chair."),
        ("row1", "sub--b.png", "Two beds."),
    ]
    scene = corpus.scenes["sub--b.png"]
    assert (scene.width, scene.height, scene.split, scene.objects) == (5, 6, "test", [])
    assert corpus.image_path("sub--b.png") == images / "sub/b.png"


def test_all_columns(tmp_path: Path, images: Path) -> None:
    content = (
        "\ufeffimage,text,id,split,category,author\n"
        "a.png,A lamp.,one,train,kitchen,Ann\na.png,A chair.,two,train,kitchen,Bob\nsub/b.png,A bed.,,,,\n"
    )
    corpus = read_folder(images, texts(tmp_path, content), name="mine", split="val")
    assert [e.id for e in corpus.split("train")] == ["one", "two"] and len(corpus.scenes) == 2
    assert corpus.examples[1].extra == {"author": "Bob"} and corpus.scenes["a.png"].category == "kitchen"
    assert [e.id for e in corpus.split("val")] == ["row2"] and corpus.name == "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("picture,text\na.png,A lamp.\n", "image: column is missing"),
        ("", "image: column is missing"),
        ("image,text\n", "has no rows"),
        ("image,text\nabsent.png,A lamp.\n", r"absent.png: no such image"),
        ("image,text\n,A lamp.\n", "line 2: image: is empty"),
        ("image,text\na.png,A lamp, and a chair.\n", "line 2: 3 fields, the header has 2"),
        ("image,text\na.png\n", "line 2: 1 fields, the header has 2"),
        ("image,text\na.png,...\n", "example 'row0': text: has no words"),
        ("image,text,id\na.png,A lamp.,x\nsub/b.png,A bed.,x\n", "example 'x': id occurs twice"),
        ("image,text,split\na.png,A lamp.,tset\n", "line 2: split: 'tset' is not one of"),
        ("image,text,split\na.png,A.,train\na.png,B.,test\n", "line 3: split: 'a.png' is in train and test"),
    ],
)
def test_mistakes(tmp_path: Path, images: Path, content: str, message: str) -> None:
    with pytest.raises(AtlasError, match=message):
        read_folder(images, texts(tmp_path, content))


def test_what_is_absent(tmp_path: Path, images: Path) -> None:
    with pytest.raises(AtlasError, match=r"no such folder; set images"):
        read_folder(tmp_path / "absent", tmp_path / "texts.csv")
    with pytest.raises(AtlasError, match=r"texts.csv: no such file; set texts"):
        read_folder(images, tmp_path / "texts.csv")
    (tmp_path / "texts.csv").write_bytes("image,text\na.png,A café.\n".encode("cp1252"))
    with pytest.raises(AtlasError, match=r"texts.csv: not UTF-8"):
        read_folder(images, tmp_path / "texts.csv")
    (images / "a.png").write_bytes(b"nothing")
    with pytest.raises(AtlasError, match=r"a.png: not an image"):
        read_folder(images, texts(tmp_path, CSV))


def test_two_images_with_one_id(tmp_path: Path, images: Path) -> None:
    Image.new("RGB", (4, 4)).save(images / "sub--b.png")
    with pytest.raises(
        AtlasError, match=r"image: 'sub--b.png' and 'sub/b.png' have the same id 'sub--b.png'"
    ):
        read_folder(images, texts(tmp_path, CSV + "sub--b.png,A bed.\n"))


def test_the_example_of_the_documentation(tmp_path: Path, root: Path) -> None:
    page = (root / "docs/data.md").read_text(encoding="utf-8")
    block = re.search(r"```csv\n(image,text.*?)```", page, re.S)
    assert block is not None
    rows = block.group(1).strip().splitlines()
    for row in rows[1:]:
        image = tmp_path / "images" / row.split(",")[0]
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(image)
    corpus = read_folder(tmp_path / "images", texts(tmp_path, block.group(1)))
    assert len(corpus.examples) == len(rows) - 1 >= 3


def test_the_config_names_this_reader(tmp_path: Path, images: Path, root: Path) -> None:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    texts(tmp_path, CSV)
    config = OmegaConf.create({"data": OmegaConf.load(root / "conf/data/folder.yaml")})
    config.data.root = str(tmp_path)
    assert len(instantiate(config.data.reader).split("test")) == 2
