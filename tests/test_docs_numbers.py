"""Pages and configuration hold method and conventions, no results or times of ours, which go out of date.

Results are in results/report.html, measured tables with their machine in docs/benchmarks.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT

METRICS = (
    r"CIDEr|BLEU-\d|WMD|accuracy|perplexity|loss|precision|recall|Rsum|R@\d+|R-precision|ANLS|entropy|FID"
)
PATTERNS = {
    "a heading for results": re.compile(r"^#+ (measured|seen|results)\b", re.IGNORECASE),
    "a measurement": re.compile(r"\bMeasured (on|in|with|over)\b|\(measured|\bmeasured:"),
    "a running time": re.compile(r"(?<![\w.@])\d[\d.,]*\s?(ms|s|seconds|min|minutes|hours|core-s)\b(?! = )"),
    "a score": re.compile(
        rf"\b({METRICS})\b\W{{0,3}}((of|is|was|from|at|about|reaches)\s)?\W{{0,2}}\d+(\.\d+|\s?%)"
    ),
    "two scores": re.compile(
        r"\b\d+\.\d+ (→|->|against|to) \d+\.\d+ (of|on|in) (the )?(blind|captioner|model)"
    ),
}
EXCEPT = {"docs/benchmarks.md", "docs/mini_long.md", "docs/paper_setup.md"}
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if str(path.relative_to(ROOT)) not in EXCEPT
)
SETTINGS = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "params.yaml", ROOT / "dvc.yaml", *(ROOT / "conf").rglob("*.yaml")]
)


def quoted(text: str) -> list[str]:
    """What reads like a result, with its line number; examples of code are left out."""
    found, code = [], False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            code = not code
        if code or line.startswith("    "):
            continue
        found += [f"line {number}: {what}: {line.strip()}" for what, p in PATTERNS.items() if p.search(line)]
    return found


def comments(text: str) -> str:
    return "\n".join(line.split("#", 1)[1] if "#" in line else "" for line in text.splitlines())


@pytest.mark.parametrize("page", PAGES)
def test_pages_quote_no_results(page: str) -> None:
    assert quoted(Path(ROOT / page).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", SETTINGS)
def test_comments_of_the_configuration_quote_no_results(path: str) -> None:
    assert quoted(comments(Path(ROOT / path).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "## Measured",
        "Measured on the 2,000 tables of the default",
        "on two cores that took 54 minutes",
        "An image takes 0.27 s of a core.",
        "its CIDEr of 84.5 rises",
        "Text-only on captions: perplexity 9.2 per word",
        "R@10 sentence, accuracy 38 %",
        "CIDEr 35.6 against 26.0 of the blind model",
    ],
)
def test_results_are_recognised(line: str) -> None:
    assert quoted(line)
