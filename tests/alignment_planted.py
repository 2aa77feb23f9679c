"""Panels with planted results: a known best, known ties, known grounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.studies.alignment.panel import Panel
from attention_atlas.studies.alignment.result import RunResult, Shown

NAMES = (
    "cosine",
    "dot",
    "scaled_dot",
    "general_kq",
    "general_qk",
    "biased_general_kq",
    "biased_general_qk",
    "activated_general",
)
# Chance of a right answer: general_kq is best by far, the first three are one function, the last is worst.
SKILL = dict(zip(NAMES, (0.6, 0.6, 0.6, 0.8, 0.58, 0.55, 0.58, 0.3), strict=True))
TYPES = ("exist", "count", "query attribute")


def result(name: str, seed: int, skill: float, examples: int = 300, mass: float | None = None) -> RunResult:
    """Answers drawn with the skill; the same draw for all alignments, so that differences are paired. Every
    third example of an image is harder."""
    draw = np.random.default_rng(5).random(examples)
    noise = np.random.default_rng([seed, len(name), sum(map(ord, name))]).normal(0, 0.015)
    mass = 0.1 + 0.6 * skill if mass is None else mass
    found = RunResult({}, [], [], [])
    for i in range(examples):
        kind = TYPES[i % 3]
        right = float(draw[i] < skill + noise - 0.1 * (kind == "count"))
        row = {"example": f"q{i:03d}", "metric": "accuracy", "value": right, "image": f"i{i // 3:03d}"}
        found.examples.append({**row, "type": kind, "nouns": 1 + i % 5})
        share = float(np.clip(mass + 0.1 * (draw[i] - 0.5), 0, 1))
        found.grounding.append(
            {"example": f"q{i:03d}", "word": "chair", "mass": share, "chance": 0.1, "top1": int(share > 0.4)}
        )
    mean = float(np.mean([row["value"] for row in found.examples]))
    found.scores = {"accuracy": 100 * mean, "FID": 50 - 20 * skill - 20 * noise, "chance accuracy": 20.0}
    rng = np.random.default_rng(sum(map(ord, name)))
    for i in range(5):
        attn = rng.dirichlet(np.full(4, 0.5), size=2).astype(np.float32)
        found.shown.append(
            Shown(
                example=f"q{i:03d}",
                pixels=image(i),
                size=(120, 90),
                words=["chair", "red"],
                attn_WN=attn,
                boxes_N4=np.array([[0, 0, 60, 45], [60, 0, 120, 45], [0, 45, 60, 90], [60, 45, 120, 90]]),
                text=f"a red chair, {name}",
            )
        )
    return found


def image(i: int) -> np.ndarray:
    """Four coloured quarters."""
    image = np.zeros((90, 120, 3), np.uint8)
    for k, (y, x) in enumerate(((0, 0), (0, 60), (45, 0), (45, 60))):
        image[y : y + 45, x : x + 60] = (60 * k, 40 * i, 255 - 60 * k)
    return image


def panel(model: str = "scan", data: str = "toys", seeds: int = 3, **changes: Any) -> Panel:
    # The three equal rows differ by the noise of training only.
    runs = {n: [result(n, s, SKILL[n]) for s in range(seeds)] for n in NAMES}
    pairs = [("cosine", "dot"), ("dot", "scaled_dot"), ("general_qk", "biased_general_qk")]
    same = [
        {"a": a, "b": b, "how": "same weights", "loss": 1e-7, "values": 0.0, "attention": 1e-6}
        for a, b in pairs
    ]
    return Panel(**{"model": model, "data": data, "runs": runs, "same": same, "title": "SCAN", **changes})


def write_panel(folder: Path, made: Panel) -> None:
    """The folder that a stage `alignment_runs` would have written."""
    from attention_atlas.files import write_json

    for name, found in made.runs.items():
        for seed, run in enumerate(found):
            run.save(folder / name / f"seed{seed}")
    write_json(folder / "same.json", made.same)
    about = {"model": made.model, "data": made.data, "title": made.title}
    write_json(folder / "about.json", about)
