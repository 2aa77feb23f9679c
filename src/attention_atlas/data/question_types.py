"""Question types: the 65 official ones (longest matching prefix), first word, and the study's groups."""

from __future__ import annotations

import functools

NONE = "none of the above"
# The names of the types in the VQA annotations (Antol et al. 2015, appendix); NONE is the 65th.
OFFICIAL = (
    *("are", "are the", "are there", "are there any", "are these", "are they", "can you", "could", "do"),
    *("do you", "does the", "does this", "has", "how", "how many", "how many people are"),
    *("how many people are in", "is", "is he", "is it", "is that a", "is the", "is the man", "is the person"),
    *("is the woman", "is there", "is there a", "is this", "is this a", "is this an", "is this person"),
    *("was", "what", "what animal is", "what are", "what are the", "what brand", "what color"),
    *(
        "what color are the",
        "what color is",
        "what color is the",
        "what does the",
        "what is",
        "what is in the",
    ),
    *("what is on the", "what is the", "what is the color of the", "what is the man", "what is the name"),
    *("what is the person", "what is the woman", "what is this", "what kind of", "what number is"),
    *("what room is", "what sport is", "what time", "what type of", "where are the", "where is the", "which"),
    *("who is", "why", "why is the", NONE),
)
# The study's groups as prefixes of the question, tried in this order.
GROUPS = {
    "how many": ("how many",),
    "what color": ("what color", "what is the color", "what are the color"),
    "what": ("what",),
    "where": ("where",),
    "why": ("why",),
    "which": ("which",),
    "who": ("who",),
    "is": ("is", "was", "has"),
    "are": ("are", "were"),
    "does": ("does", "do", "did", "can", "could"),
}
OTHER = "other"


def _words(question: str) -> tuple[str, ...]:
    return tuple("".join(c if c.isalnum() or c == "'" else " " for c in question.lower()).split())


@functools.lru_cache(maxsize=1)
def _beginnings() -> dict[tuple[str, ...], str]:
    return {tuple(name.split()): name for name in OFFICIAL if name != NONE}


def official_type(question: str) -> str:
    """The longest of the 65 types that is a prefix of the question.

    >>> official_type("What color is the sofa?"), official_type("Whose dog is it?")
    ('what color is the', 'none of the above')
    """
    words = _words(question)
    known = _beginnings()
    for length in range(min(len(words), max(map(len, known))), 0, -1):
        if words[:length] in known:
            return known[words[:length]]
    return NONE


def first_word(question: str) -> str:
    """The first word in lower case, "" for a question without words."""
    return next(iter(_words(question)), "")


def group_of(question: str) -> str:
    """The study's group: how many, what color, what, where, why, which, who, is, are, does or other.

    >>> group_of("How many chairs are there?"), group_of("What colour is it?"), group_of("Name the dog.")
    ('how many', 'what color', 'other')
    """
    words = _words(question.lower().replace("colour", "color"))
    for name, beginnings in GROUPS.items():
        for beginning in beginnings:
            start = tuple(beginning.split())
            if words[: len(start)] == start:
                return name
    return OTHER
