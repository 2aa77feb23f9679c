"""One forward pass that keeps, of each layer's attention, what a look needs: little, and never the matrix.

Axes: L layer, H head, S position of the sequence, W word, T token of a picture, G group.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attention_atlas.capture import Capture, Captured, Groups
from attention_atlas.capture.materialised import select_rows
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.errors import AtlasError
from attention_atlas.look.words import Word

STATISTICS = ("mass", "entropy", "rows")
NORM = ("norm_mass", "norm_rows")


class WordCapture(Capture):
    """Captures the self-attention of the decoder over the whole sequence, in one pass of one example.

    mass, entropy, norm_mass are kept for every layer and position, as in any capture. Rows of the words'
    queries are averaged over the pieces of each word and kept for the layers in `kept`:

    rows, norm_rows {layer: (H,W,S)}; rollout {layer: (W,T)}, through that layer; received {layer: (H,S)},
    the mean over words for every layer; visible {layer: (R,S) bool}.

    Rollout (Abnar and Zuidema 2020) is computed from the first layer on, for the columns of the picture only:
    R ← (R + mean over heads of A_h R) / 2. A_h R is attention with R as its values, so no matrix is formed.
    """

    def __init__(
        self,
        model: Any,
        layers: str | Sequence[str],
        words: Sequence[Word],
        groups: Groups,
        picture_T: Sequence[int],
        kept: Sequence[int],
        norm: bool = True,
    ) -> None:
        self.query_R = sorted({row for word in words for row in word.rows})
        names = (*STATISTICS, *NORM) if norm else STATISTICS
        super().__init__(model, names, groups=groups, rows=self.query_R, layers=layers)
        self.length = groups.member_BKG.shape[1]
        self.kept, self.picture_T = set(kept), torch.tensor(list(picture_T))
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
        if (call.q.shape[2], call.k.shape[2]) != (self.length, self.length) or layer in self.received:
            self.others.append(name)  # cross-attention, a compressed sequence: no row per word
            return call.context()
        context = super()._record(call)
        values = self._records[-1].values
        mean_WR = self.mean_WR.to(values["rows"])
        for statistic in ("rows", "norm_rows"):
            if statistic in values:
                mean_HWS = (mean_WR @ values.pop(statistic)[0]).cpu()
                if statistic == "rows":
                    self.received[layer] = mean_HWS.mean(1)
                if layer in self.kept:
                    self.word_values[statistic][layer] = mean_HWS
        self.visible[layer] = self._visible(call)
        self._roll(call, layer, mean_WR)
        return context

    def _visible(self, call: AttentionCall) -> np.ndarray:
        """(R,S) bool: the keys that each of the words' queries may attend to."""
        mask = select_rows(call, torch.tensor([self.query_R], device=call.q.device)).mask
        shape = len(self.query_R), self.length
        if mask is None:
            return np.ones(shape, dtype=bool)
        return mask.reshape(-1, *mask.shape[-2:])[0].expand(shape).cpu().numpy()

    def _roll(self, call: AttentionCall, layer: int, mean_WR: Tensor) -> None:
        call = call.factored().in_float32()
        before = self._rollout_ST
        if before is None:
            before = torch.eye(self.length, dtype=call.q.dtype, device=call.q.device)[:, self.picture_T]
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


def captured_words(
    model: Any,
    layers: str | Sequence[str],
    words: Sequence[Word],
    groups: Groups,
    picture_T: Sequence[int],
    kept: Sequence[int],
    inputs: dict[str, Any],
) -> tuple[WordCapture, Captured, list[str]]:
    """(capture, its result, what it cannot show, one line each) of one pass over `inputs`.

    Raises AtlasError for a model that attends in several ways.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            capture = WordCapture(model, layers, words, groups, picture_T, kept)
            captured = capture(**inputs)
        except AtlasError as error:
            if "do not request norms" not in str(error):
                raise
            notes.append(f"no norm-based attention: {str(error).removeprefix('capture: ')}")
            capture = WordCapture(model, layers, words, groups, picture_T, kept, norm=False)
            captured = capture(**inputs)
    notes += [str(w.message) for w in caught if str(w.message).startswith("capture:")]
    if len(captured) != 1:
        raise AtlasError(
            f"{type(model).__name__}: its language model attends in several ways "
            f"({', '.join(captured)}), which cannot be shown together yet"
        )
    if capture.others:
        notes.append(f"not shown: {', '.join(dict.fromkeys(capture.others))} (not over the whole sequence)")
    return capture, captured, notes


def decoder_layers(model: Any) -> list[str]:
    """The glob of the language model's attention modules. Raises AtlasError for an encoder-decoder."""
    text = model.config.get_text_config()
    if getattr(model.config, "is_encoder_decoder", False) or getattr(text, "is_encoder_decoder", False):
        raise AtlasError(
            f"{type(model).__name__}: is an encoder-decoder, whose pictures are in another sequence than its "
            "answers; use a decoder-only model"
        )
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    for name, module in model.named_modules():
        if module is decoder:
            return [f"{name}.*"] if name else ["*"]
    return ["*"]
