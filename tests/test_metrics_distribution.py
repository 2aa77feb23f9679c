"""Metrics refuse what is no attention: scores, negative values, rows that do not sum to 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from metrics_naive import SETS, WORDS, random_study

from attention_atlas.errors import AtlasError
from attention_atlas.measures.distribution import check_shares, check_weights
from attention_atlas.measures.entropy import Entropy
from attention_atlas.measures.item import Link
from attention_atlas.measures.metric import measure_all
from attention_atlas.measures.pos import PosShare
from attention_atlas.studies.alignment.result import RunResult, Shown
from attention_atlas.studies.grounding.grounding import Grounding
from attention_atlas.studies.grounding.relations import Relations
from attention_atlas.studies.modality.locality import Locality
from attention_atlas.studies.modality.pos import PosMass
from attention_atlas.studies.modality.start import StartShare
from attention_atlas.studies.modality.words import WordStore

METRICS = {
    "entropy": Entropy(),
    "entropy of the paper": Entropy(normaliser="paper"),
    "grounding": Grounding(),
    "pos_share": PosShare(list(SETS.values())),
    "pos_mass": PosMass(),
    "relations": Relations(),
    "locality": Locality(),
    "start_share": StartShare(),
}
ROWS = np.tri(8, dtype=np.float32)  # what a row of self-attention sees


def scores(attn, seen):
    """Differences of logarithms: finite, of both signs, and a plausible entropy comes of them."""
    return np.log(np.maximum(attn, 1e-6)) * seen + 3 * seen


def with_negatives(attn, seen):
    """Rows still sum to 1."""
    n = seen.sum(-1, keepdims=True)
    return np.where(n > 1, attn - seen * 0.2 + (0.2 * n) * (np.arange(attn.shape[-1]) == 0), attn)


FAULTS = {
    "scores": (scores, "negative values|sums to"),
    "negative weights": (with_negatives, "negative values"),
    "rows of 1.7": (lambda attn, seen: 1.7 * attn, "sums to 1.7, not to 1"),
    "rows of 0.9": (lambda attn, seen: 0.9 * attn, "sums to 0.9, not to 1"),
    "NaN": (lambda attn, seen: attn + np.where(seen > 0, np.nan, 0), "NaN"),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_metric_refuses_it_in_one_line(name, fault):
    change, message = FAULTS[fault]
    study = random_study()
    for kind, attn in study.store._attn["e2"].items():
        seen = ROWS if kind == "decoder_self" else np.ones(attn.shape[-2:], np.float32)
        study.store._attn["e2"][kind] = change(attn, seen).astype(np.float32)
    with pytest.raises(AtlasError, match=message) as error:
        METRICS[name](study)
    assert "example 'e2'" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("keys", [1, 7, 300, 4096])
def test_half_precision_is_within_the_tolerance(dtype, keys):
    rows = torch.randn(4, 8, 16, keys, generator=torch.manual_seed(0)) * 4
    check_weights(rows.softmax(-1).to(dtype).float().numpy(), "half")


def test_rows_that_see_nothing_and_rows_of_padding_pass():
    attn = np.full((1, 1, 3, 4), 0.25, np.float32)
    attn[0, 0, 1] = 0
    check_weights(attn, "masked")
    attn[0, 0, 2] = 7
    check_weights(attn, "padded", rows_Q=np.array([True, True, False]))
    check_weights(np.zeros((0, 0, 3, 4), np.float32), "empty")
    with pytest.raises(AtlasError, match=r"row \(0, 0, 2\) sums to 28"):
        check_weights(attn, "scores")
    check_weights(attn[..., :2, :3], "part", partial=True)


def test_a_store_seen_word_by_word_is_checked_as_it_was_stored():
    store = random_study().store
    store._attn["e0"]["decoder_self"] = 1.7 * store._attn["e0"]["decoder_self"]
    with pytest.raises(AtlasError, match=r"example 'e0': decoder_self: row .* sums to 1.7"):
        WordStore(store).read("e0", "decoder_self")


def test_shares_outside_0_to_1_are_refused():
    check_shares(np.array([0, 0.5, 1.0005]), "mass")
    for bad in (-0.2, 1.2, np.nan):
        with pytest.raises(AtlasError, match=f"x.h5: mass: {bad:.3g} is not a share"):
            check_shares(np.array([0.5, bad]), "x.h5: mass")


@pytest.mark.parametrize("value", [-0.5, 0.9])
def test_a_shown_example_of_the_alignment_study_holds_parts_of_distributions(value):
    shown = Shown(example="e", image="e.png", words=["a"], attn_WN=np.array([[0.4, value]]), grid=(1, 2))
    with pytest.raises(AtlasError, match=r"shown: e: attn_WN: (contains negative|row)"):
        RunResult({"score": 1.0}, shown=[shown]).check()


def test_another_number_of_heads_and_a_link_beyond_the_text_are_one_line():
    study = random_study()
    study.store._attn["e1"]["cross"] = study.store._attn["e1"]["cross"][:, :1]
    with pytest.raises(AtlasError, match="layers and heads, the examples before have"):
        measure_all({"g": Grounding()}, study)
    study = random_study()
    study.links["e0"] = [Link(0, len(WORDS) + 9, (0,))]
    with pytest.raises(AtlasError, match=r"links: example 'e0': phrase .* is outside its 7 words"):
        measure_all({"g": Grounding()}, study)
