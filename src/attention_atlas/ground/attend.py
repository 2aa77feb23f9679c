"""The attention of a phrase, or of the last token of a prompt, to the tokens of an image, by head.

Axes: L layer, H head, C = L·H, S position, R query rows, T image tokens with a place.
"""

from __future__ import annotations

import inspect
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attention_atlas.capture import Capture
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.errors import AtlasError
from attention_atlas.ground.scores import normalised
from attention_atlas.look.keys import key_globs
from attention_atlas.look.words import decoded, text_runs


class RowCapture(Capture):
    """Captures the attention from the whole sequence to the keys of the images (itself, or those of a
    cross-attention), in the language model or in the modules of `globs`: of each layer, the mean over some
    query rows, at the image's tokens. The matrix is never formed. One instance serves all examples of a
    model, so that each layer is checked once.

    notes: modules that are not in the result, one line each.
    """

    def __init__(self, model: Any, globs: Sequence[str] | None = None) -> None:
        super().__init__(model, ["rows"], rows=[0], layers=key_globs(model) if globs is None else globs)
        self.shape, self.image_T = (0, 0), torch.zeros(0, dtype=torch.long)
        self.notes: dict[str, None] = {}
        self._more: dict[str, Any] = {}
        if globs is None:
            self._more["use_cache"] = False
            if "logits_to_keep" in inspect.signature(model.forward).parameters:
                self._more["logits_to_keep"] = 1

    def maps(
        self, inputs: dict[str, Any], rows: Sequence[int], image_T: Sequence[int], keys: int
    ) -> tuple[list[int], Tensor]:
        """(layers, (L,H,T) float32 on the CPU): the mean attention of `rows` to the keys `image_T`, as
        shares of the rows' whole attention. One pass of one example, without padding. keys: their number,
        which is that of positions unless the model reads images by cross-attention.

        Raises AtlasError for a model whose language model attends in several ways.
        """
        self.shape = inputs["input_ids"].shape[1] if "input_ids" in inputs else keys, keys
        self.rows, self.image_T = list(rows), torch.tensor(list(image_T))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            captured = self(**inputs, **self._more)
        self.notes |= {str(w.message): None for w in caught if str(w.message).startswith("capture:")}
        if len(captured) != 1:
            raise AtlasError(
                f"{type(self.model).__name__}: its language model attends in several ways "
                f"({', '.join(captured)}), whose heads cannot be ranked together yet"
            )
        captured.output = None
        layers = sorted(self._maps)
        return layers, torch.stack([self._maps[layer] for layer in layers])

    def _reset(self) -> None:
        super()._reset()
        self._maps: dict[int, Tensor] = {}

    def _record(self, call: AttentionCall) -> Tensor:
        name, _, layer = self.sites.site(call.module)
        if (call.q.shape[2], call.k.shape[2]) != self.shape or layer in self._maps:
            self.notes[f"not scored: {name} (not over the same positions)"] = None
            return call.context()
        context = super()._record(call)
        rows_HRS = self._records[-1].values.pop("rows")[0]
        self._maps[layer] = rows_HRS.mean(1)[:, self.image_T.to(rows_HRS.device)].float().cpu()
        return context


class MapFile:
    """Maps of all heads of the examples, in a temporary file that vanishes with the process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed on exit)
        self._at: list[int] = []

    def __enter__(self) -> MapFile:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def add(self, map_CT: Tensor) -> None:
        """In float16, each map scaled to a largest value of 1."""
        most_C1 = map_CT.amax(-1, keepdim=True)
        self._at.append(self._file.seek(0, 2))
        np.save(self._file, (map_CT / torch.where(most_C1 > 0, most_C1, 1)).half().numpy())

    def __getitem__(self, example: int) -> Tensor:
        """(C,T) float32, each map with sum 1."""
        self._file.seek(self._at[example])
        return normalised(torch.from_numpy(np.load(self._file)).float())


def phrase_positions(
    tokenizer: Any, ids: Sequence[int], roles: Sequence[str], template: str, phrase: str
) -> list[int]:
    """Positions of the tokens that spell `phrase` where `template` has {phrase}; [] if it is not there.

    Compares decoded tokens without white space and case, because a tokenizer may change both. Where the
    rest of the prompt is spelled otherwise, the last occurrence of the phrase is taken.
    """
    prompt, before = template.replace("{phrase}", phrase), template.partition("{phrase}")[0]
    wanted = _squashed(phrase)
    for run in reversed(text_runs(roles, 0, len(ids))):
        text, spans = decoded(tokenizer, [ids[p] for p in run])
        spelled, owner = "", []
        for place, character in enumerate(text):
            added = _squashed(character)
            spelled += added
            owner += [place] * len(added)
        at = spelled.rfind(_squashed(prompt))
        at = spelled.rfind(wanted) if at < 0 else at + len(_squashed(before))
        if wanted and at >= 0:
            first, last = owner[at], owner[at + len(wanted) - 1]
            return [p for p, (start, end) in zip(run, spans) if start <= last and first < end]
    return []


def _squashed(text: str) -> str:
    return "".join(text.casefold().split())
