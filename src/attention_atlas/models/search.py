"""Greedy and beam search over any model with `encode` and `decode_step`.

Scoring: a caption's score is the sum of the natural-log probabilities of its words and of EOS. As in the
published code there is no length normalisation by default; `length_power` a > 0 divides by length**a (words
and EOS). A hypothesis that emits EOS is stored and leaves the beam, which frees its slot. The search for an
image ends when no live hypothesis can exceed its best finished caption, or at `max_words`, where live
hypotheses compete without EOS. PAD and BOS are never emitted, UNK only if `suppress_unk` is False.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attention_atlas.errors import ConfigError
from attention_atlas.language.vocabulary import BOS, EOS, PAD, UNK
from attention_atlas.models.base import Batch

NEVER = float("-inf")


@dataclass
class Caption:
    """Word ids without BOS and EOS; `score`: the maximised score; `ended`: whether EOS was emitted."""

    ids: list[int]
    score: float
    ended: bool


@torch.no_grad()
def generate(
    model: Any,
    batch: Batch,
    beam: int = 1,
    max_words: int = 150,
    length_power: float = 0.0,
    suppress_unk: bool = True,
) -> list[Caption]:
    """The best caption of each image in the batch, with the model temporarily in evaluation mode."""
    if beam < 1 or max_words < 1:
        raise ConfigError(f"generate: beam {beam} and max_words {max_words} must be at least 1")
    was_training = model.training
    model.eval()
    try:
        memory = model.encode(batch)
        size = len(next(iter(batch.values())))
        device = next(model.parameters()).device
        if beam == 1:
            return _greedy(model, memory, size, device, max_words, length_power, suppress_unk)
        return _beam(model, memory, size, device, beam, max_words, length_power, suppress_unk)
    finally:
        model.train(was_training)


def _log_probabilities(logits_BV: Tensor, suppress_unk: bool) -> Tensor:
    # Normalise over the whole vocabulary first: the probability of suppressed words is lost.
    log_BV = torch.log_softmax(logits_BV.float(), -1)
    log_BV[:, [PAD, BOS, UNK] if suppress_unk else [PAD, BOS]] = NEVER
    return log_BV


def _greedy(
    model: Any, memory: Any, size: int, device: Any, max_words: int, length_power: float, suppress_unk: bool
) -> list[Caption]:
    ids_BT = torch.full((size, 1), BOS, device=device)
    score_B = torch.zeros(size, device=device)
    ended_B = torch.zeros(size, dtype=torch.bool, device=device)
    state = None
    for _ in range(max_words):
        logits_BV, state = model.decode_step(memory, ids_BT, state)
        log_BV = _log_probabilities(logits_BV, suppress_unk)
        value_B, next_B = log_BV.max(-1)
        score_B = score_B + torch.where(ended_B, 0.0, value_B)
        ids_BT = torch.cat([ids_BT, next_B.masked_fill(ended_B, PAD)[:, None]], 1)
        ended_B = ended_B | (next_B == EOS)
        if bool(ended_B.all()):
            break
    captions = []
    for row, score, ended in zip(ids_BT.tolist(), score_B.tolist(), ended_B.tolist()):
        words = [i for i in row if i not in (PAD, BOS, EOS)]
        captions.append(Caption(words, score / max(len(words) + ended, 1) ** length_power, ended))
    return captions


def _beam(
    model: Any,
    memory: Any,
    size: int,
    device: Any,
    beam: int,
    max_words: int,
    length_power: float,
    suppress_unk: bool,
) -> list[Caption]:
    memory = _map(memory, lambda x: x.repeat_interleave(beam, 0))
    score_BK = torch.full((size, beam), NEVER, device=device)
    score_BK[:, 0] = 0.0  # all beams start equal, so only the first may branch
    ids_BKT = torch.full((size, beam, 1), BOS, device=device)
    finished: list[Caption | None] = [None] * size
    offset_B1 = torch.arange(size, device=device)[:, None] * beam
    state = None
    for length in range(1, max_words + 1):  # words in a caption after this step, including EOS
        logits, state = model.decode_step(memory, ids_BKT.flatten(0, 1), state)
        log_BKV = _log_probabilities(logits, suppress_unk).view(size, beam, -1)
        vocab_size = log_BKV.shape[-1]
        score_BK, flat_BK = (score_BK[:, :, None] + log_BKV).flatten(1).topk(beam, -1)
        source_BK, word_BK = flat_BK // vocab_size, flat_BK % vocab_size
        ends_BK = (word_BK == EOS) & (score_BK > NEVER)
        for b, k in ends_BK.nonzero().tolist():
            words = ids_BKT[b, source_BK[b, k], 1:].tolist()
            _keep(finished, b, words, float(score_BK[b, k]) / length**length_power, True)
        score_BK = score_BK.masked_fill(ends_BK, NEVER)
        if _settled(finished, score_BK, length_power, max_words):
            break
        rows = (offset_B1 + source_BK).flatten()
        ids_BKT = torch.cat([ids_BKT.flatten(0, 1)[rows].view(size, beam, -1), word_BK[:, :, None]], -1)
        state = _map(state, lambda x, rows=rows: x[rows])
    else:
        for b, k in (score_BK > NEVER).nonzero().tolist():
            _keep(
                finished,
                b,
                ids_BKT[b, k, 1:].tolist(),
                float(score_BK[b, k]) / max_words**length_power,
                False,
            )
    return [c if c is not None else Caption([], 0.0, False) for c in finished]


def _keep(finished: list[Caption | None], b: int, words: list[int], score: float, ended: bool) -> None:
    best = finished[b]
    if best is None or score > best.score:
        finished[b] = Caption(words, score, ended)


def _settled(finished: list[Caption | None], score_BK: Tensor, length_power: float, max_words: int) -> bool:
    """Whether no live hypothesis of any image can exceed the best finished caption of its image."""
    # Log-probabilities are negative and only decrease: the bound is a division by the maximum length.
    bound_B = score_BK.max(1).values / max_words**length_power
    return all(c is not None and c.score >= bound for c, bound in zip(finished, bound_B.tolist()))


def _map(tree: Any, function: Any) -> Any:
    """Apply to every tensor in nested dicts, lists and tuples."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: _map(value, function) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_map(value, function) for value in tree)
    return tree
