"""A tiny study with known words, and the metrics again as plain loops, for the equality tests."""

from __future__ import annotations

import math

import numpy as np

from attention_atlas.language.parsed import NounPhrase, Parse, SpatialRelation, Token
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.item import Link
from attention_atlas.measures.table import measured
from attention_atlas.recording import Axis


class MemoryStore:
    """A store in memory with the interface of AttentionStore."""

    def __init__(self, kinds, attn, axes):
        self.kinds, self._attn, self._axes = kinds, attn, axes
        self.ids = sorted(attn)
        self.attrs = {"convention": "used", "config_hash": "abc"}

    def read(self, id, kind):
        return self._attn[id][kind]

    def axis(self, id, axis):
        return self._axes[id][axis]


KINDS = {"decoder_self": ("target", "source"), "cross": ("target", "region")}
# "the red cup stands on a table" twice; target [0,3), relation [4,5), landmark [5,7).
WORDS = ["the", "red", "cup", "stands", "on", "a", "table"]
SETS = {"DET+ADJ+NOUN": ["DET", "ADJ", "NOUN"], "VERB+ADP": ["VERB", "ADP"]}
POS = ["DET", "ADJ", "NOUN", "VERB", "ADP", "DET", "NOUN"]
HEADS = [2, 2, 3, 3, 3, 6, 4]


def parse(id_="e", words=WORDS, pos=POS, heads=HEADS, relations=None):
    tokens, at = [], 0
    for word, tag, head in zip(words, pos, heads, strict=True):
        tokens.append(Token(word, at, at + len(word), tag, tag, "dep", head, 0))
        at += len(word) + 1
    if relations is None:
        relations = [SpatialRelation((0, 3), (4, 5), (5, 7), "region")]
    return Parse(id_, tokens, [NounPhrase(0, 3, 2, 0, False), NounPhrase(5, 7, 6, 0, False)], relations)


def axes(words, regions, pad=0):
    n = len(words)
    return {
        "target": Axis([*words, "<eos>"], ["text"] * n + ["eos"], [*range(n), -1]),
        "source": Axis(["<bos>", *words], ["bos"] + ["text"] * n, [-1, *range(n)]),
        "region": Axis(
            [f"r{i}" for i in range(regions)], ["image"] * (regions - pad) + ["pad"] * pad, [-1] * regions
        ),
    }


def attention(rng, layers, heads, words, regions, pad=0, kinds=KINDS):
    """Random distributions: causal text attention, full cross-attention with padded regions at 0."""
    n = words + 1
    self_LHQK = rng.gamma(0.3, size=(layers, heads, n, n)).astype(np.float32) * np.tri(n) + 1e-6 * np.tri(n)
    cross_LHQK = rng.gamma(0.3, size=(layers, heads, n, regions)).astype(np.float32) + 1e-6
    if pad:
        cross_LHQK[..., -pad:] = 0
    out = {"decoder_self": self_LHQK, "cross": cross_LHQK}
    return {kind: (out[kind] / out[kind].sum(-1, keepdims=True)).astype(np.float32) for kind in kinds}


def random_study(seed=0, examples=4, layers=2, heads=3, regions=5, pad=1, **settings):
    rng = np.random.default_rng(seed)
    parses, attn, axis, links, images = {}, {}, {}, {}, {}
    for i in range(examples):
        id_ = f"e{i}"
        n = 7 + 7 * (i % 2)
        words, pos = (WORDS * 2)[:n], (POS * 2)[:n]
        head = [h + 7 * k for k in range(n // 7) for h in HEADS]
        relations = [
            SpatialRelation((7 * k, 7 * k + 3), (7 * k + 4, 7 * k + 5), (7 * k + 5, 7 * k + 7), "region")
            for k in range(n // 7)
        ]
        # One triple against the usual order: the landmark comes first.
        relations.append(SpatialRelation((5, 7), (3, 5), (0, 3), "direction"))
        parses[id_] = parse(id_, words, pos, head, relations)
        attn[id_] = attention(rng, layers, heads, n, regions, pad)
        axis[id_] = axes(words, regions, pad)
        links[id_] = [Link(0, 3, (0, 1)), Link(5, 7, (2,))] + ([Link(7, 10, (3,))] if n > 7 else [])
        images[id_] = f"img{i // 2}" if i < 2 else f"img{i}"
    areas = lambda image: np.arange(1, regions - pad + 1) * 10.0  # noqa: E731
    settings = {"areas": areas, "resamples": 50, "name": "t", "model": "m", "data": "d"} | settings
    return AnnotatedAttention(
        MemoryStore(KINDS, attn, axis), parses, links=links, image_ids=images, **settings
    )


def naive_share(attn_QK, axis_q, axis_k, rows, sources, bos, causal):
    """Eq. 3 for one head: (numerator, denominator) over words `rows` and key positions `sources`, by
    loops."""
    num = den = 0.0
    for q in range(len(axis_q.roles)):
        if axis_q.roles[q] != "text" or axis_q.word[q] not in rows:
            continue
        for k in range(len(axis_k.roles)):
            role = axis_k.roles[k]
            if role == "pad" or (causal and k > q) or (role == "bos" and bos == "drop"):
                continue
            den += float(attn_QK[q, k])
            if k in sources:
                num += float(attn_QK[q, k])
    return num, den


def naive_entropy(attn_QK, axis_q, axis_k, bos, causal):
    """Mean over words' rows of entropy / log(number visible), by loops; (sum, rows)."""
    total, rows = 0.0, 0
    for q in range(len(axis_q.roles)):
        if axis_q.roles[q] != "text":
            continue
        row = []
        for k in range(len(axis_k.roles)):
            role = axis_k.roles[k]
            if role == "pad" or (causal and k > q) or (role == "bos" and bos == "drop"):
                continue
            row.append(float(attn_QK[q, k]))
        if len(row) < 2:
            continue
        mass = sum(row)
        total += -sum(a / mass * math.log(a / mass) for a in row if a > 0) / math.log(len(row))
        rows += 1
    return total, rows


def one(attn, links=(), words=WORDS, the_parse=None, **settings):
    """A study of one example; attn {kind: (L,H,Q,K)}."""
    kinds = {k: KINDS[k] for k in attn}
    regions = attn["cross"].shape[-1] if "cross" in attn else 1
    store = MemoryStore(kinds, {"e": attn}, {"e": axes(words, regions)})
    return AnnotatedAttention(
        store, {"e": the_parse or parse()}, links={"e": list(links)}, resamples=20, **settings
    )


def value(table, layer=-1, head=-1, **where):
    rows = measured(table, layer=layer, head=head, **where)
    assert len(rows) == 1, rows
    return float(rows["value"].iloc[0])
