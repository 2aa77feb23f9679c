"""A few captions with their full attention, for the figures and the page of single captions.

Written as one JSON file: {schema, rule, models: {run: title}, captions: [{id, chosen, image, words, models:
{run: LHTS}, objects}]}. `chosen` is "by rule" (see `rule`) or "at random". `objects` has the most attended
regions of each generated word (cross-attention averaged over layers and heads).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError, reading
from attention_atlas.files import read_json, write_text
from attention_atlas.language.parsed import Parse
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.examples import half_at_random

SCHEMA = "atlas.modality_examples/2"
RULE = "many nouns that are not shown yet"


def choose_half(parses: Mapping[str, Parse], count: int, seed: int) -> list[tuple[str, str]]:
    """`count` captions and how each was chosen: alternately by the rule of `choose` and at random, without
    duplicate texts unless there are fewer than `count` different ones."""
    ranked = choose(parses, count // 2)
    text_of = {i: p.text(0, len(p.tokens)) for i, p in parses.items()}
    first = {text_of[i]: i for i in sorted(text_of, reverse=True)}
    pool = set(first.values()) - {first[text_of[i]] for i in ranked} | set(ranked)
    if len(pool) < count:
        pool = set(text_of)
    return half_at_random(ranked, pool, count, seed)


def choose(parses: Mapping[str, Parse], count: int = 4, least_words: int = 8) -> list[str]:
    """Ids of captions to show: of at least `least_words` words if there are enough, each with the fewest
    nouns shown before, then with the most different nouns; no duplicate texts; ties by id."""
    nouns = {i: {t.text.lower() for t in p.tokens if t.pos == "NOUN"} for i, p in parses.items()}
    text = {i: p.text(0, len(p.tokens)) for i, p in parses.items()}
    chosen: list[str] = []
    while len(chosen) < count:
        shown = set().union(*(nouns[i] for i in chosen))
        left = [i for i in parses if text[i] not in {text[c] for c in chosen}]
        if not left:
            break

        def rank(i: str, shown: set[str] = shown) -> tuple[bool, int, int, str]:
            return (len(parses[i].tokens) < least_words, len(nouns[i] & shown), -len(nouns[i]), i)

        chosen.append(min(left, key=rank))
    return chosen


def collect(
    runs: Mapping[str, AnnotatedAttention],
    titles: Mapping[str, str],
    corpus: Corpus,
    features: Any,
    chosen: Sequence[tuple[str, str]],
    seen_by: str,
    top: int = 5,
) -> dict[str, Any]:
    """The content of the file. runs: those to show, over words; chosen: result of `choose_half`; seen_by:
    the run with cross-attention."""
    captions = []
    of = {e.id: e for e in corpus.examples}
    for id_, how in chosen:
        image = corpus.image_path(of[id_].image_id)
        entry: dict[str, Any] = {"id": id_, "chosen": how, "image": image.as_posix(), "models": {}}
        for name, attention in runs.items():
            attn_LHTS = np.asarray(attention.store.read(id_, "decoder_self"))
            target, source = (attention.store.axis(id_, a) for a in attention.store.kinds["decoder_self"])
            entry["words"] = [t.text for t in attention.parses[id_].tokens][: len(target.tokens) - 1]
            if len(source.tokens) != len(entry["words"]) + 1:
                raise AtlasError(
                    f"attention of '{name}': example '{id_}': does not match its words; dump it again"
                )
            entry["models"][name] = np.round(attn_LHTS[:, :, : len(entry["words"])], 4).tolist()
        cross = np.asarray(runs[seen_by].store.read(id_, "cross"))
        entry["objects"] = objects(cross, features.read(of[id_].image_id), features, top, len(entry["words"]))
        captions.append(entry)
    models = {name: titles[name] for name in runs}
    return {"schema": SCHEMA, "rule": RULE, "models": models, "captions": captions}


def objects(
    attn_LHQK: np.ndarray, regions: Any, features: Any, top: int, words: int
) -> list[list[dict[str, Any]]]:
    """For each of the first `words` rows the `top` regions: label, attribute, box in pixels, share."""
    mean_QK = attn_LHQK.mean(axis=(0, 1))[:words, : regions.count]
    found = []
    for row_K in mean_QK:
        order = np.argsort(-row_K, kind="stable")[:top]
        found.append(
            [
                {
                    "label": features.labels[int(regions.label[k])].split(",")[0],
                    "box": [round(float(v), 1) for v in regions.boxes[k]],
                    "share": round(float(row_K[k]), 4),
                }
                for k in order
            ]
        )
    return found


def write_examples(path: str | Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n")


def read_examples(path: str | Path) -> dict[str, Any]:
    """Raises AtlasError for a missing file or another schema. Attention is returned as arrays."""
    path = Path(path)
    again = "run the study's metrics again (dvc repro)"
    content: dict[str, Any] = read_json(path, again, SCHEMA)
    with reading(path, again):
        for caption in content["captions"]:
            caption["models"] = {name: np.array(values) for name, values in caption["models"].items()}
    return content
