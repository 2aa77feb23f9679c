"""Figure 3: similarity within and between the modalities by layer, its baseline, and the phases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attention_atlas.errors import ConfigError, did_you_mean
from attention_atlas.measures.means import mean_rows
from attention_atlas.studies.vlm_phases.contextualisation import across, between, within
from attention_atlas.studies.vlm_phases.dump_file import Dump
from attention_atlas.studies.vlm_phases.phases import LEAST, NAMES, Stability, bootstrap_phases, chance_four

INTER, IMAGE, TEXT = "image – text", "image – image", "text – text"


@dataclass
class Contextualisation:
    """text: groups that count as text (prompt, caption). self_pairs: a token's cosine with itself counts.
    final_norm: take the last layer after the final norm, as in transformers' hidden_states (and so, probably,
    in the paper); else its plain output. least, shuffles: parameters of the rule for phases (phases.py)."""

    text: Sequence[str] = ("prompt", "caption")
    self_pairs: bool = False
    final_norm: bool = False
    least: float = LEAST
    shuffles: int = 1000

    def rows(self, dump: Dump) -> list[dict[str, Any]]:
        """Layer 0 is the embeddings, layer l the output of layer l. Stores the phases in `dump.phases`."""
        if not dump.samples("context"):
            return []
        groups = list(dump.about["groups"])
        for name in self.text:
            if name not in groups:
                raise ConfigError(f"conf/metrics: text: '{name}' is not a group{did_you_mean(name, groups)}")
        chosen = [groups.index(name) for name in self.text]
        sums = np.stack(dump.read("context", "unit_sums")).astype(np.float64)
        counts = np.stack(dump.read("context", "counts")).astype(np.float64)
        images, layers = dump.images("context"), dump.layers
        sample = dump.sample("context")
        image_NLD, text_NLD = sums[:, :, 0], sums[:, :, chosen].sum(2)
        image_N, text_N = counts[:, 0], counts[:, chosen].sum(1)
        value = {
            INTER: _each(between, image_NLD, image_N, text_NLD, text_N),
            IMAGE: np.stack([within(s, n, self.self_pairs) for s, n in zip(image_NLD, image_N)]),
            TEXT: np.stack([within(s, n, self.self_pairs) for s, n in zip(text_NLD, text_N)]),
        }
        mean_image = image_NLD / image_N[:, None, None]
        mean_text = text_NLD / np.maximum(text_N, 1)[:, None, None]
        baseline = {
            INTER: across(mean_image, mean_text, images),
            IMAGE: across(mean_image, mean_image, images),
            TEXT: across(mean_text, mean_text, images),
        }
        states = [*range(layers), layers + 1 if self.final_norm else layers]
        other = layers if self.final_norm else layers + 1
        beside = "cosine before the final norm" if self.final_norm else "cosine behind the final norm"
        rows: list[dict[str, Any]] = []
        for name, seen in value.items():
            base = dump.base | {"kind": "context", "measure": "cosine", "condition": name}
            level = baseline[name]
            rows += mean_rows(
                sample,
                seen[:, states],
                base,
                chance_NC=level[:, states],
                layers=range(layers + 1),
                spread=True,
            )
            last = base | {"measure": beside}
            rows += mean_rows(
                sample, seen[:, [other]], last, chance_NC=level[:, [other]], layers=[layers], spread=True
            )
            over = base | {"measure": "cosine over baseline"}
            gap = (seen - level)[:, states]
            rows += mean_rows(sample, gap, over, chance_NC=0.0, layers=range(layers + 1))
        for name, seen in ((IMAGE, value[IMAGE]), (TEXT, value[TEXT])):
            base = dump.base | {"kind": "context", "measure": "intra minus inter", "condition": name}
            gap = (seen - value[INTER])[:, states]
            rows += mean_rows(sample, gap, base, chance_NC=0.0, layers=range(layers + 1))
        curve_NL = value[INTER][:, states]
        dump.phases = bootstrap_phases(curve_NL, images, seed=dump.seed, least=self.least)
        chance = chance_four(curve_NL.mean(0), self.shuffles, dump.seed, self.least)
        return rows + phase_rows(dump, dump.phases, len(images), chance)


def _each(function: Any, a: np.ndarray, m: np.ndarray, b: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.stack([function(*one) for one in zip(a, m, b, n)])


def phase_rows(dump: Dump, found: Stability, n: int, chance: float) -> list[dict[str, Any]]:
    """`phase`: 1 or 0, whether it exists; `phase share`: share of resamples with it; `phase start`, `phase
    end`: layers of existing phases; `turn`: with the interval over resamples; `turn share`: share of
    resamples whose turn is at most one layer off; `four phases`: share of resamples with all phases; its
    chance is that of the same steps in random order."""
    base = dump.base | {"kind": "phases", "n": n}
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(NAMES):
        at = base | {"group": name}
        rows.append(at | {"measure": "phase", "value": float(found.phases.present_B4[0, i])})
        rows.append(at | {"measure": "phase share", "value": float(found.share_4[i])})
    for name, start, end in found.phases.edges(dump.layers + 1):
        rows.append(base | {"measure": "phase start", "group": name, "value": float(start)})
        rows.append(base | {"measure": "phase end", "group": name, "value": float(end)})
    for i, name in enumerate(NAMES[:3]):
        at = base | {"condition": f"end of {name.split()[0]}"}
        limits = {"ci_low": float(found.low_3[i]), "ci_high": float(found.high_3[i])}
        rows.append(at | {"measure": "turn", "value": float(found.phases.turns_B3[0, i])} | limits)
        rows.append(at | {"measure": "turn share", "value": float(found.near_3[i])})
    four = float(found.share_all)
    rows.append(base | {"measure": "four phases", "value": four, "chance": chance})
    return rows
