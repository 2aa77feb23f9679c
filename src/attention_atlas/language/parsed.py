"""The analysis of a text: words, noun phrases on all nesting levels, spatial relations."""

from __future__ import annotations

from dataclasses import dataclass, field

TokenSpan = tuple[int, int]  # [start, end) in tokens


@dataclass
class Token:
    """One word: character offsets, universal POS, fine tag, dependency, head (token index), sentence."""

    text: str
    start: int
    end: int
    pos: str
    tag: str
    dep: str
    head: int
    sent: int


@dataclass
class NounPhrase:
    """A noun phrase [start, end) in tokens with its head word `root`.

    `level` counts the phrases that properly contain it (0 = outermost); `stop` is true if it is excluded from
    grounding, by Appendix B of "Attention as Grounding" or as a pronoun.
    """

    start: int
    end: int
    root: int
    level: int
    stop: bool


@dataclass
class SpatialRelation:
    """A target-relation-landmark triple by token spans; `type` is region, direction or distance."""

    target: TokenSpan
    relation: TokenSpan
    landmark: TokenSpan
    type: str

    @property
    def order(self) -> str:
        """The three parts in text order, e.g. 'target-relation-landmark'."""
        parts = [(self.target, "target"), (self.relation, "relation"), (self.landmark, "landmark")]
        return "-".join(name for _, name in sorted(parts))


@dataclass
class Parse:
    """The analysis of one text. `tokens[i]` is `words(text)[i]`."""

    id: str
    tokens: list[Token]
    phrases: list[NounPhrase] = field(default_factory=list)
    relations: list[SpatialRelation] = field(default_factory=list)

    def text(self, start: int, end: int) -> str:
        """The words [start, end) with one space where the source had white space."""
        pieces: list[str] = []
        for i in range(start, end):
            if i > start and self.tokens[i].start > self.tokens[i - 1].end:
                pieces.append(" ")
            pieces.append(self.tokens[i].text)
        return "".join(pieces)

    def chars(self, start: int, end: int) -> tuple[int, int]:
        """Character offsets of the token span [start, end)."""
        return self.tokens[start].start, self.tokens[end - 1].end
