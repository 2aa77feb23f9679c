"""Aligning gold phrases (character spans) with parsed phrases (token spans).

A parsed phrase gets the gold phrase with the same span, or else the gold phrases with the same head word ("a
lamp" and "a lamp on the table" both refer to the lamp). A coordination without its own gold phrase ("a lamp
and a clock") gets the gold of its members. Otherwise a parsed phrase has no gold.
"""

from __future__ import annotations

from collections.abc import Sequence

from attention_atlas.language.heads import head_of, tokens_of
from attention_atlas.language.parsed import NounPhrase, Parse


def match_phrases(
    parse: Parse, phrases: Sequence[NounPhrase], spans: Sequence[tuple[int, int]]
) -> list[tuple[list[int], str]]:
    """For each phrase the indices of its gold spans and how they match: 'span', 'head', 'members' or ''."""
    exact: dict[tuple[int, int], list[int]] = {}
    by_head: dict[int, list[int]] = {}
    for i, (start, end) in enumerate(spans):
        exact.setdefault((start, end), []).append(i)
        tokens = tokens_of(parse, start, end)
        if tokens is not None:
            by_head.setdefault(head_of(parse, *tokens), []).append(i)
    result: list[tuple[list[int], str]] = []
    for phrase in phrases:
        same = exact.get(parse.chars(phrase.start, phrase.end))
        if same:
            result.append((same, "span"))
            continue
        members = [phrase.root, *_conjuncts(parse, phrase)]
        found = [i for m in members for i in _shortest(by_head.get(m, []), spans)]
        how = "" if not found else "members" if len(members) > 1 else "head"
        result.append((sorted(set(found)), how))
    return result


def _shortest(candidates: list[int], spans: Sequence[tuple[int, int]]) -> list[int]:
    """The innermost of several gold phrases with one head, because longer ones may add other objects."""
    if not candidates:
        return []
    return [min(candidates, key=lambda i: (spans[i][1] - spans[i][0], i))]


def _conjuncts(parse: Parse, phrase: NounPhrase) -> list[int]:
    """Tokens of the phrase that are coordinated with its root, directly or in a chain."""
    members = {phrase.root}
    for i in range(phrase.start, phrase.end):
        if parse.tokens[i].dep == "conj" and parse.tokens[i].head in members:
            members.add(i)
    return sorted(members - {phrase.root})
