"""All of study 5 from its dumps: the metric table and samples for figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.files import write_json
from attention_atlas.measures.table import make_table
from attention_atlas.studies.vlm_phases.context_rows import ContextRows
from attention_atlas.studies.vlm_phases.dump_file import Dump
from attention_atlas.studies.vlm_phases.knockout_rows import knockout_rows, winoground_rows
from attention_atlas.studies.vlm_phases.lens_rows import LensRows
from attention_atlas.studies.vlm_phases.norm_attention import sinks
from attention_atlas.studies.vlm_phases.norm_rows import NormRows

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "atlas.vlm_shown/1"


@dataclass
class PhasesStudy:
    """conf/metrics/vlm_phases.yaml. The samples shown are those whose picture the dump kept."""

    lens: LensRows = field(default_factory=LensRows)
    context: ContextRows = field(default_factory=ContextRows)
    norm: NormRows = field(default_factory=NormRows)

    def __call__(
        self, folders: Sequence[Path], study: str, seed: int
    ) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
        """(metric table, samples to show) of all dumps."""
        if not folders:
            raise AtlasError("vlm_phases: no dumps; name models and data in conf/study/vlm_phases.yaml")
        rows: list[dict[str, Any]] = []
        shown: list[dict[str, Any]] = []
        for folder in folders:
            with Dump(folder) as dump:
                phases = None
                if dump.samples("context"):
                    found, phases = self.context(dump, seed)
                    rows += found
                if dump.samples("lens"):
                    rows += self.lens(dump, seed)
                if dump.samples("norm"):
                    rows += self.norm(dump, seed)
                    shown += self._shown(dump)
                rows += knockout_rows(dump, phases, seed) + winoground_rows(dump, seed)
        return make_table(row | {"study": study} for row in rows), shown

    def _shown(self, dump: Dump) -> list[dict[str, Any]]:
        out = []
        for sample in dump.samples("norm"):
            if sample["id"] not in dump.about["pictures"]:
                continue
            id, axis = sample["id"], dump.axis(sample["id"])
            norm = dump.store.read(id, "decoder", "norm")
            attention = dump.store.read(id, "decoder", "attention")
            sink = sinks(attention, self.norm.times, self.norm.layers)
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
                    "sinks": np.flatnonzero(sink).tolist(),
                    "norm": {row: _short(norm[:, r]) for r, row in enumerate(dump.about["rows"])},
                    "attention": {row: _short(attention[:, r]) for r, row in enumerate(dump.about["rows"])},
                    "picture": dump.about["pictures"][sample["id"]],
                }
            )
        return out


def _short(value_LS: np.ndarray) -> list[list[float]]:
    return [[float(f"{v:.4g}") for v in row] for row in value_LS]


def write_shown(samples: list[dict[str, Any]], path: Path) -> None:
    write_json(path, {"schema": SCHEMA, "samples": samples})
