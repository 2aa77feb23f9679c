"""Spatial expressions of English and their types.

Types follow Kolomiyets et al. (2013): *region* = contact, containment, cover (topology); *direction* =
above, below, left, right, front, behind; *distance* = near, far, beside. The paper's labeller was
trained on annotations that call nearly everything a region (1,015/239/6); the rules call "next to" and
"near" distance, because that is what they mean. Compare totals with the paper, and types with care.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.tokens import Doc

# Expressions separated by ';'; (a|b) is either word. The longest match wins.
_REGION = """
on; upon; onto; in; inside; inside of; within; into; at; against; along; around; throughout; through; amid;
over by; up against; all over; all around; surrounded by; flanked by; bordered by; attached to; from;
(on|in) each side of; (on|in) either side of; (on|in) both sides of; on the side of; on the sides of;
in the (middle|center|centre|corner|corners) of; at the (end|edge|foot|head|base|corner|center) of;
(on|in|at) the (surface|inside|outside|edge|end|wall) of; on top of; on the top of; atop; outside; outside of
"""
_DIRECTION = """
above; below; under; underneath; beneath; over; behind; across; across from; past; beyond; toward; towards;
in front of; in the front of; in back of; in the back of; ahead of; facing; between; in between; among;
amongst; opposite; opposite to; opposite from; left of; right of; on the left and right of;
at the (top|bottom|front|back|rear) of; on the (bottom|front|back|underside) of;
to the (left|right|side|front|back|rear) of; (on|to) the (far|immediate) (left|right) of;
(on|at) the (left|right|other|far|opposite) side of; on the (left|right) of;
(on|at|to) the (left|right) hand side of
"""
_DISTANCE = """
next to; near; near to; close to; close by; beside; besides; by; far from; away from; far away from; nearby;
adjacent to; alongside; along side; side by side with; in the vicinity of; at a distance from
"""

# "in red", "in style", "on display": such landmarks are not places.
_NOT_PLACES = """
color colour colors colours style shape pattern design tone addition general line row rows size total
display use theme way case fact order mind nature time day night shade shades pair pairs variety
appearance detail direction red blue green white black brown yellow grey gray beige pink purple orange
"""
NOT_PLACES = frozenset(_NOT_PLACES.split())

# "from" locates only hanging things: "lamps hanging from the ceiling".
_SUSPENDING = "hang hangs hanging hung hanged suspended dangling dangles suspends protruding"
SUSPENDING = frozenset(_SUSPENDING.split())


def _expand(pattern: str) -> list[tuple[str, ...]]:
    choices = [re.sub(r"[()]", "", word).split("|") for word in pattern.split()]
    result: list[tuple[str, ...]] = [()]
    for options in choices:
        result = [(*head, option) for head in result for option in options]
    return result


@lru_cache(maxsize=1)
def terms() -> dict[tuple[str, ...], str]:
    """{lower-case words of an expression: its type}."""
    table: dict[tuple[str, ...], str] = {}
    for kind, text in (("region", _REGION), ("direction", _DIRECTION), ("distance", _DISTANCE)):
        for pattern in text.split(";"):
            if pattern.strip():
                for expression in _expand(pattern):
                    table[expression] = kind
    return table


@lru_cache(maxsize=1)
def _longest() -> int:
    return max(map(len, terms()))


def term_at(doc: Doc, i: int) -> tuple[int, str] | None:
    """(number of words, type) of the longest expression that begins at token i, or None.

    One-word expressions must be tagged as prepositions (or adverbs that govern one), which excludes "the
    left" or "a close"; particles ("turned on") never count.
    """
    lower = [t.lower_ for t in doc[i : i + _longest()]]
    for length in range(len(lower), 0, -1):
        kind = terms().get(tuple(lower[:length]))
        if kind is None:
            continue
        if length == 1 and (doc[i].dep_ == "prt" or doc[i].pos_ not in ("ADP", "ADV", "SCONJ", "VERB")):
            continue
        return length, kind
    return None
