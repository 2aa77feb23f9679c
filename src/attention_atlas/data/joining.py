"""Joining the separate sentences of a description into one paragraph."""

from __future__ import annotations

from collections.abc import Iterable

_FINAL = ".!?"
_CLOSING = "\"')]"


def join_sentences(sentences: Iterable[str], final_punctuation: bool = True) -> str:
    """One paragraph from sentences written one by one (Tell-Me-More's d1 to d5).

    More than a third of the real sentences end without punctuation; joined as they are, a parser takes
    several for one and finds relations across them. With `final_punctuation` a sentence that ends in no
    '.', '!' or '?' gets a full stop (a trailing ',', ';' or ':' is dropped first). White space is
    normalised; empty sentences are left out.
    """
    joined = []
    for sentence in sentences:
        text = " ".join(sentence.split())
        if not text:
            continue
        if final_punctuation and text.rstrip(_CLOSING)[-1:] not in tuple(_FINAL):
            text = text.rstrip(",;: ") + "."
        joined.append(text)
    return " ".join(joined)
