"""BERTScore F1 against the plain loops of its definition, on a tiny encoder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.linking.bertscore import BertScoreLinker

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "chair", "##s", "lamp", "old", "table"]
PHRASES = ["a red chair", "chairs", "an old lamp", "table"]
NAMES = ["red chair", "lamp", "old red table", "red chair", "chair"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab={piece: i for i, piece in enumerate(PIECES)}).save_pretrained(folder)
    return str(folder)


def by_loops(linker: BertScoreLinker, phrase: str, name: str, idf: dict[int, float] | None = None) -> float:
    """Zhang et al. 2020, equations 1 to 3, with [CLS] and [SEP] left out of the matching."""
    import torch

    def encode(text: str) -> tuple[list[int], np.ndarray]:
        batch = linker._tokenizer([text], return_tensors="pt")
        with torch.inference_mode():
            states = linker._encoder(**batch, output_hidden_states=True).hidden_states[linker.layer]
        vectors = states[0, 1:-1].double().numpy()
        return batch["input_ids"][0, 1:-1].tolist(), vectors

    def match(own: tuple[list[int], np.ndarray], other: tuple[list[int], np.ndarray]) -> float:
        total = weights = 0.0
        for piece, x in zip(*own, strict=True):
            w = 1.0 if idf is None else idf[piece]
            best = max(float(x @ y) / math.sqrt(float(x @ x) * float(y @ y)) for y in other[1])
            total, weights = total + w * best, weights + w
        return total / weights

    a, b = encode(phrase), encode(name)
    recall, precision = match(a, b), match(b, a)
    return 2 * precision * recall / (precision + recall)


def test_against_plain_loops(model: str) -> None:
    linker = BertScoreLinker("b", model, layer=2, batch=3, device="cpu")
    linker.prepare(PHRASES)
    assert linker._pieces["chairs"] == [7, 8] and linker._pieces["an old lamp"] == [1, 10, 9]
    found = linker.similarity(PHRASES, NAMES)
    expected = np.array([[by_loops(linker, p, n) for n in NAMES] for p in PHRASES])
    assert np.abs(found - expected).max() < 1e-6
    assert found[0, 0] == found[0, 3]  # the same words tie exactly
    assert linker.similarity(["red chair"], ["red chair"])[0, 0] == pytest.approx(1.0)


def test_idf_weights(model: str) -> None:
    linker = BertScoreLinker("b", model, layer=2, idf=True, device="cpu")
    linker.prepare([*PHRASES, *NAMES])
    distinct = sorted({*PHRASES, *NAMES})
    pieces = [set(linker._tokenizer(t, add_special_tokens=False)["input_ids"]) for t in distinct]
    idf = {p: math.log((len(distinct) + 1) / (sum(p in d for d in pieces) + 1)) for d in pieces for p in d}
    found = linker.similarity(PHRASES, NAMES)
    expected = np.array([[by_loops(linker, p, n, idf) for n in NAMES] for p in PHRASES])
    assert np.abs(found - expected).max() < 1e-6


def test_layers_differ_and_a_wrong_one_is_refused(model: str) -> None:
    first = BertScoreLinker("b", model, layer=0, device="cpu").similarity(PHRASES, NAMES)
    last = BertScoreLinker("b", model, layer=-1, device="cpu").similarity(PHRASES, NAMES)
    same = BertScoreLinker("b", model, layer=3, device="cpu").similarity(PHRASES, NAMES)
    assert np.abs(first - last).max() > 1e-3 and np.array_equal(last, same)
    with pytest.raises(
        AtlasError, match=r"BertScoreLinker: layer: 7 is not in the model; choose 0 \(embeddings\) to 3"
    ):
        BertScoreLinker("b", model, layer=7, device="cpu").similarity(PHRASES, NAMES)


def test_nothing_to_match(model: str) -> None:
    linker = BertScoreLinker("b", model, layer=1, device="cpu")
    assert linker.similarity([], NAMES).shape == (0, 5)
    assert linker.similarity(PHRASES, []).shape == (4, 0)
    assert np.isnan(linker.similarity([""], ["lamp"])).all()
    assert np.isnan(linker.similarity(["lamp"], ["", "lamp"])[0, 0])


def test_a_model_that_is_absent(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AtlasError, match=r"BertScoreLinker: model: .*empty' cannot be loaded"):
        BertScoreLinker("b", str(tmp_path / "empty"), device="cpu").prepare(["a"])
