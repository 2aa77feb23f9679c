"""Greedy and beam search against exhaustive enumeration on tiny models."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attention_atlas.errors import ConfigError
from attention_atlas.language.vocabulary import BOS, EOS, PAD, UNK
from attention_atlas.models.object_relation import ObjectRelationTransformer
from attention_atlas.models.search import _beam, generate

WORDS = [4, 5, 6]


class Table(nn.Module):
    """A 'model' whose logits are a fixed random function of image and prefix; the state holds the prefix."""

    def __init__(self, seed: int, end: float = 0.0) -> None:
        super().__init__()
        self.seed, self.end = seed, end
        self.unused = nn.Parameter(torch.zeros(1))

    def logits(self, image: int, prefix: tuple[int, ...]) -> Tensor:
        g = torch.Generator().manual_seed(hash((self.seed, image, prefix)) % 2**31)
        logits = 2.0 * torch.randn(7, generator=g)
        logits[EOS] += self.end
        return logits

    def encode(self, batch: dict[str, Tensor]) -> Any:
        return {"image_B": batch["image_B"]}

    def decode_step(self, memory: Any, ids_BT: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        prefix = ids_BT if state is None else torch.cat([state["seen"], ids_BT[:, -1:]], 1)
        # The search must reorder the state together with the prefixes.
        assert torch.equal(prefix, ids_BT)
        rows = [self.logits(int(i), tuple(p)) for i, p in zip(memory["image_B"], prefix.tolist())]
        return torch.stack(rows), {"seen": prefix}


def images(n: int) -> dict[str, Tensor]:
    return {"image_B": torch.arange(n)}


def score(model: Table, image: int, ids: list[int]) -> float:
    total = 0.0
    for t, word in enumerate(ids):
        total += float(model.logits(image, (BOS, *ids[:t])).log_softmax(-1)[word])
    return total


def every_caption(model: Table, image: int, max_words: int, power: float) -> list[tuple[float, list[int]]]:
    found = []
    for n in range(max_words + 1):
        for words in itertools.product(WORDS, repeat=n):
            ids = list(words) + ([EOS] if n < max_words else [])
            found.append((score(model, image, ids) / len(ids) ** power, list(words)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("power", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_the_best_of_all_captions(seed: int, power: float) -> None:
    model = Table(seed)
    got = generate(model, images(3), beam=200, max_words=4, length_power=power)
    for image, caption in enumerate(got):
        best, words = every_caption(model, image, 4, power)[0]
        assert caption.ids == words
        assert caption.score == pytest.approx(best, abs=1e-4)
        assert caption.ended == (len(words) < 4)


@pytest.mark.parametrize("seed", range(5))
def test_a_narrow_beam_reports_the_true_score_of_what_it_returns(seed: int) -> None:
    model = Table(seed, end=-2.0)
    greedy = generate(model, images(4), beam=1, max_words=6)
    beam = generate(model, images(4), beam=3, max_words=6)
    for image, (g, b) in enumerate(zip(greedy, beam)):
        ids = b.ids + ([EOS] if b.ended else [])
        assert b.score == pytest.approx(score(model, image, ids), abs=1e-4)
        assert len(ids) <= 6
        assert g.score == pytest.approx(score(model, image, g.ids + ([EOS] if g.ended else [])), abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_beam_of_one_is_greedy(seed: int) -> None:
    model = Table(seed, end=-1.0)
    greedy = generate(model, images(6), beam=1, max_words=8)
    with torch.no_grad():
        beam = _beam(model, model.encode(images(6)), 6, torch.device("cpu"), 1, 8, 0.0, True)
    assert [c.ids for c in beam] == [c.ids for c in greedy]
    assert [c.ended for c in beam] == [c.ended for c in greedy]
    assert [c.score for c in beam] == pytest.approx([c.score for c in greedy], abs=1e-5)


def test_greedy_takes_the_best_word_each_time_and_stops_at_eos() -> None:
    model = Table(11)
    for image, caption in enumerate(generate(model, images(5), beam=1, max_words=7)):
        prefix: tuple[int, ...] = (BOS,)
        words: list[int] = []
        while len(words) < 7:
            logits = model.logits(image, prefix)
            logits[[PAD, BOS, UNK]] = -math.inf
            best = int(logits.argmax())
            if best == EOS:
                break
            words.append(best)
            prefix = (*prefix, best)
        assert caption.ids == words


@pytest.mark.parametrize("beam", [1, 3])
def test_unk_only_when_allowed_and_pad_and_bos_never(beam: int) -> None:
    class Favours(Table):
        def logits(self, image: int, prefix: tuple[int, ...]) -> Tensor:
            logits = super().logits(image, prefix)
            logits[[PAD, BOS]] = 50.0
            logits[UNK] = 49.0
            return logits

    caption = generate(Favours(0), images(1), beam=beam, max_words=4)[0]
    assert set(caption.ids) <= set(WORDS)
    caption = generate(Favours(0), images(1), beam=beam, max_words=4, suppress_unk=False)[0]
    assert caption.ids == [UNK] * 4


@pytest.mark.parametrize("beam", [1, 2])
def test_an_image_gets_the_same_caption_alone_and_in_a_batch(beam: int) -> None:
    torch.manual_seed(0)
    model = ObjectRelationTransformer(12, 5, layers=2, heads=2, dim=16, inner=32)
    g = torch.Generator().manual_seed(1)
    batch = {
        "features_BND": torch.randn(4, 3, 5, generator=g),
        "boxes_BN4": torch.rand(4, 3, 2, 2, generator=g).sort(2).values.flatten(2),
        "regions_BN": torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=torch.bool),
    }
    together = generate(model, batch, beam=beam, max_words=12)
    for i in range(4):
        alone = generate(model, {k: v[i : i + 1] for k, v in batch.items()}, beam=beam, max_words=12)[0]
        assert alone.ids == together[i].ids
        assert alone.score == pytest.approx(together[i].score, abs=1e-4)
    assert model.training  # back in the mode it was in


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="beam 0"):
        generate(Table(0), images(1), beam=0)
