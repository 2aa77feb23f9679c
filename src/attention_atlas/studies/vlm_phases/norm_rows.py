"""Figure 4: norm-based attention of the last text and the last visual token, by modality and layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from attention_atlas.measures.distribution import check_weights
from attention_atlas.measures.means import mean_rows
from attention_atlas.recording import Axis
from attention_atlas.studies.vlm_phases.dump_file import Dump
from attention_atlas.studies.vlm_phases.norm_attention import (
    SINK_LAYERS,
    SINK_TIMES,
    even_share,
    mass_by_group,
    sinks,
)

GROUPS = ("bos", "image", "prompt", "caption")


def membership(axis: Axis, span: np.ndarray) -> np.ndarray:
    """(G,S) bool for GROUPS; `span` is the text's [start, stop)."""
    at = np.arange(len(axis))
    inside = (at >= span[0]) & (at < span[1])
    text = axis.where("text")
    return np.stack([axis.where("bos"), axis.where("image"), text & ~inside, text & inside])


def concentration(value_LRS: np.ndarray) -> np.ndarray:
    """(L,R) 1 − entropy / log(number of tokens seen): 0 is spread evenly, 1 is all on one token; NaN for a
    row that sees one token only."""
    seen_LR = (value_LRS > 0).sum(-1)
    share = value_LRS / np.maximum(value_LRS.sum(-1, keepdims=True), 1e-30)
    entropy = -np.where(share > 0, share * np.log(np.where(share > 0, share, 1.0)), 0.0).sum(-1)
    out = np.full(seen_LR.shape, np.nan)
    np.divide(entropy, np.log(np.maximum(seen_LR, 1)), out=out, where=seen_LR > 1)
    return 1 - out


@dataclass
class NormAttention:
    """times, layers: when a token is a sink (norm_attention.sinks)."""

    times: float = SINK_TIMES
    layers: float = SINK_LAYERS

    def rows(self, dump: Dump) -> list[dict[str, Any]]:
        """Per row and layer: `norm share` and `attention share` on each group, with and without sinks; mean
        `norm` per token of a group; `norm concentration`; `sinks` per sample by group. Layers from 0."""
        if not dump.samples("norm"):
            return []
        names = list(dump.about["rows"])
        sample = dump.sample("norm")
        norms, attentions = dump.read("norm", "norm"), dump.read("norm", "attention")
        spans = dump.read("norm", "span")
        found: dict[str, list[np.ndarray]] = {}
        chance: dict[str, list[np.ndarray]] = {}
        sinks_NG = np.zeros((len(norms), len(GROUPS)))
        for n, example in enumerate(dump.samples("norm")):
            member_GS = membership(dump.axis(example["id"]), spans[n])
            where = f"{dump.folder}: example '{example['id']}': attention"
            check_weights(attentions[n], where)
            sink_S = sinks(attentions[n], self.times, self.layers)
            sinks_NG[n] = member_GS @ sink_S
            for what, value in (("norm share", norms[n]), ("attention share", attentions[n])):
                for suffix, keep in (("", None), (", no sinks", ~sink_S)):
                    found.setdefault(what + suffix, []).append(mass_by_group(value, member_GS, keep))
                    even = even_share(attentions[n], member_GS, keep)
                    chance.setdefault(what + suffix, []).append(even)
            size = (attentions[n] > 0).astype(float) @ member_GS.T
            total = norms[n] @ member_GS.T.astype(float)
            mean = np.full(size.shape, np.nan)
            np.divide(total, size, out=mean, where=size > 0)
            found.setdefault("norm", []).append(mean)
            found.setdefault("norm concentration", []).append(concentration(norms[n])[..., None])
            found.setdefault("attention concentration", []).append(concentration(attentions[n])[..., None])
        rows: list[dict[str, Any]] = []
        for metric, values in found.items():
            value_NLRG = np.stack(values)
            for r, row in enumerate(names):
                for g in range(value_NLRG.shape[3]):
                    seen = value_NLRG[:, :, r, g]
                    if np.isnan(seen).all() or not np.nan_to_num(seen).any():
                        continue  # the last visual token sees no caption
                    condition = f"{row} → {GROUPS[g]}" if value_NLRG.shape[3] > 1 else row
                    base = dump.base | {"kind": "norm", "measure": metric, "condition": condition}
                    level = np.stack(chance[metric])[:, :, r, g] if metric in chance else None
                    rows += mean_rows(sample, seen, base, chance_NC=level, layers=range(dump.layers))
        for g, group in enumerate(GROUPS):
            base = dump.base | {"kind": "norm", "measure": "sinks", "condition": group}
            rows += mean_rows(sample, sinks_NG[:, [g]], base)
        return rows
