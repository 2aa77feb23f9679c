"""The reader of Tell-Me-More on a hand-written file of the same form (tests/fixtures/tell_me_more)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from attention_atlas.data.corpus import Corpus
from attention_atlas.data.tell_me_more import read_tell_me_more
from attention_atlas.errors import AtlasError

HERE = Path(__file__).parent / "fixtures/tell_me_more"


def read(sequences: Path = HERE / "sequences.csv", splits: Path = HERE / "splits.json", **kw) -> Corpus:
    kw.setdefault("require_images", False)
    return read_tell_me_more(sequences, splits, kw.pop("images", "images"), **kw)


def test_splits_texts_and_paths() -> None:
    corpus = read()
    assert {s: len(corpus.split(s)) for s in ("train", "extra", "val", "test")} == {
        "train": 1,
        "extra": 1,
        "val": 1,
        "test": 2,
    }
    assert len(corpus.split("train+extra")) == 2 and corpus.name == "tell_me_more"
    example = corpus.split("test")[0]
    assert (example.id, example.image_id) == ("tmm3", "104")
    assert example.text == (
        "A room with a pool table in it. The table has green cloth. Three lamps hang over the table. "
        "A clock is on the wall behind it. Who plays here?"
    )
    assert len(example.extra["sentences"]) == 5 and not example.phrases
    assert corpus.scene(example).category == "poolroom home"
    assert corpus.image_path("104") == Path("images/validation/p/poolroom/home/ADE_val_00000104.jpg")


def test_quotation_marks_mean_themselves() -> None:
    assert '"royal" look' in read().split("extra")[0].text


def test_punctuation_as_written() -> None:
    text = read(final_punctuation=False).split("test")[1].text
    assert "to the left of the door, A mirror" in text
    assert "to the left of the door. A mirror" in read().split("test")[1].text


def test_kept_splits_and_limit() -> None:
    assert [e.id for e in read(keep_splits=["test", "val"]).examples] == ["tmm2", "tmm3", "tmm4"]
    assert [e.id for e in read(limit=1).examples] == ["tmm0", "tmm1", "tmm2", "tmm3"]


def test_images_give_the_sizes(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match=r"ADE_val_00000103.jpg: no such image"):
        read(images=tmp_path, require_images=True, keep_splits=["val"])
    image = tmp_path / "validation/a/attic/ADE_val_00000103.jpg"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (31, 17)).save(image)
    scene = read(images=tmp_path, require_images=True, keep_splits=["val"]).scenes["103"]
    assert (scene.width, scene.height) == (31, 17)
    image.write_bytes(b"not an image")
    with pytest.raises(AtlasError, match="not an image that can be read"):
        read(images=tmp_path, require_images=True, keep_splits=["val"])


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = (HERE / "sequences.csv").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "sequences.csv").write_text(text.replace(old, new, 1), encoding="utf-8")
    return tmp_path / "sequences.csv"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\timage_path", "\tpath", "image_path: column is missing"),
        ("\t105\t", "\t999\t", "line 6: image_id: '999' has no split in splits.json"),
        ("\t105\t", "\t104\t", "line 6: image_id: '104' occurs twice"),
        ("4\t105", "3\t105", "example 'tmm3': id occurs twice"),
        ("\tThe beams are old.", "", "line 4: 9 fields, the header has 10"),
        (
            "An attic.\tThere are boxes on the floor.\tA window is in the roof.\tThe beams are old.\tDust is"
            " everywhere.",
            "\t\t \t\t.",
            "example 'tmm2': text: has no words",
        ),
    ],
)
def test_bad_rows(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(AtlasError, match=message):
        read(changed(tmp_path, old, new))


def test_bad_splits(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match=r"absent.json: no such file; run 'make paper-check'"):
        read(splits=tmp_path / "absent.json")
    with pytest.raises(AtlasError, match=r"absent.csv: no such file; run 'make paper-check'"):
        read(tmp_path / "absent.csv")
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"101": "training"}))
    with pytest.raises(AtlasError, match="'101': split: 'training' is not one of train"):
        read(splits=path)
    path.write_text("[1")
    with pytest.raises(AtlasError, match="not JSON"):
        read(splits=path)
    path.write_text("[1]")
    with pytest.raises(AtlasError, match="not a table of image ids"):
        read(splits=path)
    with pytest.raises(AtlasError, match="keep_splits: split: 'tset'"):
        read(keep_splits=["tset"])


def test_the_config_names_this_reader(root: Path) -> None:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config = OmegaConf.create({"data": OmegaConf.load(root / "conf/data/tell_me_more.yaml")})
    config.data.root = str(HERE)
    config.data.reader.require_images = False
    config.data.reader.limit = None
    corpus = instantiate(config.data.reader)
    assert len(corpus.examples) == 5 and corpus.name == "tell_me_more"
