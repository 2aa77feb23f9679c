"""Importance of heads, what it correlates with, and accuracy with heads pruned, from heads.npz."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attention_atlas.measures.bootstrap import ratio
from attention_atlas.measures.means import head_mean_rows, mean_rows
from attention_atlas.studies.vilt_layers.heads import importance
from attention_atlas.studies.vilt_layers.record import KIND, Record
from attention_atlas.studies.vilt_layers.rows import rank_correlation_rows


def judged(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """(N,L,H) decrease of the accuracy and (N,L,H) increase of the loss without each head."""
    return importance({name: record.heads[name] for name in ("whole", "without")})


class Importance:
    """`importance`, conditions loss and accuracy (per cent), over all questions and by group."""

    def rows(self, record: Record) -> list[dict[str, Any]]:
        chosen = [record.examples[str(i)] for i in record.heads["ids"]]
        sample, groups, none = record.sample(chosen), record.groups(chosen), np.zeros(len(chosen))
        drop_NLH, loss_NLH = judged(record)
        rows: list[dict[str, Any]] = []
        for condition, value_NLH in (("loss", loss_NLH), ("accuracy", 100 * drop_NLH)):
            for name, chosen_N in groups.items():
                base = {"kind": KIND, "measure": "importance", "condition": condition, "group": name}
                rows += head_mean_rows(sample, value_NLH, chosen_N, none, base)
        return rows


@dataclass
class ImportanceCorrelation:
    """Rank correlation over heads of the importance (loss) with attention. correlate: the [measure,
    condition] pairs."""

    correlate: Sequence[Sequence[str]] = (("mass", "text → image"),)

    def rows(self, record: Record) -> list[dict[str, Any]]:
        sample, (_, loss_NLH) = record.sample(record.captured), judged(record)
        pairs = record.present(self.correlate, "correlate")
        mean_LH = {pair: ratio(*sample.sums(record.values[pair][0])) for pair in pairs}
        return rank_correlation_rows(mean_LH, loss_NLH.mean(0), {"kind": "importance correlation"})


class Pruning:
    """`pruned`: accuracy (per cent) by number of silenced heads (setting); condition: the order of the
    heads."""

    def rows(self, record: Record) -> list[dict[str, Any]]:
        chosen = [record.examples[str(i)] for i in record.heads["pruned_ids"]]
        sample, groups = record.sample(chosen), record.groups(chosen)
        rows: list[dict[str, Any]] = []
        for order in ("importance", "random"):
            for column, count in enumerate(record.heads["steps"].tolist()):
                values_N = 100 * record.heads[f"pruned_{order}"][:, column]
                for name, chosen_N in groups.items():
                    base = {"kind": KIND, "measure": "pruned", "condition": order}
                    base |= {"group": name, "setting": str(count)}
                    rows += mean_rows(sample, values_N[:, None], base, chosen_N=chosen_N)
        return rows
