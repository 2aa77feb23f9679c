"""Tokens for text metrics: Penn Treebank tokens by Stanford's program, or our own rules without Java.

Both lower-case the text and drop the punctuation marks that the COCO caption evaluation drops.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from attention_atlas.errors import AtlasError

# The marks that the COCO caption evaluation drops. It was meant to drop brackets too, but compares capitals
# ("-LRB-") after lower-casing, so they stay; reproduced here to obtain the same scores.
_MARKS = "'' ' `` ` . ? ! , : - -- ... ;"
DROPPED = frozenset(_MARKS.split())
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}

# Words with inner hyphens, numbers with inner points, clitics ('s, n't) and single marks.
_CLITIC = re.compile(r"(?i)(?<=\w)(n't|'(?:s|m|d|ll|re|ve))\b")
_TOKEN = re.compile(r"n't\b|'(?:s|m|d|ll|re|ve)\b|\.\.\.|--|\d+(?:[.,]\d+)+|\w+(?:-\w+)*|[^\w\s]")


def package_folder(name: str = "pycocoevalcap") -> Path:
    """Path of an installed package. Raises AtlasError naming the extra that installs it."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise AtlasError(
            f"text metrics: package {name} is not installed; pip install 'attention-atlas[text-metrics]'"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def why_no_java() -> str:
    """'' if Java runs, else the reason."""
    java = shutil.which("java")
    if java is None:
        return "no java on the PATH (install a Java runtime, 8 or later)"
    done = subprocess.run([java, "-version"], capture_output=True, text=True)
    return (
        ""
        if done.returncode == 0
        else f"java does not start: {(done.stderr.strip() or 'no message').splitlines()[0]}"
    )


def treebank(texts: Sequence[str]) -> list[str]:
    """Tokens joined by spaces, one Java start for all texts. Raises AtlasError without Java."""
    if missing := why_no_java():
        raise AtlasError(f"text metrics: Treebank tokens need Java: {missing}")
    folder = package_folder() / "tokenizer"
    lines = "\n".join(" ".join(text.split()) for text in texts) + "\n"
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(folder / "stanford-corenlp-3.4.1.jar")]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    done = subprocess.run(command, input=lines.encode(), capture_output=True)
    if done.returncode:
        raise AtlasError(f"text metrics: the tokenizer failed: {done.stderr.decode(errors='replace')[:200]}")
    rows = done.stdout.decode("utf-8").split("\n")
    if len(rows) < len(texts):
        raise AtlasError(f"text metrics: the tokenizer gave {len(rows)} lines for {len(texts)} texts")
    return [" ".join(t for t in row.split() if t not in DROPPED) for row in rows[: len(texts)]]


def plain(texts: Sequence[str]) -> list[str]:
    """An approximation without Java: words with inner hyphens, numbers, clitics split off."""
    found = (_TOKEN.findall(_CLITIC.sub(r" \1", text.lower())) for text in texts)
    return [" ".join(BRACKETS.get(t, t) for t in row if t not in DROPPED and t != '"') for row in found]
