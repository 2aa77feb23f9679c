"""shown.json: the samples of figure 4, with norm-based attention, attention and image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.files import write_json
from attention_atlas.studies.vlm_phases.dump_file import Dump
from attention_atlas.studies.vlm_phases.norm_attention import SINK_LAYERS, SINK_TIMES, sinks

SCHEMA = "atlas.vlm_shown/1"


@dataclass
class Shown:
    """times, layers: when a token is a sink (norm_attention.sinks)."""

    times: float = SINK_TIMES
    layers: float = SINK_LAYERS

    def write(self, dumps: Iterable[Dump], path: Path) -> None:
        """Write the samples of all dumps."""
        write_json(path, {"schema": SCHEMA, "samples": [s for dump in dumps for s in self.samples(dump)]})

    def samples(self, dump: Dump) -> list[dict[str, Any]]:
        """Those samples of `norm` whose image the dump kept."""
        out = []
        for sample in dump.samples("norm"):
            if sample["id"] not in dump.about["images"]:
                continue
            id, axis = sample["id"], dump.axis(sample["id"])
            norm = dump.store.read(id, "decoder", "norm")
            attention = dump.store.read(id, "decoder", "attention")
            sink = sinks(attention, self.times, self.layers)
            out.append(
                {
                    "model": dump.model,
                    "data": dump.data,
                    "id": id,
                    "text": sample["text"],
                    "tokens": list(axis.tokens),
                    "roles": list(axis.roles),
                    "span": [int(x) for x in dump.store.read(id, "decoder", "span")],
                    "grid": dump.about["grid"],
                    "places": dump.about.get("places", {}).get(sample["id"]),
                    "sinks": np.flatnonzero(sink).tolist(),
                    "norm": {row: _short(norm[:, r]) for r, row in enumerate(dump.about["rows"])},
                    "attention": {row: _short(attention[:, r]) for r, row in enumerate(dump.about["rows"])},
                    "image": dump.about["images"][sample["id"]],
                }
            )
        return out


def _short(value_LS: np.ndarray) -> list[list[float]]:
    return [[float(f"{v:.4g}") for v in row] for row in value_LS]
