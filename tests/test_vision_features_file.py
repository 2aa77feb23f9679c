"""features.h5: round trip, names, and one clear line for every kind of bad file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.files import sha256
from attention_atlas.regions.features_file import FeaturesFile, FeaturesWriter

LABELS = ["sofa,couch", "lamp"]
ATTRIBUTES = ["red", "dark green,olive"]


def write(path: Path, counts: dict[str, int] | None = None) -> Path:
    rng = np.random.default_rng(3)
    with FeaturesWriter(
        path, dim=5, regions=4, labels=LABELS, attributes=ATTRIBUTES, source="test"
    ) as writer:
        for image_id, n in (counts or {"a": 4, "b": 2}).items():
            writer.add(
                image_id,
                features=rng.normal(size=(n, 5)),
                boxes=[[i, 1, i + 3, 9] for i in range(n)],
                size=(20, 10),
                label=[i % 2 for i in range(n)],
                label_confidence=np.full(n, 0.75),
                attribute=[1, -1, 0, 0][:n],
                attribute_confidence=[0.5, 0.0, 0.1, 0.11][:n],
                gold=[7, -1, 2, 3][:n],
            )
    return path


def test_round_trip_and_padding(tmp_path: Path) -> None:
    file = FeaturesFile(write(tmp_path / "f.h5"))
    assert (file.image_ids, file.dim, file.regions, len(file)) == (["a", "b"], 5, 4, 2)
    assert file.labels == LABELS and file.attributes == ATTRIBUTES and file.source == "test"
    expected = np.random.default_rng(3).normal(size=(4, 5)).astype("float16")
    a, b = file.read("a"), file.read("b")
    assert a.features.dtype == np.float16 and np.array_equal(a.features, expected)
    assert a.boxes.dtype == np.float32 and a.boxes[2].tolist() == [2, 1, 5, 9]
    assert a.size == (20, 10) and a.gold.tolist() == [7, -1, 2, 3]
    assert b.count == 2 and not b.features[2:].any() and b.label.tolist() == [0, 1, -1, -1]
    assert file.index("b") == 1 and "b" in file and "c" not in file


def test_descriptions_take_first_synonym_and_a_strict_threshold(tmp_path: Path) -> None:
    file = FeaturesFile(write(tmp_path / "f.h5"))
    # 0.1 itself is not above 0.1; 0.11 is.
    assert file.descriptions("a") == ["dark green sofa", "lamp", "sofa", "red lamp"]
    assert file.descriptions("a", threshold=0.2) == ["dark green sofa", "lamp", "sofa", "lamp"]
    assert file.descriptions("b") == ["dark green sofa", "lamp"]


def test_same_content_same_bytes(tmp_path: Path) -> None:
    assert sha256(write(tmp_path / "1.h5")) == sha256(write(tmp_path / "2.h5"))


def test_failure_leaves_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        FeaturesWriter(tmp_path / "f.h5", dim=2, regions=2, labels=["x"], source="t") as writer,
    ):
        writer.add("a", features=[[1, 2]], boxes=[[0, 0, 1, 1]], size=(2, 2), label=[0])
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []
    with (
        pytest.raises(AtlasError, match="no images"),
        FeaturesWriter(tmp_path / "f.h5", dim=2, regions=2, labels=["x"], source="t"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


GOOD: dict[str, Any] = {"features": [[1.0, 2.0]], "boxes": [[0, 0, 1, 1]], "size": (2, 2), "label": [0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": [[np.nan, 1]]}, "features: not finite"),
        ({"features": [[7e4, 1]]}, "overflow of float16"),
        ({"features": np.zeros((0, 2))}, "0 objects"),
        ({"features": np.zeros((3, 2))}, "3 regions, the maximum is 2"),
        ({"features": [[1, 2, 3]]}, r"shape \(1, 3\), expected \(1, 2\)"),
        ({"boxes": [[0, 0, 0, 1]]}, "no area"),
        ({"boxes": [0, 0, 1, 1]}, "boxes: shape"),
        ({"label": [1]}, "outside the file's 1 labels"),
        ({"label": None}, "outside the file's 1 labels"),
        ({"attribute": [0]}, "outside the file's 0 attributes"),
        ({"label_confidence": [1.5]}, "label_confidence: not within"),
    ],
)
def test_writer_refuses(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with FeaturesWriter(tmp_path / "f.h5", dim=2, regions=2, labels=["x"], source="t") as writer:
        writer.add("fine", **GOOD)
        with pytest.raises(AtlasError, match=message) as caught:
            writer.add("bad", **(GOOD | change))
        assert "image 'bad'" in str(caught.value) and "\n" not in str(caught.value)
        with pytest.raises(AtlasError, match="occurs twice"):
            writer.add("fine", **GOOD)
    assert FeaturesFile(tmp_path / "f.h5").image_ids == ["fine"]


def edit(path: Path, name: str, value: object) -> None:
    with h5py.File(path, "a") as h5:
        del h5[name]
        if value is not None:
            h5[name] = value


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "features",
            lambda v: np.where(np.arange(v.size).reshape(v.shape) == 22, np.nan, v),
            "'b': features: not",
        ),
        ("features", lambda v: v[:, :, 0], "expected \\(images, regions, dim\\)"),
        ("features", lambda v: v[:1], "expected \\(1, 4, 4\\)"),
        ("count", lambda v: np.array([4, 0]), "'b': count: has 0 objects"),
        ("count", lambda v: np.array([5, 1]), "'a': count: exceeds"),
        ("boxes", lambda v: v[:, :3], "boxes: shape"),
        ("boxes", lambda v: v * np.nan, "boxes: not finite"),
        ("label", lambda v: v + 1, "'a': label: index outside"),
        ("attribute", lambda v: v + 2, "'a': attribute: index outside"),
        ("attribute_confidence", lambda v: v - 1, "attribute_confidence: not within"),
        ("image_id", lambda v: np.array([b"a", b"a"], dtype=h5py.string_dtype()), "'a' occurs twice"),
        ("gold", lambda v: None, "gold: data set is missing"),
    ],
)
def test_reader_refuses(tmp_path: Path, name: str, change, message: str) -> None:
    path = write(tmp_path / "f.h5")
    with h5py.File(path) as h5:
        value = change(h5[name][:])
    edit(path, name, value)
    with pytest.raises(AtlasError, match=message) as caught:
        FeaturesFile(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_reader_refuses_what_is_no_features_file(tmp_path: Path) -> None:
    path = write(tmp_path / "f.h5")
    raw = path.read_bytes()
    for keep in (len(raw) // 2, len(raw) - 40, 100, 0):
        path.write_bytes(raw[:keep])
        with pytest.raises(AtlasError, match=r"truncated|read to its end"):
            FeaturesFile(path)
    with h5py.File(path, "w") as h5:
        h5.attrs["schema"] = "atlas.attention/1"
    with pytest.raises(AtlasError, match="schema"):
        FeaturesFile(path)
    with pytest.raises(AtlasError, match="no such file"):
        FeaturesFile(tmp_path / "none.h5")
    with pytest.raises(AtlasError, match="no image 'zebra'"):
        FeaturesFile(write(path)).read("zebra")


def test_file_without_labels_opens_but_names_nothing(tmp_path: Path) -> None:
    with FeaturesWriter(tmp_path / "f.h5", dim=2, regions=2, labels=[], source="t") as writer:
        writer.add("a", features=[[1, 2]], boxes=[[0, 0, 1, 1]], size=(2, 2))
    file = FeaturesFile(tmp_path / "f.h5")
    assert file.read("a").label.tolist() == [-1, -1]
    with pytest.raises(AtlasError, match="labels: the file has none"):
        file.descriptions("a")
