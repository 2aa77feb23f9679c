"""The readers of CUB and COCO for text-to-image models, on files of the published layout written here."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from PIL import Image

from attention_atlas.data.cub_boxes import crop_square
from attention_atlas.data.name_list import read_names
from attention_atlas.data.text_to_image import read_text_to_image
from attention_atlas.errors import AtlasError, ConfigError

ROWS = {
    "train": [
        "001.Black_footed_Albatross/Black_Footed_Albatross_0001_1",
        "001.Black_footed_Albatross/Black_Footed_Albatross_0002_2",
        "003.Sooty_Albatross/Sooty_Albatross_0001_3",
        "003.Sooty_Albatross/Sooty_Albatross_0002_4",
    ],
    "test": ["002.Laysan_Albatross/Laysan_Albatross_0001_5"],
}


def python2_pickle(names: list[str]) -> bytes:
    """A list of byte strings in protocol 0, as Python 2 writes it."""
    return ("(lp0\n" + "".join(f"S'{n}'\np{i + 1}\na" for i, n in enumerate(names)) + ".").encode()


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    lines, boxes = [], []
    number = 0
    for split, rows in ROWS.items():
        (tmp_path / split).mkdir()
        (tmp_path / split / "filenames.pickle").write_bytes(python2_pickle(rows))
        for row in rows:
            number += 1
            for folder in ("CUB_200_2011/images", "text"):
                (tmp_path / folder / row).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (50, 40)).save(tmp_path / f"CUB_200_2011/images/{row}.jpg")
            text = b"a bird with a white throat\n\nthis bird\xff\xfehas  a red bill.\n a large bird \n"
            (tmp_path / f"text/{row}.txt").write_bytes(text)
            lines.append(f"{number} {row}.jpg")
            boxes.append(f"{number} 20.0 10.0 12.0 {number + 15}.0")
    (tmp_path / "CUB_200_2011/images.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "CUB_200_2011/bounding_boxes.txt").write_text("\n".join(boxes) + "\n")
    return tmp_path


def read(root: Path, **changed):
    given = {
        "images": root / "CUB_200_2011/images",
        "texts": root / "text",
        "names": {s: root / s / "filenames.pickle" for s in ROWS},
        "name": "cub",
        "boxes": root / "CUB_200_2011",
    }
    return read_text_to_image(**(given | changed))


def test_reads_the_published_layout(cub):
    corpus = read(cub)
    assert list(corpus.scenes) == [r.split("/")[1] for rows in ROWS.values() for r in rows]
    scene = corpus.scenes["Laysan_Albatross_0001_5"]
    assert (scene.split, scene.category, scene.width, scene.height) == ("test", "Laysan_Albatross", 50, 40)
    assert corpus.image_path(scene.image_id).exists() and scene.objects == []
    test = corpus.split("test")
    assert [e.id for e in test] == [f"Laysan_Albatross_0001_5.c{n}" for n in range(3)]
    assert [e.text for e in test] == [
        "a bird with a white throat",
        "this bird has a red bill.",
        "a large bird",
    ]
    # box 20, 10, 12 x 20: centre 26, 20; reach int(20 * 0.75) = 15
    assert test[0].extra == {"crop": [11, 5, 41, 35]}


def test_the_square_is_attngans():
    assert crop_square((60, 27, 325, 304), 500, 335) == [0, 0, 465, 335]  # centre 222, 179; reach 243
    assert crop_square((60, 27, 325, 304), 0, 0) == [0, 0, 465, 422]
    assert crop_square((10.0, 10.0, 5.0, 4.0), 100, 100) == [9, 9, 15, 15]  # centre 12, 12; reach int(3.75)


def test_validation_images_are_drawn_from_training(cub):
    one = read(cub, val_share=0.5, seed=1)
    splits = {i: s.split for i, s in one.scenes.items()}
    assert sorted(splits.values()) == ["test", "train", "train", "val", "val"]
    assert splits == {i: s.split for i, s in read(cub, val_share=0.5, seed=1).scenes.items()}
    drawn = {
        frozenset(i for i, s in read(cub, val_share=0.5, seed=n).scenes.items() if s.split == "val")
        for n in range(8)
    }
    assert len(drawn) > 1


def test_limits_and_text_only(cub):
    corpus = read(cub, captions=1, limit=2)
    assert len(corpus.split("train")) == 2 and len(corpus.split("test")) == 1
    (cub / "CUB_200_2011/images" / f"{ROWS['test'][0]}.jpg").unlink()
    with pytest.raises(AtlasError, match=r"0001_5.jpg: no such image"):
        read(cub)
    scene = read(cub, require_images=False).scenes["Laysan_Albatross_0001_5"]
    assert (scene.width, scene.height) == (0, 0)


def test_coco_has_no_folders_and_no_boxes(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "text").mkdir()
    name = "COCO_val2014_000000000042"
    Image.new("RGB", (8, 6)).save(tmp_path / f"images/{name}.jpg")
    (tmp_path / f"text/{name}.txt").write_text("This wire metal rack holds several pairs of shoes\n")
    (tmp_path / "names.txt").write_text(f"{name}\n")
    corpus = read_text_to_image(
        tmp_path / "images", tmp_path / "text", {"test": tmp_path / "names.txt"}, "coco_images"
    )
    assert corpus.scenes[name].category == "" and corpus.examples[0].extra == {}


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    file = tmp_path / "filenames.pickle"
    file.write_bytes(pickle.dumps([Trap()]))
    with pytest.raises(AtlasError, match=r"filenames.pickle: no list of names \(it names"):
        read_names(file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content, message", [
    (b"not a pickle", "no list of names"),
    (pickle.dumps([1, 2]), "no list of names"),
    (pickle.dumps([]), "no list of names"),
    (pickle.dumps(["a", "b", "a"]), "'a' occurs twice"),
    (pickle.dumps(["../secret"]), "is outside the folder"),
])  # fmt: skip
def test_spoilt_lists_are_named(tmp_path, content, message):
    file = tmp_path / "names.pickle"
    file.write_bytes(content)
    with pytest.raises(AtlasError, match=message):
        read_names(file)


def test_faults_name_file_and_remedy(cub):
    with pytest.raises(AtlasError, match=r"absent.pickle: no such file; run 'make paper-check'"):
        read(cub, names={"test": cub / "absent.pickle"})
    with pytest.raises(AtlasError, match="'tset' is not one of"):
        read(cub, names={"tset": cub / "test/filenames.pickle"})
    with pytest.raises(ConfigError, match="names: is empty"):
        read(cub, names={})
    with pytest.raises(ConfigError, match="val_share: 1"):
        read(cub, val_share=1)
    with pytest.raises(ConfigError, match="captions: 0"):
        read(cub, captions=0)
    both = {"train": cub / "test/filenames.pickle", "test": cub / "test/filenames.pickle"}
    with pytest.raises(AtlasError, match="'Laysan_Albatross_0001_5' occurs twice"):
        read(cub, names=both)
    text = cub / f"text/{ROWS['test'][0]}.txt"
    text.write_text(" \n")
    with pytest.raises(AtlasError, match=r"0001_5.txt: no captions; write one per line"):
        read(cub)
    text.unlink()
    with pytest.raises(AtlasError, match=r"0001_5.txt: no such file"):
        read(cub)


def test_faults_of_boxes(cub):
    folder = cub / "CUB_200_2011"
    boxes = (folder / "bounding_boxes.txt").read_text()
    (folder / "bounding_boxes.txt").write_text(boxes.replace("5 20.0", "5 left"))
    with pytest.raises(AtlasError, match=r"bounding_boxes.txt: line 5: not 'id x y width height'"):
        read(cub)
    (folder / "bounding_boxes.txt").write_text(boxes.replace("5 20.0", "5"))
    with pytest.raises(AtlasError, match="line 5: 4 fields, not 5"):
        read(cub)
    (folder / "bounding_boxes.txt").write_text(boxes.rsplit("5 20.0", 1)[0])
    with pytest.raises(AtlasError, match=r"images.txt: line 5: no box for '5'"):
        read(cub)
    (folder / "bounding_boxes.txt").write_text(boxes)
    (folder / "images.txt").write_text("")
    with pytest.raises(AtlasError, match=r"images.txt: no line for '001"):
        read(cub)
    (folder / "images.txt").unlink()
    with pytest.raises(AtlasError, match=r"images.txt: no such file; run 'make paper-check'"):
        read(cub)


@pytest.mark.parametrize("which", ["cub", "coco_images"])
def test_the_configs_name_this_reader(root, cub, which):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    data = OmegaConf.load(root / f"conf/data/{which}.yaml")
    data.root, data.reader.limit, data.reader.val_share = str(cub), None, 0.25
    if which == "coco_images":
        data.reader.images = str(cub / "CUB_200_2011/images")
    config = OmegaConf.create({"data": data, "seed": 0})
    corpus = instantiate(config.data.reader)
    assert len(corpus.examples) == 15 and corpus.name == which
    assert {s.split for s in corpus.scenes.values()} == {"train", "val", "test"}
