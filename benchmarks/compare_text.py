"""Compare the text of a rendered world with the real Tell-Me-More text, number by number.

    python benchmarks/compare_text.py --corpus data/synthetic/rooms --tell-me-more path/to/tell_me_more

`--tell-me-more` is the folder of the public repository's `data/` (`sequences.csv`, tab-separated, and
`splits.json`); without it only the corpus is described. Both texts go through the same parser, so its errors
affect both; the gold numbers of the corpus are in a separate column. The paper ("Attention as Grounding") has
196 noun phrases in 10 paragraphs and 1,260 relations in (we assume) 441 paragraphs.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from attention_atlas.data.corpus import Example, read_corpus
from attention_atlas.data.tell_me_more import read_tell_me_more
from attention_atlas.language.parse import parse_texts
from attention_atlas.language.parsed import Parse

TAGS = ("NOUN", "DET", "ADP", "PUNCT", "ADJ", "VERB", "PRON", "AUX", "CCONJ", "NUM", "ADV")
SAME_TOKENS = 10_000  # the type-token ratio falls with length, so both texts are cut to the same length
TOLERANCE = 0.25
PAPER = {"noun phrases": 19.6, "relations": 1260 / 441}
Table = dict[str, float]


def measure(parses: Sequence[Parse]) -> Table:
    """Means per paragraph, shares, and the type-token ratio over the first 10,000 tokens."""
    n = len(parses)
    tokens = [t for p in parses for t in p.tokens]
    tags = Counter(t.pos for t in tokens)
    words = [t.text.lower() for t in tokens][:SAME_TOKENS]
    table: Table = {
        "tokens": len(tokens) / n,
        "sentences": sum(p.tokens[-1].sent + 1 for p in parses) / n,
        "noun phrases": sum(len(p.phrases) for p in parses) / n,
        "  without the stop list": sum(not q.stop for p in parses for q in p.phrases) / n,
        "  nested in another": sum(q.level > 0 for p in parses for q in p.phrases) / n,
        "relations": sum(len(p.relations) for p in parses) / n,
    }
    for kind in ("region", "direction", "distance"):
        table[f"  {kind}"] = sum(r.type == kind for p in parses for r in p.relations) / n
    for tag in TAGS:
        table[f"share of {tag}"] = tags[tag] / len(tokens)
    table["type-token ratio"] = len(set(words)) / len(words)
    return table


def gold(examples: Sequence[Example]) -> Table:
    """The same per paragraph from the annotation of the corpus."""
    n = len(examples)
    table: Table = {
        "noun phrases": sum(len(e.phrases) for e in examples) / n,
        "relations": sum(len(e.relations) for e in examples) / n,
    }
    for kind in ("region", "direction", "distance"):
        table[f"  {kind}"] = sum(r.type == kind for e in examples for r in e.relations) / n
    return table


def agreement(examples: Sequence[Example], parses: Sequence[Parse]) -> Table:
    """Precision and recall of parsed noun phrases and relations (exact spans) against gold."""
    found_np = gold_np = both_np = found_rel = gold_rel = both_rel = 0
    for e, p in zip(examples, parses, strict=True):
        spans = {p.chars(q.start, q.end) for q in p.phrases}
        wanted = {(q.start, q.end) for q in e.phrases}
        triples = {tuple(p.chars(*s) for s in (r.target, r.relation, r.landmark)) for r in p.relations}
        asked = {(tuple(r.target), tuple(r.relation), tuple(r.landmark)) for r in e.relations}
        found_np, gold_np, both_np = (
            found_np + len(spans),
            gold_np + len(wanted),
            both_np + len(spans & wanted),
        )
        found_rel, gold_rel = found_rel + len(triples), gold_rel + len(asked)
        both_rel += len(triples & asked)
    return {
        "noun phrases, precision": both_np / max(found_np, 1),
        "noun phrases, recall": both_np / max(gold_np, 1),
        "relations, precision": both_rel / max(found_rel, 1),
        "relations, recall": both_rel / max(gold_rel, 1),
    }


def _parse(examples: Sequence[Example]) -> list[Parse]:
    return parse_texts([e.id for e in examples], [e.text for e in examples])


def markdown(world: Table, annotated: Table, real: Table | None) -> str:
    """The table, one row per number; 'off' marks what differs by more than a quarter."""
    rows = [
        "| per paragraph | paper | real text | corpus | corpus, gold | difference |",
        "|---|---|---|---|---|---|",
    ]
    for name, value in world.items():
        there = real[name] if real else None
        cells = [name.replace("  ", "· ")]
        cells.append(f"{PAPER[name]:.2f}" if name in PAPER else "")
        cells.append(f"{there:.3f}" if there is not None else "")
        cells.append(f"{value:.3f}")
        cells.append(f"{annotated[name]:.3f}" if name in annotated else "")
        if there:
            change = value / there - 1
            cells.append(f"{change:+.0%}" + (" off" if abs(change) > TOLERANCE else ""))
        else:
            cells.append("")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of a corpus with a text layer")
    parser.add_argument("--layer", default="descriptions")
    parser.add_argument("--tell-me-more", type=Path, help="folder with sequences.csv and splits.json")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=441, help="paragraphs of each text at most")
    args = parser.parse_args()
    examples = read_corpus(args.corpus, args.layer).split(args.split)[: args.limit]
    parses = _parse(examples)
    real = None
    if args.tell_me_more:
        folder = args.tell_me_more
        corpus = read_tell_me_more(
            folder / "sequences.csv", folder / "splits.json", folder, require_images=False
        )
        real = measure(_parse(corpus.split(args.split)[: args.limit]))
    print(markdown(measure(parses), gold(examples), real))
    print()
    for name, value in agreement(examples, parses).items():
        print(f"{name}: {value:.3f}")


if __name__ == "__main__":
    main()
