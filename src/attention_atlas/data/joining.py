"""Joining the separate sentences of a description into one paragraph."""

from __future__ import annotations

from collections.abc import Iterable

_FINAL = ".!?"
_CLOSING = "\"')]"


def join_sentences(sentences: Iterable[str], final_punctuation: bool = True) -> str:
    """One paragraph from sentences that were written separately (Tell-Me-More's d1 to d5).

    More than a third of the real sentences end without punctuation; if simply joined, a parser takes several
    for one and finds relations across them. With `final_punctuation`, a sentence that does not end in '.',
    '!' or '?' gets a full stop (after dropping a trailing ',', ';' or ':'). Normalises white space and drops
    empty sentences.
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
