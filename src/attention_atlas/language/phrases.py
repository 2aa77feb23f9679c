"""Noun phrases on all nesting levels.

spaCy's noun chunks are flat: "a window with white lace curtains" gives "a window" and
"white lace curtains". The paper ("Attention as Grounding", section 4) also counts the phrase around
both, so every chunk is extended by what its head governs in the dependency tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attention_atlas.errors import AtlasError
from attention_atlas.language.parsed import NounPhrase

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span, Token

# Appendix B lists each of these bare and with an article ("a right", "the right", "each side"); a phrase
# that contains any of them is left out, so the bare words are enough. Exact words: "corners" is kept.
_STOP_WORDS = "right left top bottom back front far close side background foreground middle corner"
STOP_WORDS = frozenset(_STOP_WORDS.split())
NESTING = ("all", "flat", "full")
_POST_MODIFIERS = ("prep", "acl", "relcl")  # what makes a chunk longer to its right


def noun_phrases(doc: Doc, nesting: str = "all") -> list[NounPhrase]:
    """Noun phrases of a parsed text, sorted by start, longest first.

    `nesting`: 'flat' = spaCy's noun chunks; 'full' = one phrase per chunk, with its prepositional and
    clausal post-modifiers; 'all' = both, and coordinations ("a lamp and a clock") as one phrase more.
    """
    if nesting not in NESTING:
        raise AtlasError(f"nesting: '{nesting}' is unknown; choose one of {', '.join(NESTING)}")
    roots: dict[tuple[int, int], int] = {}
    for chunk in doc.noun_chunks:
        flat = (chunk.start, chunk.end)
        full = (chunk.start, max(chunk.end, _full_end(chunk.root)))
        if nesting in ("all", "flat"):
            roots.setdefault(flat, chunk.root.i)
        if nesting in ("all", "full"):
            roots.setdefault(full, chunk.root.i)
        if nesting == "all":
            end = _coordination_end(chunk)
            if end is not None:
                roots.setdefault((chunk.start, end), chunk.root.i)
    spans = sorted(roots, key=lambda s: (s[0], -s[1]))
    return [
        NounPhrase(
            start,
            end,
            roots[start, end],
            sum(a <= start and end <= b and (a, b) != (start, end) for a, b in spans),
            is_stopped(doc[start:end], doc[roots[start, end]]),
        )
        for start, end in spans
    ]


def is_stopped(phrase: Span, root: Token) -> bool:
    """True for a pronoun and for a phrase with a word of Appendix B."""
    return root.pos_ == "PRON" or any(t.lower_ in STOP_WORDS for t in phrase)


def _full_end(root: Token) -> int:
    """Where the phrase headed by `root` ends with its post-modifiers, a coordination left out."""
    end = root.i + 1
    for child in root.rights:
        if child.dep_ in _POST_MODIFIERS:
            end = _without_final_punctuation(root.doc, root.i, child.right_edge.i + 1)
        elif child.dep_ in ("cc", "conj"):
            break
    return end


def _coordination_end(chunk: Span) -> int | None:
    """Where "a and b (and c)" ends if `chunk` is its first member and the members are nouns."""
    root = chunk.root
    members = [t for t in root.conjuncts if t.pos_ in ("NOUN", "PROPN", "PRON")]
    if not members or members[0].i < root.i:
        return None
    return max(_full_end(t) for t in members)


def _without_final_punctuation(doc: Doc, start: int, end: int) -> int:
    while end - 1 > start and doc[end - 1].is_punct:
        end -= 1
    return end
