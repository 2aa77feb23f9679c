"""The reader of Stanford image paragraphs on small files of the published form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from attention_atlas.data.corpus import Corpus
from attention_atlas.data.stanford_paragraphs import read_stanford_paragraphs
from attention_atlas.errors import AtlasError

URL = "https://cs.stanford.edu/people/rak248/{folder}/{image_id}.jpg"
ROWS = [
    (11, "VG_100K", "A cat sits  on a wall. \nThe wall is grey. "),
    (12, "VG_100K_2", "Two boats are on a lake."),
    (13, "VG_100K", "A man rides a bicycle."),
    (14, "VG_100K", "A bowl of soup is on a table."),
    (12, "VG_100K_2", "A lake with two boats."),
    (15, "VG_100K", "Nobody put this image into a split."),
]
SPLITS = {"train": [12, 14], "val": [11], "test": [13]}


def written(root: Path, rows=ROWS, splits=SPLITS) -> Path:
    table = [
        {"url": URL.format(folder=folder, image_id=i), "image_id": i, "paragraph": text}
        for i, folder, text in rows
    ]
    (root / "paragraphs_v1.json").write_text(json.dumps(table))
    for split, ids in splits.items():
        (root / f"{split}_split.json").write_text(json.dumps(ids))
    return root


def read(root: Path, **kw) -> Corpus:
    kw.setdefault("require_images", False)
    splits = {split: root / f"{split}_split.json" for split in SPLITS}
    return read_stanford_paragraphs(root / "paragraphs_v1.json", splits, root, **kw)


def test_splits_texts_and_paths(tmp_path: Path) -> None:
    corpus = read(written(tmp_path))
    assert {s: [e.id for e in corpus.split(s)] for s in SPLITS} == {
        "train": ["vg12", "vg14", "vg12.2"],
        "val": ["vg11"],
        "test": ["vg13"],
    }
    assert len(corpus.split("train+extra")) == 3
    assert corpus.split("val")[0].text == "A cat sits on a wall. The wall is grey."
    assert corpus.image_path("12") == tmp_path / "VG_100K_2/12.jpg" and "15" not in corpus.scenes
    assert [e.id for e in read(tmp_path, limit=1).split("train")] == ["vg12", "vg12.2"]
    assert set(read(tmp_path, keep_splits=["test"]).scenes) == {"13"}


def test_images_give_the_sizes(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(AtlasError, match=r"VG_100K/11.jpg: no such image"):
        read(tmp_path, require_images=True)
    (tmp_path / "VG_100K").mkdir()
    Image.new("RGB", (7, 5)).save(tmp_path / "VG_100K/11.jpg")
    scene = read(tmp_path, require_images=True, keep_splits=["val"]).scenes["11"]
    assert (scene.width, scene.height) == (7, 5)


def test_faults_are_named(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "val_split.json").write_text("[12]")
    with pytest.raises(AtlasError, match=r"val_split.json: '12' is in the split train too"):
        read(tmp_path)
    (tmp_path / "val_split.json").write_text("[99]")
    with pytest.raises(AtlasError, match=r"val_split.json: '99' has no paragraph in paragraphs_v1.json"):
        read(tmp_path)
    (tmp_path / "val_split.json").unlink()
    with pytest.raises(AtlasError, match=r"val_split.json: no such file; run 'make paper-check'"):
        read(tmp_path)
    written(tmp_path, rows=[(11, "VG_100K", " "), *ROWS[1:]])
    with pytest.raises(AtlasError, match="vg11"):
        read(tmp_path)
    (tmp_path / "paragraphs_v1.json").write_text('[{"image_id": 11, "url": "u"}]')
    with pytest.raises(AtlasError, match=r"paragraphs_v1.json: 0: paragraph: field is missing"):
        read(tmp_path)
    (tmp_path / "paragraphs_v1.json").write_text("{}")
    with pytest.raises(AtlasError, match="not a list"):
        read(tmp_path)


def test_the_baseline_of_the_paper_profile_is_trained_on_it() -> None:
    from test_dvc_graph import graph

    trained = {s.config["model"]["name"]: s.config["data"]["name"] for s in of_captioners(graph("paper"))}
    assert trained == {
        "object_relation": "tell_me_more",
        "blind": "tell_me_more",
        "lstm": "stanford_paragraphs",
    }
    assert {s.config["data"]["name"] for s in of_captioners(graph("mini"))} == {"rooms_paragraphs"}


def of_captioners(graph: Any) -> list[Any]:
    return [stage for name, stage in graph.stages.items() if name.startswith("grounding_train")]
