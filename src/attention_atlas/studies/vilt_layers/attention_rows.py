"""Attention by layer, head and group of questions, and differences between groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attention_atlas.measures.means import head_mean_rows
from attention_atlas.studies.vilt_layers.record import KIND, Record
from attention_atlas.studies.vilt_layers.rows import difference_rows


class Attention:
    """Every measure of measures.py over all questions, by group, and for right and wrong answers."""

    def rows(self, record: Record) -> list[dict[str, Any]]:
        return subset_rows(record, record.values)


def subset_rows(
    record: Record, values: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]
) -> list[dict[str, Any]]:
    """Rows per layer and head of each subset of the captured questions. values: {(measure, condition): values
    (N,L,H) and chances (N,)}, as measures.stack makes them."""
    sample = record.sample(record.captured)
    rows: list[dict[str, Any]] = []
    for (name, condition), (value_NLH, chance_N) in values.items():
        for subset, chosen_N in record.subsets.items():
            base = {"kind": KIND, "measure": name, "condition": condition, "group": subset}
            rows += head_mean_rows(sample, value_NLH, chosen_N, chance_N, base)
    return rows


@dataclass
class Differences:
    """Between each group of questions and all others, and between right and wrong answers. compare: the
    [measure, condition] pairs."""

    compare: Sequence[Sequence[str]] = (("mass", "text → image"),)
    permutations: int = 2000

    def rows(self, record: Record) -> list[dict[str, Any]]:
        sample, subsets = record.sample(record.captured), record.subsets
        nobody = np.zeros(len(record.captured), dtype=bool)
        rows: list[dict[str, Any]] = []
        for name, condition in record.present(self.compare, "compare"):
            value_NLH, _ = record.values[name, condition]
            for subset, chosen_N in subsets.items():
                if subset in ("", "wrong"):
                    continue
                against = "wrong" if subset == "right" else "others"
                second_N = subsets.get("wrong", nobody) if subset == "right" else ~chosen_N
                base = {"kind": KIND, "measure": name, "condition": condition}
                base |= {"group": subset, "against": against}
                rows += difference_rows(
                    sample, value_NLH, chosen_N, second_N, base, self.permutations, record.seed
                )
        return rows
