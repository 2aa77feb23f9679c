"""Contextualisation: mean cosines from sums of unit vectors against the double loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import vlm_tiny as tiny

from attention_atlas.errors import AtlasError
from attention_atlas.models.vlm.samples import samples_of
from attention_atlas.studies.vlm_phases.contextualisation import across, between, unit_sums, within
from attention_atlas.studies.vlm_phases.measure import GROUPS, measure


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_mean_cosine_is_the_double_loop() -> None:
    rng = np.random.default_rng(0)
    v, w = rng.normal(size=(5, 7)), rng.normal(size=(3, 7)) * 10
    x = torch.tensor(np.concatenate([v, w, rng.normal(size=(2, 7))])[None])
    member = torch.zeros(1, 10, 2, dtype=torch.bool)
    member[0, :5, 0] = member[0, 5:8, 1] = True
    sums = unit_sums(x, member)[0].numpy()
    naive = np.mean([cosine(a, b) for a in v for b in w])
    assert between(sums[0], 5, sums[1], 3) == pytest.approx(naive, abs=1e-6)
    pairs = [cosine(a, b) for i, a in enumerate(v) for j, b in enumerate(v) if i != j]
    assert within(sums[0], 5) == pytest.approx(np.mean(pairs), abs=1e-6)
    every = [cosine(a, b) for a in v for b in v]
    assert within(sums[0], 5, self_pairs=True) == pytest.approx(np.mean(every), abs=1e-6)


def test_by_hand_and_empty_sets() -> None:
    # Two tokens at 60 degrees: 0.5 without self-pairs, (1 + 1 + 0.5 + 0.5) / 4 with.
    pair = np.array([1.5, np.sqrt(0.75)])
    assert within(pair, 2) == pytest.approx(0.5)
    assert within(pair, 2, self_pairs=True) == pytest.approx(0.75)
    assert np.isnan(within(pair, 1)) and np.isnan(between(pair, 0, pair, 2))


def test_baseline_is_the_double_loop_over_other_images() -> None:
    rng = np.random.default_rng(1)
    mean, other = rng.normal(size=(6, 4, 5)), rng.normal(size=(6, 4, 5))
    images = np.array(["a", "b", "a", "c", "b", "b"])
    found = across(mean, other, images)
    for n in range(6):
        rest = [j for j in range(6) if images[j] != images[n]]
        for layer in range(4):
            naive = np.mean([mean[n, layer] @ other[j, layer] for j in rest])
            assert found[n, layer] == pytest.approx(naive)
    with pytest.raises(AtlasError, match="at least two images"):
        across(mean, other, np.array(["a"] * 6))


@pytest.mark.parametrize("name", tiny.MAKERS)
def test_sums_of_a_padded_batch_are_those_of_the_hidden_states(name: str, tmp_path: Path) -> None:
    loaded = tiny.MAKERS[name]()
    corpus = tiny.corpus(tmp_path)
    samples = samples_of(corpus, corpus.examples)
    inputs = loaded.batch(samples)
    roles, spans = loaded.roles(inputs), loaded.text_spans(samples)
    found = measure(loaded, inputs, roles, spans, lens=(), norm=False)
    with torch.no_grad():
        out = loaded.model(**inputs, output_hidden_states=True)
    states = out.hidden_states if name == "llava" else out.language_model_outputs.hidden_states
    assert found.sums.shape[1:3] == (tiny.LAYERS + 2, len(GROUPS))
    for b, (row, (start, stop)) in enumerate(zip(roles, spans)):
        at = {
            "image": [s for s, r in enumerate(row) if r == "image"],
            "prompt": [s for s, r in enumerate(row) if r == "text" and s < start],
            "caption": list(range(start, stop)),
        }
        assert found.counts[b].tolist() == [len(at[g]) for g in GROUPS]
        # transformers' states: embeddings, layers 1..L-1, and the last one after the norm.
        for index, layer in [*enumerate(range(tiny.LAYERS)), (-1, tiny.LAYERS + 1)]:
            for g, group in enumerate(GROUPS):
                x = states[index][b, at[group]].double()
                naive = (x / x.norm(dim=-1, keepdim=True)).sum(0)
                assert np.allclose(found.sums[b, layer, g], naive, atol=1e-5)


def test_a_sample_alone_gives_what_it_gives_in_a_padded_batch(tmp_path: Path) -> None:
    loaded, corpus = tiny.llava(), tiny.corpus(tmp_path)
    samples = samples_of(corpus, corpus.examples)
    inputs = loaded.batch(samples)
    both = measure(loaded, inputs, loaded.roles(inputs), loaded.text_spans(samples))
    one = loaded.batch(samples[1:2])
    alone = measure(loaded, one, loaded.roles(one), loaded.text_spans(samples[1:2]))
    assert np.allclose(both.sums[1], alone.sums[0], atol=1e-4)
    length = alone.norm.shape[-1]
    assert np.allclose(both.norm[1][..., :length], alone.norm[0], atol=1e-4)
    assert (both.norm[1][..., length:] == 0).all()
