"""What the parser finds in rendered rooms and in the real Tell-Me-More text, side by side.

    python benchmarks/language_on_text.py [--rooms DIR] [--tell-me-more DIR] [--split test]

Prints counts beside the paper's ("Attention as Grounding": 1,015 region, 239 direction and 6 distance
relations in 441 paragraphs; 196 noun phrases in ten) and, for rooms, precision and recall against gold.
A corpus whose folder is missing is skipped; `make paper-check` shows where to get Tell-Me-More.
compare_text.py compares the style of both texts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from attention_atlas.data.corpus import Corpus, Example, read_corpus
from attention_atlas.data.tell_me_more import read_tell_me_more
from attention_atlas.errors import AtlasError
from attention_atlas.language import agreement
from attention_atlas.language.parse import MODEL, parse_texts
from attention_atlas.language.parsed import Parse

PAPER: dict[str, float] = {
    "paragraphs": 441,
    "noun phrases / paragraph": 196 / 10,
    "relations / paragraph": 1260 / 441,
    "  region": 1015 / 1260,
    "  direction": 239 / 1260,
    "  distance": 6 / 1260,
}


def counts(parses: Sequence[Parse]) -> dict[str, float]:
    """The measured numbers, under the names of PAPER where the paper has them."""
    n = len(parses)
    tokens = [t for p in parses for t in p.tokens]
    phrases = [q for p in parses for q in p.phrases]
    relations = [r for p in parses for r in p.relations]
    kinds = Counter(r.type for r in relations)
    row: dict[str, float] = {
        "paragraphs": n,
        "tokens / paragraph": len(tokens) / n,
        "noun phrases / paragraph": len(phrases) / n,
        "  not stopped": sum(not q.stop for q in phrases) / n,
        "  level 0": sum(q.level == 0 for q in phrases) / n,
        "relations / paragraph": len(relations) / n,
    }
    for kind in ("region", "direction", "distance"):
        row[f"  {kind}"] = kinds[kind] / max(1, len(relations))
    row["  order target-relation-landmark"] = sum(
        r.order == "target-relation-landmark" for r in relations
    ) / max(1, len(relations))
    return row


def print_agreement(parses: Sequence[Parse], examples: Sequence[Example]) -> None:
    total = [agreement.Agreement() for _ in range(4)]
    same_type = 0
    for parse, example in zip(parses, examples, strict=True):
        heads, types = agreement.relations_head(parse, example.relations)
        same_type += types
        parts = (
            agreement.phrases_exact(parse, example.phrases),
            agreement.phrases_head(parse, example.phrases),
            agreement.relations_exact(parse, example.relations),
            heads,
        )
        total = [a + b for a, b in zip(total, parts, strict=True)]
    print(f"\nagainst gold {'precision':>22} {'recall':>9} {'F1':>9} {'found':>9} {'gold':>9}")
    names = ("phrases, exact span", "phrases, head word", "relations, exact spans", "relations, head words")
    for name, a in zip(names, total, strict=True):
        print(f"{name:<26} {a.precision:8.3f} {a.recall:9.3f} {a.f1:9.3f} {a.found:9d} {a.gold:9d}")
    if total[3].found_right:
        print(f"type right where the relation agrees: {same_type / total[3].found_right:.3f}")


def corpora(options: argparse.Namespace) -> dict[str, Corpus]:
    found = {}
    if (options.rooms / "scenes.jsonl").exists():
        found["rooms"] = read_corpus(options.rooms, options.layer, "rooms")
    sequences = options.tell_me_more / "sequences.csv"
    if sequences.exists():
        splits = options.tell_me_more / "splits.json"
        found["Tell-Me-More"] = read_tell_me_more(
            sequences, splits, options.tell_me_more, require_images=False
        )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rooms", type=Path, default=Path("data/synthetic/rooms"))
    parser.add_argument("--layer", default="descriptions")
    parser.add_argument("--tell-me-more", type=Path, default=Path("data/raw/tell_me_more"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", default=MODEL, help="spaCy pipeline by name or path")
    options = parser.parse_args()
    columns: dict[str, dict[str, float]] = {}
    parsed: dict[str, tuple[list[Parse], list[Example]]] = {}
    try:
        for name, corpus in corpora(options).items():
            examples = corpus.split(options.split)
            start = time.perf_counter()
            parses = parse_texts([e.id for e in examples], [e.text for e in examples], options.model)
            print(f"{name}: parsed {len(parses)} paragraphs in {time.perf_counter() - start:.1f} s")
            parsed[name] = (parses, examples)
    except AtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not parsed:
        print("no corpus found; give --rooms or --tell-me-more", file=sys.stderr)
        return 1
    for name, (parses, _) in parsed.items():
        columns[name] = counts(parses)
    columns["paper"] = PAPER
    print(f"\n{'':<34}" + "".join(f"{name:>14}" for name in columns))
    for row in next(iter(columns.values())):
        cells = [column.get(row) for column in columns.values()]
        print(f"{row:<34}" + "".join(f"{'' if c is None else format(c, '.4g'):>14}" for c in cells))
    for parses, examples in parsed.values():
        if any(e.phrases for e in examples):
            print_agreement(parses, examples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
