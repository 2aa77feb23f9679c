"""Deletion and insertion curves (Petsiuk et al. 2018): the answer's log-probability while parts of the
image are hidden, the most relevant first, or shown, the most relevant first.

Axes: T image token, K step of a curve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from attention_atlas.capture.sites import Sites
from attention_atlas.errors import AtlasError
from attention_atlas.interventions.answers import Answered, answer_log_probs, same_answer
from attention_atlas.look.keys import keys_of

BASELINES = ("mean", "blur", "embedding")
# Names of the vision tower's output as an argument of a language model with cross-attention.
STATES = ("cross_attention_states", "encoder_hidden_states")


class Hidden:
    """`hidden(mask_T)`: log p of the answer, in nats, where the image tokens of the mask are hidden.

    baseline (one of BASELINES): what takes the place of a token. mean, blur: the pixels of its box become the
    image's mean colour, or those of the blurred image (Gaussian, σ = a tenth of the longer side); the
    model then reads the whole image again. embedding: its input to the language model becomes the mean
    over the image's tokens, which still represents the image as a whole. With cross-attention it is the
    state from which the key is computed.

    Tokens whose boxes overlap (tiles and thumbnail) hide each other's pixels. Tokens without a place are not
    hidden by mean and blur: `usable_T` is False. Values are kept, so that no mask is computed twice.

    Raises AtlasError for a baseline that the model does not allow.
    """

    def __init__(self, model: Any, processor: Any, case: Answered, image_T: Sequence[int], baseline: str):
        self.model, self.processor, self.case, self.baseline = model, processor, case, baseline
        self.image_T = list(image_T)
        sizes = [image.size[::-1] for image in case.images]
        self.keys = keys_of(model, processor, case.whole.inputs, case.whole.roles, sizes)
        self.boxes_T4 = self.keys.boxes_K4[self.image_T]
        self.owner_T = np.maximum(self.keys.image_K[self.image_T], 0)
        self.usable_T = np.ones(len(self.image_T), dtype=bool)
        self._known: dict[bytes, float] = {}
        if baseline == "embedding":
            return
        self.usable_T = np.isfinite(self.boxes_T4).all(1)
        if not self.usable_T.any():
            raise AtlasError(
                f"--baseline: {baseline} hides pixels, but the image tokens have no place "
                f"({self.keys.reason}); use --baseline embedding"
            )
        self.instead = [_instead(np.asarray(p), baseline) for p in case.images]

    def __call__(self, mask_T: np.ndarray) -> float:
        mask_T = np.asarray(mask_T, dtype=bool)
        if mask_T.shape != (len(self.image_T),) or (mask_T & ~self.usable_T).any():
            raise AtlasError(f"hidden tokens: give a mask of {len(self.image_T)} tokens that have a place")
        key = mask_T.tobytes()
        if key not in self._known:
            with torch.no_grad():
                value = self._embedded(mask_T) if self.baseline == "embedding" else self._painted(mask_T)
            self._known[key] = value
        return self._known[key]

    def painted(self, mask_T: np.ndarray) -> list[Any]:
        """The images, with the boxes of the masked tokens replaced."""
        from PIL import Image

        pixels = [np.array(image) for image in self.case.images]
        for t in np.flatnonzero(mask_T):
            n = int(self.owner_T[t])
            left, top, right, bottom = np.rint(self.boxes_T4[t]).astype(int)
            at = slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))
            pixels[n][at] = self.instead[n][at]
        return [Image.fromarray(x) for x in pixels]

    def _painted(self, mask_T: np.ndarray) -> float:
        whole = self.case.whole
        if mask_T.any():
            whole = same_answer(self.model, self.processor, self.case, self.painted(mask_T))
            if whole.ids != self.case.whole.ids:
                raise AtlasError("the processor cuts the image by its contents; use --baseline embedding")
        return float(answer_log_probs(self.model, whole).sum())

    def _embedded(self, mask_T: np.ndarray) -> float:
        chosen = torch.tensor(self.image_T)
        ran = []

        names = STATES if self.keys.cross else ("inputs_embeds",)

        def replace(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            name = next((n for n in names if kwargs.get(n) is not None), names[0])
            given = kwargs.get(name)
            x = None if given is None else given.reshape(1, -1, given.shape[-1])
            if x is None or x.shape[1] != len(self.keys.roles):
                raise AtlasError(
                    f"--baseline: embedding: {type(self.model).__name__} does not hand the whole sequence of "
                    "embeddings to its language model; use mean or blur"
                )
            deep = [name for name, value in kwargs.items() if "deepstack" in name and value is not None]
            if deep:
                raise AtlasError(
                    f"--baseline: embedding: {type(self.model).__name__} adds the image in later layers "
                    f"too ({deep[0]}); use mean or blur"
                )
            ran.append(True)
            x = x.clone()
            x[:, chosen[torch.tensor(mask_T)]] = x[:, chosen].mean(1, keepdim=True)
            return args, kwargs | {name: x.view_as(given)}

        if not mask_T.any():
            return float(answer_log_probs(self.model, self.case.whole).sum())
        sites = Sites(self.model, ["*"], {})
        decoder = sites.modules[sites.decoder_name()]
        handle = decoder.register_forward_pre_hook(replace, with_kwargs=True)
        try:
            value = float(answer_log_probs(self.model, self.case.whole).sum())
        finally:
            handle.remove()
        if not ran:
            raise AtlasError("--baseline: embedding: the language model did not run; use mean or blur")
        return value


def _instead(pixels_HW3: np.ndarray, baseline: str) -> np.ndarray:
    """The image in its mean colour, or blurred."""
    if baseline == "mean":
        return np.broadcast_to(np.rint(pixels_HW3.mean((0, 1))).astype(np.uint8), pixels_HW3.shape)
    from PIL import Image, ImageFilter

    sigma = max(pixels_HW3.shape[:2]) / 10
    return np.asarray(Image.fromarray(pixels_HW3).filter(ImageFilter.GaussianBlur(sigma)))


def steps_of(tokens: int, steps: int) -> np.ndarray:
    """(K,) how many tokens are hidden or shown at each step: from 0 to all, evenly, without repetition."""
    return np.unique(np.rint(np.linspace(0, tokens, min(steps, tokens) + 1)).astype(int))


def curve_of(
    hidden: Callable[[np.ndarray], float], order: np.ndarray, size: int, count_K: np.ndarray, insertion: bool
) -> np.ndarray:
    """(K,) values of `hidden` where the first k tokens of the order are hidden (deletion), or where all of
    the order but the first k are (insertion). size: tokens of the mask; `order` may leave some out."""
    out = []
    for k in count_K:
        mask_T = np.zeros(size, dtype=bool)
        mask_T[order[k:] if insertion else order[:k]] = True
        out.append(hidden(mask_T))
    return np.array(out)


def area(value_K: np.ndarray, count_K: np.ndarray) -> float:
    """Area under a curve over the share of tokens, 0 to 1, by the trapezoidal rule."""
    return float(np.trapezoid(value_K, count_K / count_K[-1]))
