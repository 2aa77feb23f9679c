"""A caption with known words, tags and dependencies, and studies over it, for the tests of study 2."""

from __future__ import annotations

import numpy as np
from metrics_naive import MemoryStore, attention, axes

from attention_atlas.language.parsed import Parse, Token
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.table import measured

KIND = {"decoder_self": ("target", "source")}
RELATIONS = {
    "det": "to dependent",
    "compound": "to dependent",
    "nummod": "to dependent",
    "pobj": "to head",
    "prep": "to head",
}
# word, POS, dependency, head
SENTENCE = [
    ("a", "DET", "det", 1),
    ("man", "NOUN", "nsubj", 2),
    ("stands", "VERB", "ROOT", 2),
    ("on", "ADP", "prep", 2),
    ("two", "NUM", "nummod", 6),
    ("dining", "NOUN", "compound", 6),
    ("tables", "NOUN", "pobj", 3),
    ("of", "ADP", "prep", 6),
]
WORDS = [w for w, *_ in SENTENCE]


def sentence(id_="e", rows=SENTENCE):
    tokens, at = [], 0
    for word, pos, dep, head in rows:
        tokens.append(Token(word, at, at + len(word), pos, pos, dep, head, 0))
        at += len(word) + 1
    return Parse(id_, tokens)


def study_of(attn, parses=None, **settings):
    """attn {id: (L,H,Q,K)} over SENTENCE (or the given parses)."""
    parses = parses or {i: sentence(i) for i in attn}
    axis = {i: axes([t.text for t in parses[i].tokens], 1) for i in attn}
    store = MemoryStore(KIND, {i: {"decoder_self": a.astype(np.float32)} for i, a in attn.items()}, axis)
    return AnnotatedAttention(store, parses, resamples=200, name="t", model="m", **settings)


def random_attention(seed=0, layers=2, heads=3, words=8):
    return attention(np.random.default_rng(seed), layers, heads, words, 1, kinds=KIND)["decoder_self"]


def value(table, layer=-1, head=-1, **where):
    rows = measured(table, layer=layer, head=head, **where)
    assert len(rows) == 1, rows
    return float(rows["value"].iloc[0])
