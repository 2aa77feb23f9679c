"""One forward pass that keeps only what a look needs of each layer's attention, and never the matrix.

Axes: L layer, H head, S position of the sequence, K key (a position, or a key of cross-attention), W word,
R query of a word, T token of an image, G group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attention_atlas.capture import Capture, Groups
from attention_atlas.capture.materialised import select_rows
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.errors import AtlasError
from attention_atlas.look.words import Word

STATISTICS = ("mass", "entropy", "rows")
NORM = ("norm_mass", "norm_rows")


class WordCapture(Capture):
    """Captures the attention from all positions of the sequence to all of `groups`' keys, in one pass of one
    example. queries: how many positions; default: as many as keys, for self-attention.

    mass, entropy, norm_mass are kept for every layer and position, as in any capture. Rows of the words'
    queries are averaged over the pieces of each word and kept for the layers in `kept`:

    rows, norm_rows {layer: (H,W,K)}; rollout {layer: (W,T)}, through that layer; received {layer: (H,K)},
    the mean over words for every layer; visible {layer: (R,K) bool}.

    Rollout (Abnar and Zuidema 2020) is computed from the first layer on, for the columns `image_T` only:
    R ← (R + mean over heads of A_h R) / 2. A_h R is attention with R as its values, so no matrix is formed.
    image_T=None leaves it out.
    """

    def __init__(
        self,
        model: Any,
        layers: str | Sequence[str],
        words: Sequence[Word],
        groups: Groups,
        image_T: Sequence[int] | None,
        kept: Sequence[int],
        norm: bool = True,
        queries: int | None = None,
    ) -> None:
        self.query_R = sorted({row for word in words for row in word.rows})
        names = (*STATISTICS, *NORM) if norm else STATISTICS
        super().__init__(model, names, groups=groups, rows=self.query_R, layers=layers)
        keys = groups.member_BKG.shape[1]
        self.shape = queries or keys, keys
        self.kept = set(kept)
        self.image_T = None if image_T is None else torch.tensor(list(image_T))
        at = {row: n for n, row in enumerate(self.query_R)}
        self.mean_WR = torch.zeros(len(words), len(self.query_R))
        for w, word in enumerate(words):
            for row in word.rows:
                self.mean_WR[w, at[row]] += 1 / len(word.rows)
        self.others: list[str] = []

    def _reset(self) -> None:
        super()._reset()
        self.word_values: dict[str, dict[int, Tensor]] = {"rows": {}, "norm_rows": {}, "rollout": {}}
        self.received: dict[int, Tensor] = {}
        self.visible: dict[int, np.ndarray] = {}
        self._rollout_ST: Tensor | None = None

    def _record(self, call: AttentionCall) -> Tensor:
        name, _, layer = self.sites.site(call.module)
        if (call.q.shape[2], call.k.shape[2]) != self.shape or layer in self.received:
            self.others.append(name)  # other keys, a compressed sequence: no row per word
            return call.context()
        context = super()._record(call)
        values = self._records[-1].values
        mean_WR = self.mean_WR.to(values["rows"])
        for statistic in ("rows", "norm_rows"):
            if statistic in values:
                mean_HWK = (mean_WR @ values.pop(statistic)[0]).cpu()
                if statistic == "rows":
                    self.received[layer] = mean_HWK.mean(1)
                if layer in self.kept:
                    self.word_values[statistic][layer] = mean_HWK
        self.visible[layer] = self._visible(call)
        if self.image_T is not None:
            self._roll(call, layer, mean_WR)
        return context

    def _visible(self, call: AttentionCall) -> np.ndarray:
        """(R,K) bool: the keys that each of the words' queries may attend to."""
        mask = select_rows(call, torch.tensor([self.query_R], device=call.q.device)).mask
        shape = len(self.query_R), self.shape[1]
        if mask is None:
            return np.ones(shape, dtype=bool)
        return mask.reshape(-1, *mask.shape[-2:])[0].expand(shape).cpu().numpy()

    def _roll(self, call: AttentionCall, layer: int, mean_WR: Tensor) -> None:
        call = call.factored().in_float32()
        before = self._rollout_ST
        if before is None:
            before = torch.eye(self.shape[1], dtype=call.q.dtype, device=call.q.device)[:, self.image_T]
        elif before.device != call.q.device:  # layers spread over several GPUs
            before = before.to(call.q.device)
        # A learned sink takes a share of every row; the column of ones measures what is left.
        wide = before if call.sink is None else torch.cat([before, torch.ones_like(before[:, :1])], 1)
        parts = [
            dataclasses.replace(call, v=part.expand(1, call.q.shape[1], -1, -1), dropout=0.0).context()
            for part in wide.split(call.q.shape[-1], 1)
        ]
        mixed = torch.cat(parts, -1)[0].mean(0)
        total: Any = 1.0
        if call.sink is not None:
            mixed, total = mixed[:, :-1], 0.5 + 0.5 * mixed[:, -1:]
        self._rollout_ST = (0.5 * before + 0.5 * mixed) / total
        if layer in self.kept:
            rows_RT = self._rollout_ST[torch.tensor(self.query_R, device=call.q.device)]
            self.word_values["rollout"][layer] = (mean_WR.to(rows_RT) @ rows_RT).cpu()


def decoder_layers(model: Any) -> list[str]:
    """The glob of the language model's attention modules. Raises AtlasError for an encoder-decoder."""
    text = model.config.get_text_config()
    if getattr(model.config, "is_encoder_decoder", False) or getattr(text, "is_encoder_decoder", False):
        raise AtlasError(
            f"{type(model).__name__}: is an encoder-decoder, whose images are in another sequence than its "
            "answers; use a decoder-only model"
        )
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    for name, module in model.named_modules():
        if module is decoder:
            return [f"{name}.*"] if name else ["*"]
    return ["*"]
