"""Change of the caption's probability when attention between the modalities is cut in a window;
Winoground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attention_atlas.errors import ConfigError
from attention_atlas.measures.means import Sample, mean_rows
from attention_atlas.studies.vlm_phases.dump_file import Dump
from attention_atlas.studies.vlm_phases.knockout import OTHER, PLAIN
from attention_atlas.studies.vlm_phases.winoground_scores import CHANCE, winoground

CHANGE, NET = "log-prob change", "net log-prob change"
ALL = "all"  # setting: attention is cut in all layers


class Knockout:
    """`log-prob change` per token of the text, in nats, against the plain model: by block (condition) and
    window (layer: its first; setting: its width), all layers (setting `all`), and without a block for another
    image (the total value of the image). For each phase found: the mean over the windows whose centre is
    in it, group = phase (layer l maps state l to state l + 1).

    A block also puts the model in a state that it was never trained in, which costs probability independent
    of the image. With input `other` it is the same change when another image is shown throughout, and
    `net log-prob change` is the first minus the second: the information of its own image that the block
    withholds from the text. If the text is cut off in all layers, it equals the change under another image
    alone."""

    def rows(self, dump: Dump) -> list[dict[str, Any]]:
        """Raises ConfigError if `context` has not found the phases yet."""
        if not dump.samples("knockout"):
            return []
        if dump.phases is None and dump.samples("context"):
            raise ConfigError(
                "conf/metrics: measures: the knock-out needs the phases of Contextualisation; list it first"
            )
        sample = dump.sample("knockout")
        log_NC = np.stack(dump.read("knockout", "log_prob")).astype(np.float64)
        tokens_N1 = np.stack(dump.read("knockout", "tokens")).astype(np.float64)
        conditions = list(dump.about["conditions"])
        change = (log_NC - log_NC[:, [conditions.index(PLAIN)]]) / tokens_N1
        base = dump.base | {"kind": "knockout", "measure": CHANGE}
        plain = log_NC[:, [conditions.index(PLAIN)]] / tokens_N1
        rows = mean_rows(sample, plain, base | {"measure": "log-prob"})
        other = change[:, [conditions.index(OTHER)]]
        rows += mean_rows(sample, other, base | {"input": "other"}, chance_NC=0.0)
        by_block: dict[str, list[tuple[int, int, int]]] = {}
        for c, name in enumerate(conditions):
            if name not in (PLAIN, OTHER):
                block, _, window = name.partition(" | ")
                first, last = (int(x) for x in window.split("-"))
                by_block.setdefault(block, []).append((c, first, last))
        other_NC = np.stack(dump.read("knockout", "log_prob_other")).astype(np.float64)
        change_other = (other_NC - other_NC[:, [conditions.index(PLAIN)]]) / tokens_N1
        for at, change_NC in (
            (base, change),
            (base | {"input": "other"}, change_other),
            (base | {"measure": NET}, change - change_other),
        ):
            rows += _block_rows(dump, by_block, change_NC, sample, at)
        return rows


class Winoground:
    """Text, image, group score and matching; n counts quadruples, intervals resample quadruples."""

    def rows(self, dump: Dump) -> list[dict[str, Any]]:
        """No rows for data without quadruples."""
        pairs = dump.about["pairs"]
        if not pairs:
            return []
        score = np.array([p["scores"] for p in pairs], dtype=np.float64)
        sample = Sample.of([p["id"] for p in pairs], seed=dump.seed)
        rows: list[dict[str, Any]] = []
        for metric, right in winoground(score).items():
            base = dump.base | {"kind": "winoground", "measure": metric}
            rows += mean_rows(sample, right[:, None].astype(float), base, chance_NC=CHANCE[metric])
        return rows


def _block_rows(
    dump: Dump,
    by_block: Mapping[str, Sequence[tuple[int, int, int]]],
    change: np.ndarray,
    sample: Sample,
    base: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Rows of each block: (condition's column, first layer, last layer) of each window."""
    rows: list[dict[str, Any]] = []
    for block, found in by_block.items():
        whole = [c for c, first, last in found if (first, last) == (0, dump.layers - 1)]
        if whole:
            named = {**base, "condition": block, "setting": ALL}
            rows += mean_rows(sample, change[:, whole[:1]], named, chance_NC=0.0)
        parts = [(c, first, last) for c, first, last in found if c not in whole]
        if not parts:
            continue
        width = parts[0][2] - parts[0][1] + 1
        named = {**base, "condition": block, "setting": str(width)}
        at, starts = [c for c, *_ in parts], [first for _, first, _ in parts]
        rows += mean_rows(sample, change[:, at], named, chance_NC=0.0, layers=starts)
        for phase, start, end in dump.phases.phases.edges(dump.layers + 1) if dump.phases else []:
            inside = [c for c, first, last in parts if start <= (first + last) / 2 < end]
            if inside:
                mean = change[:, inside].mean(1, keepdims=True)
                named = {**base, "condition": block, "group": phase}
                rows += mean_rows(sample, mean, named, chance_NC=0.0)
    return rows
