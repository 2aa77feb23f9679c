"""Character spans to token spans, and the head word of a span."""

from __future__ import annotations

from attention_atlas.language.parsed import Parse


def tokens_of(parse: Parse, start: int, end: int) -> tuple[int, int] | None:
    """The token span [first, last) that the characters [start, end) touch; None if they touch none."""
    touched = [i for i, t in enumerate(parse.tokens) if t.start < end and t.end > start]
    return (touched[0], touched[-1] + 1) if touched else None


def head_of(parse: Parse, start: int, end: int) -> int:
    """The token of [start, end) whose head is outside: the head word of the span.

    If the span is not a constituent of the parse there are several: the first noun among them is used, or
    else the first.
    """
    tokens = parse.tokens
    tops = [i for i in range(start, end) if not start <= tokens[i].head < end or tokens[i].head == i]
    nominal = [i for i in tops if tokens[i].pos in ("NOUN", "PROPN", "PRON", "NUM")]
    return (nominal or tops or [start])[0]
