"""Texts built together with their noun phrases and relations.

A sentence is a tree: strings, noun phrases (`Node` with a `kind`) that may contain other noun phrases, and
marks (`Node` without a `kind`) around words needed by a relation. `render` joins the tree and reads the
character spans from it, so that no span is ever searched for in finished text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from attention_atlas.data.corpus import Phrase, Relation, Span


@dataclass(eq=False)
class Node:
    """Words with a position in the text. `kind` is a phrase kind of the corpus, or "" for other words."""

    items: list[str | Node]
    objects: tuple[int, ...] = ()
    kind: str = ""
    plural: bool = False  # takes "are"
    core: Node | None = None  # the flat phrase for the same objects inside this longer one

    @property
    def flat(self) -> Node:
        """The phrase without its post-modifiers, used as target or landmark of a relation."""
        return self if self.core is None else self.core.flat


@dataclass(eq=False)
class Claim:
    """A relation in a sentence. Its words are `first` to `last`: in "in the corner of the room" they are "in
    the corner of", which crosses the noun phrase "the corner of the room"."""

    target: Node
    first: Node
    last: Node
    landmark: Node
    type: str


@dataclass(eq=False)
class Sentence:
    """One sentence without its final stop; capitalised and closed by `render`."""

    items: list[str | Node]
    claims: list[Claim] = field(default_factory=list)
    clause: bool = True  # it has a verb, so that another sentence can be joined to it
    focused: bool = True  # it is about one thing or one group, so that "it" or "they" can follow


def phrase(
    *items: str | Node, objects: Iterable[int] = (), kind: str = "object", plural: bool = False
) -> Node:
    return Node(list(items), tuple(objects), kind, plural)


def render(sentences: Sequence[Sentence]) -> tuple[str, list[Phrase], list[Relation]]:
    """The paragraph, its phrases (by start, the longest first) and its relations (by the relation's start).

    Of phrases with the same span and objects, only one is kept.
    """
    pieces: list[str] = []
    spans: dict[int, Span] = {}
    phrases: dict[tuple[int, int], Phrase] = {}
    position = 0

    def write(item: str | Node) -> None:
        nonlocal position
        if isinstance(item, str):
            pieces.append(item)
            position += len(item)
            return
        start = position
        for part in item.items:
            write(part)
        spans[id(item)] = (start, position)
        if item.kind:
            phrases.setdefault(
                (start, position), Phrase(start, position, sorted(set(item.objects)), item.kind)
            )

    relations = []
    for number, sentence in enumerate(sentences):
        if number:
            write(" ")
        first = len(pieces)
        for item in sentence.items:
            write(item)
        pieces[first] = pieces[first][:1].upper() + pieces[first][1:]
        write(".")
        for claim in sentence.claims:
            target, landmark = claim.target.flat, claim.landmark.flat
            relations.append(
                Relation(
                    spans[id(target)],
                    (spans[id(claim.first)][0], spans[id(claim.last)][1]),
                    spans[id(landmark)],
                    claim.type,
                    sorted(set(target.objects)),
                    sorted(set(landmark.objects)),
                )
            )
    ordered = sorted(phrases.values(), key=lambda p: (p.start, -p.end))
    return "".join(pieces), ordered, sorted(relations, key=lambda r: (r.relation, r.target, r.landmark))
