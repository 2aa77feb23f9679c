"""Words of a token sequence, from any tokenizer: by the text that its tokens decode to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attention_atlas.capture import word_of_tokens

# One Chinese, Japanese or Thai character, a word with inner apostrophes or hyphens, or a single other mark.
WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]|\w+(?:['’‑-]\w+)*|[^\w\s]")
UNFINISHED = "\ufffd"  # a character whose bytes are in the next token too


@dataclass
class Word:
    """One word of the sequence. positions: of its tokens. rows: of the queries whose attention is its own.
    part: prompt, answer, or image (a vision model). space: whether there is white space before it.
    image: the only one that it sees, -1 for all. box: index of the box that it stands for, -1 for none."""

    text: str
    part: str
    positions: list[int]
    rows: list[int]
    space: bool = True
    image: int = -1
    box: int = -1


def decoded(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """(text of `ids`, [start, end) of each token in it). Tokens that share a character share its place."""
    text, spans = "", []
    for n in range(1, len(ids) + 1):
        longer = tokenizer.decode(
            list(ids[:n]), skip_special_tokens=False, clean_up_tokenization_spaces=False
        ).rstrip(UNFINISHED)
        spans.append((min(len(text), len(longer)), len(longer)))
        text = longer
    for n in range(len(spans) - 2, -1, -1):
        if spans[n][0] == spans[n][1]:
            spans[n] = spans[n + 1]
    return text, spans


def words_of(tokenizer: Any, ids: Sequence[int], roles: Sequence[str], start: int, prompt: str) -> list[Word]:
    """Words of the sequence: those of `prompt` before position `start`, and all of the answer from there.

    Text of a template (USER:, a system prompt) is left out, where the prompt can be found in the sequence;
    otherwise every word before the answer counts as prompt. A word of the prompt attends from its own tokens;
    one of the answer from the positions that generate it, each one before its token.
    """
    found: list[Word] = []
    for part, first, last in (("prompt", 0, start), ("answer", start, len(ids))):
        words = []
        for run in text_runs(roles, first, last):
            text, spans = decoded(tokenizer, [ids[p] for p in run])
            matches = list(WORD.finditer(text))
            of_token = word_of_tokens(spans, [m.span() for m in matches])
            for w, match in enumerate(matches):
                positions = [p for p, word in zip(run, of_token) if word == w]
                if positions:  # a mark that shares its token with a longer word has none of its own
                    rows = [p - 1 for p in positions] if part == "answer" else list(positions)
                    space = match.start() == 0 or text[match.start() - 1].isspace()
                    words.append(Word(match.group(), part, positions, rows, space))
        found += _of_prompt(words, prompt) if part == "prompt" else words
    return found


def text_runs(roles: Sequence[str], first: int, last: int) -> list[list[int]]:
    """Runs of neighbouring text positions."""
    runs: list[list[int]] = []
    for p in range(first, last):
        if roles[p] == "text":
            if runs and runs[-1][-1] == p - 1:
                runs[-1].append(p)
            else:
                runs.append([p])
    return runs


def _of_prompt(words: list[Word], prompt: str) -> list[Word]:
    """The words that spell the prompt, last occurrence first; all if it is not there."""
    spelled, owner = "", []
    for w, word in enumerate(words):
        text = word.text.casefold()
        spelled += text
        owner += [w] * len(text)
    wanted = "".join(m.group() for m in WORD.finditer(prompt)).casefold()
    at = spelled.rfind(wanted) if wanted else -1
    if at < 0:
        return words
    return words[owner[at] : owner[at + len(wanted) - 1] + 1]
