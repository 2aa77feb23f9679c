"""Agreement of parsed noun phrases and relations with gold: precision and recall.

*Exact* compares character spans; *head* compares head words, so that "the lamp" and "the lamp on the
table" agree. Ignores gold that the parser cannot know (what a phrase refers to).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attention_atlas.data.corpus import Phrase, Relation
from attention_atlas.language.heads import head_of, tokens_of
from attention_atlas.language.parsed import Parse, SpatialRelation


@dataclass
class Agreement:
    """Counts over any number of texts; combine them with `+`."""

    found: int = 0  # by the parser
    found_right: int = 0  # of these, in the gold
    gold: int = 0
    gold_found: int = 0  # of these, found by the parser

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.found + other.found,
            self.found_right + other.found_right,
            self.gold + other.gold,
            self.gold_found + other.gold_found,
        )

    @property
    def precision(self) -> float:
        return self.found_right / self.found if self.found else float("nan")

    @property
    def recall(self) -> float:
        return self.gold_found / self.gold if self.gold else float("nan")

    @property
    def f1(self) -> float:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def phrases_exact(parse: Parse, gold: Sequence[Phrase]) -> Agreement:
    """Noun phrases with the same first and last character."""
    found = {parse.chars(p.start, p.end) for p in parse.phrases}
    wanted = {(p.start, p.end) for p in gold}
    both = len(found & wanted)
    return Agreement(len(found), both, len(wanted), both)


def phrases_head(parse: Parse, gold: Sequence[Phrase]) -> Agreement:
    """Noun phrases with the same head word; several phrases with one head each count."""
    heads = {p.root for p in parse.phrases}
    gold_heads = [_head(parse, p.start, p.end) for p in gold]
    return Agreement(
        len(parse.phrases),
        sum(p.root in gold_heads for p in parse.phrases),
        len(gold),
        sum(h in heads for h in gold_heads),
    )


def relations_exact(parse: Parse, gold: Sequence[Relation]) -> Agreement:
    """Triples with the same three spans."""
    found = {
        (parse.chars(*r.target), parse.chars(*r.relation), parse.chars(*r.landmark)) for r in parse.relations
    }
    wanted = {(tuple(r.target), tuple(r.relation), tuple(r.landmark)) for r in gold}
    both = len(found & wanted)
    return Agreement(len(found), both, len(wanted), both)


def relations_head(parse: Parse, gold: Sequence[Relation]) -> tuple[Agreement, int]:
    """Triples with the same head words of target and landmark and overlapping relation words.

    Also the number of these pairs with the same type. A gold triple agrees with at most one other.
    """
    left = list(parse.relations)
    agreed = same_type = 0
    for wanted in gold:
        for candidate in left:
            if _agree(parse, candidate, wanted):
                left.remove(candidate)
                agreed += 1
                same_type += candidate.type == wanted.type
                break
    return Agreement(len(parse.relations), agreed, len(gold), agreed), same_type


def _agree(parse: Parse, found: SpatialRelation, wanted: Relation) -> bool:
    start, end = parse.chars(*found.relation)
    return (
        start < wanted.relation[1]
        and wanted.relation[0] < end
        and head_of(parse, *found.target) == _head(parse, *wanted.target)
        and head_of(parse, *found.landmark) == _head(parse, *wanted.landmark)
    )


def _head(parse: Parse, start: int, end: int) -> int:
    """Head word of the characters [start, end); -1 if they touch no word."""
    tokens = tokens_of(parse, start, end)
    return -1 if tokens is None else head_of(parse, *tokens)
