"""The metrics of study 1 against a plain per-word Python loop: check that numbers agree, and measure the
speed-up.

    python -m benchmarks.metrics --examples 250 --looped 2

A synthetic test split (random attention, made-up parses and links of realistic size) goes through
attention.h5. All metrics run over it once; the loop runs over `--looped` of its examples, all heads, and both
must agree on every number. The ratio of their times is the speed-up of vectorisation; it excludes reading the
file, which both do alike.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.language.parsed import NounPhrase, Parse, SpatialRelation, Token
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.entropy import Entropy
from attention_atlas.measures.item import Link
from attention_atlas.measures.metric import measure_all
from attention_atlas.measures.pos import PosShare
from attention_atlas.measures.table import select
from attention_atlas.recording import AttentionStore, AttentionWriter, Axis
from attention_atlas.studies.grounding.grounding import Grounding
from attention_atlas.studies.grounding.relations import REGIONS, TEXT, Relations

KINDS = {"decoder_self": ("target", "source"), "cross": ("target", "region")}
SETS = {"DET+ADJ+NOUN": ["DET", "ADJ", "NOUN"], "VERB+ADP": ["VERB", "ADP"]}
# "the red cup stands on the table ." with phrases the red cup, the table.
SENTENCE = [
    ("the", "DET", 2),
    ("red", "ADJ", 2),
    ("cup", "NOUN", 3),
    ("stands", "VERB", 3),
    ("on", "ADP", 3),
    ("the", "DET", 6),
    ("table", "NOUN", 4),
    (".", "PUNCT", 3),
]


def make_study(
    folder: Path, examples: int, sentences: int, layers: int, heads: int, regions: int
) -> AnnotatedAttention:
    """A store of random attention with parses and links, as a study."""
    rng = np.random.default_rng(0)
    path = folder / "attention.h5"
    writer = AttentionWriter(path, model="random", config_hash="benchmark", kinds=KINDS)
    parses, links = {}, {}
    for e in range(examples):
        id_ = f"e{e:04d}"
        parse, link = text(id_, sentences, regions, rng)
        parses[id_], links[id_] = parse, link
        n = len(parse.tokens)
        own = rng.gamma(0.3, size=(layers, heads, n + 1, n + 1)) * np.tri(n + 1) + 1e-4 * np.tri(n + 1)
        cross = rng.gamma(0.3, size=(layers, heads, n + 1, regions)) + 1e-4
        names = [t.text for t in parse.tokens]
        axes = {
            "target": Axis([*names, "<eos>"], ["text"] * n + ["eos"], [*range(n), -1]),
            "source": Axis(["<bos>", *names], ["bos"] + ["text"] * n, [-1, *range(n)]),
            "region": Axis([f"r{i}" for i in range(regions)], ["image"] * regions, [-1] * regions),
        }
        attn = {"decoder_self": own, "cross": cross}
        writer.write(id_, {k: a / a.sum(-1, keepdims=True) for k, a in attn.items()}, axes)
    writer.finish()
    areas = np.linspace(100, 4000, regions)
    return AnnotatedAttention(
        AttentionStore(path), parses, links=links, areas=lambda _: areas, resamples=2000
    )


def text(id_: str, sentences: int, regions: int, rng: np.random.Generator) -> tuple[Parse, list[Link]]:
    tokens: list[Token] = []
    phrases, relations, links = [], [], []
    for s in range(sentences):
        at = len(tokens)
        for word, pos, head in SENTENCE:
            start = tokens[-1].end + 1 if tokens else 0
            tokens.append(Token(word, start, start + len(word), pos, pos, "dep", at + head, s))
        for start, end in ((at, at + 3), (at + 5, at + 7)):
            phrases.append(NounPhrase(start, end, end - 1, 0, False))
            chosen = rng.choice(regions, size=int(rng.integers(1, 4)), replace=False)
            links.append(Link(start, end, tuple(int(r) for r in sorted(chosen))))
        relations.append(SpatialRelation((at, at + 3), (at + 4, at + 5), (at + 5, at + 7), "region"))
    return Parse(id_, tokens, phrases, relations), links


def metrics() -> dict[str, Any]:
    return {
        "grounding": Grounding(),
        "entropy": Entropy(),
        "pos": PosShare(list(SETS.values())),
        "relations": Relations(),
    }


def looped(study: AnnotatedAttention, lists: bool = False) -> dict[tuple[str, str, int, int], float]:
    """(metric, condition, layer, head) -> value, word by word and head by head.

    `lists`: turn each matrix into Python lists first, the fastest that a plain loop can be; else index the
    array, as notebooks do.
    """
    sums: dict[tuple[str, str, int, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for id_ in study.ids:
        item = study.item(id_)
        attention = {kind: study.store.read(id_, kind) for kind in KINDS}
        layers, heads = attention["cross"].shape[:2]
        for layer in range(layers):
            for head in range(heads):
                own, cross = (attention[kind][layer, head] for kind in KINDS)
                if lists:
                    own, cross = own.tolist(), cross.tolist()
                for metric, condition, num, den in values(item, own, cross):
                    entry = sums[metric, condition, layer, head]
                    entry[0] += num
                    entry[1] += den
    return {key: num / den for key, (num, den) in sums.items()}


def values(item: Any, own: Any, cross: Any) -> Iterator[tuple[str, str, float, float]]:
    """Numerators and denominators of one head. Row i of both matrices generates word i; key 0 of `own` is
    BOS and left out, key k is word k - 1."""
    tokens = item.parse.tokens
    regions = len(cross[0])

    def share(matrix: Any, rows: range, keys: set[int], text: bool) -> tuple[float, float]:
        num = den = 0.0
        for q in rows:
            for k in range(1, q + 1) if text else range(regions):
                weight = float(matrix[q][k])
                den += weight
                if k in keys:
                    num += weight
        return num, den

    for link in item.links:
        num, den = share(cross, range(link.start, link.end), set(link.regions), False)
        yield "grounding", "phrases", num / den, 1.0
        yield "grounding", "ratio_of_sums", num, den
    for kind, matrix, text in (("decoder_self", own, True), ("cross", cross, False)):
        for q in range(len(tokens)):
            row = [float(matrix[q][k]) for k in (range(1, q + 1) if text else range(regions))]
            if len(row) > 1:
                mass = sum(row)
                entropy = -sum(a / mass * math.log(a / mass) for a in row if a > 0)
                yield "entropy", kind, entropy / math.log(len(row)), 1.0
    sets = SETS | {tag: [tag] for tag in sorted({token.pos for token in tokens})}
    for name, tags in sets.items():
        keys = {w + 1 for w, token in enumerate(tokens) if token.pos in tags}
        for q in range(1, len(tokens)):
            num, den = share(own, range(q, q + 1), keys, True)
            yield "pos_share", name, num / den, 1.0
    for relation in item.parse.relations:
        for condition, (generated, attended) in TEXT.items():
            keys = {w + 1 for part in attended for w in range(*getattr(relation, part))}
            num, den = share(own, range(*getattr(relation, generated)), keys, True)
            yield "relations", condition, num / den, 1.0
        for condition, (generated, part) in REGIONS.items():
            link = item.link_of(getattr(relation, part))
            num, den = share(cross, range(*getattr(relation, generated)), set(link.regions), False)
            yield "relations", condition, num / den, 1.0


def compare(table: Any, loop: dict[tuple[str, str, int, int], float]) -> float:
    """Largest absolute difference over every number the loop gives."""
    found = {}
    for row in select(table, measure=["grounding", "entropy", "pos_share", "relations"]).itertuples():
        condition = row.kind if row.measure == "entropy" else row.condition
        found[row.measure, condition, row.layer, row.head] = row.value
    return max(abs(found[key] - value) for key, value in loop.items())


def run(
    examples: int, looped_examples: int, sentences: int, layers: int, heads: int, regions: int
) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        study = make_study(Path(folder), examples, sentences, layers, heads, regions)
        began = time.perf_counter()
        measure_all(metrics(), study)
        fast = time.perf_counter() - began
        began = time.perf_counter()
        for id_ in study.ids:
            for kind in KINDS:
                study.store.read(id_, kind)
            for axis in ("target", "source", "region"):
                study.store.axis(id_, axis)
        reading = time.perf_counter() - began
        few = replace(study)
        few.__dict__["ids"] = study.ids[:looped_examples]
        began = time.perf_counter()
        loop = looped(few)
        slow = time.perf_counter() - began
        began = time.perf_counter()
        looped(few, lists=True)
        lists = time.perf_counter() - began
        difference = compare(measure_all(metrics(), few), loop)
    # Both ways read the file alike; vectorisation speeds up only what follows.
    each = (fast - reading) / examples
    return {
        "fast": fast,
        "reading": reading,
        "each": each,
        "loop": slow / looped_examples,
        "ratio": slow / looped_examples / each,
        "ratio_lists": lists / looped_examples / each,
        "numbers": len(loop),
        "difference": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, default=250)
    parser.add_argument("--looped", type=int, default=2)
    parser.add_argument("--sentences", type=int, default=9, help="of 8 words each; 9 give 72 words")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--regions", type=int, default=36)
    a = parser.parse_args()
    r = run(a.examples, a.looped, a.sentences, a.layers, a.heads, a.regions)
    heads = a.layers * a.heads
    print(f"{a.examples} paragraphs x {heads} heads x 2 kinds, all metrics with chance and intervals:")
    print(f"{r['fast']:.1f} s, including {r['reading']:.1f} s to read the file")
    print(f"without reading, per paragraph: {1000 * r['each']:.1f} ms; plain loop {1000 * r['loop']:.0f} ms")
    print(f"{r['ratio']:.0f} times faster than the loop, {r['ratio_lists']:.0f} times than over lists")
    print(f"{r['numbers']} numbers differ by at most {r['difference']:.1e}")


if __name__ == "__main__":
    main()
