"""Noun phrases on all nesting levels.

spaCy's noun chunks are flat: "a window with white lace curtains" gives "a window" and
"white lace curtains". The paper ("Attention as Grounding", section 4) also counts the phrase around
both, so every chunk is extended by what its head governs in the dependency tree.

On real captions the parser makes mistakes: it attaches an "and" to the preceding phrase, or starts a phrase
with the comma before it. So each phrase is trimmed to its own words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attention_atlas.errors import AtlasError
from attention_atlas.language.parsed import NounPhrase

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span, Token

# Appendix B lists each of these bare and with an article ("a right", "the right", "each side"); a phrase
# that contains any of them is excluded, so the bare words are enough. Exact words: "corners" is kept.
_STOP_WORDS = "right left top bottom back front far close side background foreground middle corner"
STOP_WORDS = frozenset(_STOP_WORDS.split())
NESTING = ("all", "flat", "full")
_CONJUNCTIONS = frozenset(["and", "or", "nor", "but", "and/or", "&"])
_POST_MODIFIERS = ("prep", "acl", "relcl")  # dependencies that extend a chunk to the right


def noun_phrases(doc: Doc, nesting: str = "all") -> list[NounPhrase]:
    """Noun phrases of a parsed text, sorted by start, longest first.

    `nesting`: 'flat' = spaCy's noun chunks; 'full' = one phrase per chunk, with its prepositional and
    clausal post-modifiers; 'all' = both, and coordinations ("a lamp and a clock") as further phrases.

    A phrase neither begins nor ends with punctuation or a conjunction such as "and" (except for its head, as
    in "50 %"), and contains at least one letter or digit.
    """
    if nesting not in NESTING:
        raise AtlasError(f"nesting: '{nesting}' is unknown; choose one of {', '.join(NESTING)}")
    roots: dict[tuple[int, int], int] = {}
    for chunk in doc.noun_chunks:
        ends = []
        if nesting in ("all", "flat"):
            ends.append(chunk.end)
        if nesting in ("all", "full"):
            ends.append(max(chunk.end, _full_end(chunk.root)))
        if nesting == "all" and (joined := _coordination_end(chunk)) is not None:
            ends.append(joined)
        for end in ends:
            start, end = trimmed(doc, chunk.start, end, chunk.root.i)
            if has_words(doc[start:end]):
                roots.setdefault((start, end), chunk.root.i)
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
    """End of the phrase headed by `root`, with its post-modifiers but without coordinated phrases."""
    end = root.i + 1
    for child in root.rights:
        if child.dep_ in _POST_MODIFIERS:
            end = child.right_edge.i + 1
        elif child.dep_ in ("cc", "conj"):
            break
    return end


def _coordination_end(chunk: Span) -> int | None:
    """End of "a and b (and c)" if `chunk` is its first member and the members are nouns."""
    root = chunk.root
    members = [t for t in root.conjuncts if t.pos_ in ("NOUN", "PROPN", "PRON")]
    if not members or members[0].i < root.i:
        return None
    return max(_full_end(t) for t in members)


def trimmed(doc: Doc, start: int, end: int, root: int) -> tuple[int, int]:
    """The span without punctuation and conjunctions at either end; the head `root` stays inside."""
    while start < root and _is_edge(doc[start]):
        start += 1
    while end - 1 > root and _is_edge(doc[end - 1]):
        end -= 1
    return start, end


def _is_edge(token: Token) -> bool:
    # Check the tag too: ".A" at the start of a sentence is one token, which is_punct does not recognise.
    return token.is_punct or token.pos_ == "PUNCT" or token.lower_ in _CONJUNCTIONS


def has_words(span: Span) -> bool:
    """Whether a span contains a letter or digit (the parser tags the hyphen of "counter - top" as a noun)."""
    return any(character.isalnum() for character in span.text)
