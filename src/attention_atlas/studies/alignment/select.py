"""Select the examples for figures of the best and worst alignment: `shown_<panel>.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.data.images import image_to_base64
from attention_atlas.errors import AtlasError
from attention_atlas.files import write_json
from attention_atlas.measures.examples import half_at_random
from attention_atlas.studies.alignment.panel import Panel
from attention_atlas.studies.alignment.result import Shown
from attention_atlas.studies.alignment.tables import ranked

SCHEMA = "atlas.alignment_shown/2"
RULE = "where the best alignment gains most over the worst"


def best_and_worst(panel: Panel, name: str, lower: Sequence[str] = ()) -> list[str]:
    """Names of the best and the worst alignment by the score; one name when there is only one."""
    order = ranked(panel, name, lower)
    return [order[0], order[-1]] if len(order) > 1 else order


def choose(panel: Panel, pair: Sequence[str], metric: str, count: int) -> list[str]:
    """Ids of examples that runs keep, sorted by the gain of the best alignment over the worst one.

    The gain is the difference in the example's `metric`; ties by the grounding mass of its words, then by id.
    Raises AtlasError if the alignments show different examples.
    """
    first = [panel.runs[name][0] for name in pair]
    ids = [item.example for item in first[0].shown]
    for name, result in zip(pair, first, strict=True):
        if [item.example for item in result.shown] != ids:
            raise AtlasError(
                f"runs of {panel.model} on {panel.data}: {name}: shows other examples than {pair[0]}; an "
                "evaluator must show the same for every alignment"
            )

    def gain(example: str) -> tuple[float, float]:
        found = []
        for rows, key in (("examples", "value"), ("grounding", "mass")):
            means = []
            for result in first:
                values = [
                    row[key]
                    for row in getattr(result, rows)
                    if row["example"] == example and row.get("metric", metric) == metric
                ]
                means.append(float(np.mean(values)) if values else 0.0)
            found.append(means[0] - means[-1])
        return found[0], found[1]

    return sorted(ids, key=lambda e: (-gain(e)[0], -gain(e)[1], e))[:count]


def write_shown(
    panel: Panel,
    name: str,
    titles: dict[str, str],
    path: Path,
    lower: Sequence[str] = (),
    count: int = 4,
    seed: int = 0,
) -> None:
    """Write {"schema", "model", "score", "rule", "alignments": [{name, title, score}], "examples":
    [{"example", "chosen": by rule | at random, "meant": words that mean a region, "maps": [Shown of each
    alignment, its image as PNG in base64]}]}. Half of the `count` examples follow the rule of `choose`."""
    pair = best_and_worst(panel, name, lower)
    shown = {a: {item.example: item for item in panel.runs[a][0].shown} for a in pair}
    scores = dict(zip(panel.alignments, panel.scores(name).mean(1), strict=True))
    ranked = choose(panel, pair, name, count)
    examples = [
        {
            "example": e,
            "chosen": how,
            "meant": sorted({str(r["word"]) for r in panel.runs[pair[0]][0].grounding if r["example"] == e}),
            "maps": [entry(shown[a][e]) for a in pair],
        }
        for e, how in half_at_random(ranked, shown[pair[0]], count, seed)
    ]
    alignments = [{"name": a, "title": titles.get(a, a), "score": round(float(scores[a]), 6)} for a in pair]
    write_json(
        path,
        {
            "schema": SCHEMA,
            "model": panel.title or panel.model,
            "data": panel.data,
            "score": name,
            "rule": RULE,
            "alignments": alignments,
            "examples": examples,
        },
    )


def entry(item: Shown) -> dict[str, Any]:
    """A shown example as JSON."""
    return {
        "text": item.text,
        "words": list(item.words),
        "size": list(item.size),
        "boxes": None if item.boxes_N4 is None else np.round(item.boxes_N4.astype(float), 1).tolist(),
        "grid": None if item.grid is None else list(item.grid),
        "attention": np.round(item.attn_WN.astype(float), 5).tolist(),
        "image": image_to_base64(Path(item.image) if item.pixels is None else item.pixels),
    }
