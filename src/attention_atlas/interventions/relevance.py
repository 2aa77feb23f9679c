"""How much each image token matters for an answer, by several methods.

Rows are the positions that predict the answer; y = Σ log p of its tokens, teacher-forced, in nats; A is the
attention, ∇A = ∂y/∂A, (x)⁺ = max(x, 0). Axes: L layer, H head, S position (query or key), T image token.

- attention_last, attention: A, mean over heads and rows, of the last layer / of all layers
- rollout: Abnar and Zuidema 2020, through all layers, mean over rows
- norm_last, norm: α·‖f(x)‖ in place of A (Kobayashi et al. 2020)
- gradient_attention: Σ over queries of (∇A ⊙ A)⁺, mean over heads and layers (as Barkan et al. 2021)
- chefer: R ← R + E_h[(∇A ⊙ A)⁺] R from R = I, layer by layer; mean over rows of R (Chefer et al. 2021,
  eq. 5 and 6: the rule for self-attention; with cross-attention also 8 to 10)

Where the language model reads images by cross-attention, A is that of its layers with cross-attention, and
there is no rollout. Only the attention of the language model counts: mixing in the vision tower does not.

The first five need one pass of the capture, which does not form the attention matrix. The others need all
matrices and their gradients at once: about 3 · 4 · L · H · S² bytes besides the model's activations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attention_atlas.capture.routes import captured_by
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.sites import Sites
from attention_atlas.errors import AtlasError
from attention_atlas.interventions.answers import Answered, answer_log_probs
from attention_atlas.look.attend import decoder_layers
from attention_atlas.look.keys import NO_ROLLOUT, Keys, check_tokens, cross_layers, keys_of, word_capture
from attention_atlas.look.words import Word

CAPTURED = ("attention_last", "attention", "rollout", "norm_last", "norm")
GRADIENTS = ("gradient_attention", "chefer")
METHODS = (*CAPTURED, *GRADIENTS)


def relevance(
    model: Any, case: Answered, methods: Sequence[str] = METHODS
) -> tuple[dict[str, np.ndarray], list[str]]:
    """({method: (T,) relevance of the image tokens, in their order}, notes on methods left out).

    Raises AtlasError for an encoder-decoder, and for a cross-attention whose keys are not known.
    """
    keys = _keys(model, case)
    found: dict[str, np.ndarray] = {}
    notes: list[str] = []
    if set(methods) & set(CAPTURED):
        found, notes = _captured(model, case, keys)
        if keys.cross and "rollout" in methods:
            notes.append(NO_ROLLOUT)
    if set(methods) & set(GRADIENTS):
        attention, gradient, crossing = attention_gradients(model, case)
        read = [n for n, cross in enumerate(crossing) if cross == keys.cross]
        columns_K = gradient_attention([attention[n] for n in read], [gradient[n] for n in read])
        found["gradient_attention"] = columns_K[keys.image_T].numpy()
        R_ST = chefer(attention, gradient, keys.image_T, crossing)
        found["chefer"] = R_ST[case.rows].mean(0).numpy()
    return {name: found[name] for name in methods if name in found}, notes


def image_tokens(model: Any, case: Answered) -> list[int]:
    """The keys that are image tokens: positions of the sequence, or keys of cross-attention."""
    return _keys(model, case).image_T


def _keys(model: Any, case: Answered) -> Keys:
    check_tokens(model)
    sizes = [image.size[::-1] for image in case.images]
    return keys_of(model, None, case.whole.inputs, case.whole.roles, sizes)


def _captured(model: Any, case: Answered, keys: Keys) -> tuple[dict[str, np.ndarray], list[str]]:
    word = Word(case.whole.answer, "answer", [row + 1 for row in case.rows], case.rows)
    inputs, notes = case.whole.inputs | {"use_cache": False}, []
    queries = len(case.whole.ids)
    try:
        capture = word_capture(model, keys, queries, [word], keys.layers)
        capture(**inputs)
    except AtlasError as error:
        if "do not request norms" not in str(error):
            raise
        notes.append(f"no norm-based attention: {str(error).removeprefix('capture: ')}")
        capture = word_capture(model, keys, queries, [word], keys.layers, norm=False)
        capture(**inputs)
    found = {}
    for statistic, name in (("rows", "attention"), ("norm_rows", "norm")):
        by_layer = capture.word_values[statistic]
        if by_layer:
            mean_LT = np.stack(
                [by_layer[n][:, 0, keys.image_T].mean(0).float().numpy() for n in sorted(by_layer)]
            )
            found[f"{name}_last"], found[name] = mean_LT[-1], mean_LT.mean(0)
    rollout = capture.word_values["rollout"]
    if rollout:
        found["rollout"] = rollout[max(rollout)][0].float().numpy()
    return found, notes


# Gradients -------------------------------------------------------------------------------------------


def attention_gradients(model: Any, case: Answered) -> tuple[list[Tensor], list[Tensor], list[bool]]:
    """(A, ∇A, whether it is cross-attention), lists over the modules of the language model in the order of
    the pass; tensors (H,S,S), or (H,S,K) with K keys of the images, on the CPU. y is the answer's
    log-probability."""
    decoder = decoder_layers(model)
    globs = [*decoder, "!vision"] if cross_layers(model) else ["decoder"]
    recorder = _WithGradient(Sites(model, globs, {}))
    with torch.enable_grad(), _frozen(model), captured_by(recorder, model):
        y = answer_log_probs(model, case.whole).sum()
        kept = list(recorder.weights.values())
        if not kept:
            raise AtlasError(
                f"{type(model).__name__}: no attention over the whole sequence passed through the capture; "
                "leave out the methods with gradients"
            )
        gradients = torch.autograd.grad(y, kept, allow_unused=True)
    zero = [torch.zeros_like(w) if g is None else g for w, g in zip(kept, gradients)]
    crossing = [recorder.sites.part(name) == "cross" for name in recorder.weights]
    return [w[0].detach().float().cpu() for w in kept], [g[0].float().cpu() for g in zero], crossing


class _WithGradient:
    """The recorder that computes attention of the language model from matrices that it keeps, by module."""

    def __init__(self, sites: Sites) -> None:
        self.sites = sites
        self.weights: dict[str, Tensor] = {}

    def wants(self, module: nn.Module) -> bool:
        known = id(module) in self.sites.names and self.sites.wanted(module)
        return known and self.sites.part(self.sites.site(module)[0]) in ("decoder", "cross")

    def residual_input(self, module: nn.Module, x: Tensor) -> None:
        pass

    def attend(self, call: AttentionCall) -> Tensor:
        name = self.sites.site(call.module)[0]
        crossing = self.sites.part(name) == "cross"
        if (call.q.shape[2] != call.k.shape[2] and not crossing) or name in self.weights:
            raise AtlasError(
                f"gradients: {name}: attends to a compressed sequence or several times in a pass; leave out "
                "the methods with gradients"
            )
        exact = call.factored().in_float32()
        weights = exact.weights()
        if not weights.requires_grad:  # the first layer's: nothing before it is differentiated
            weights = weights.detach().requires_grad_()
        self.weights[name] = weights
        return (weights @ exact.v).to(call.v.dtype)


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Disable gradients of parameters, which would keep the layers' inputs in memory."""
    free = [p for p in model.parameters() if p.requires_grad]
    for parameter in free:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in free:
            parameter.requires_grad_(True)


def gradient_attention(attention: Sequence[Tensor], gradient: Sequence[Tensor]) -> Tensor:
    """(S,): Σ over queries of (∇A ⊙ A)⁺ of each key, mean over layers and heads. Lists of (H,S,S)."""
    return torch.stack([(a * g).clamp(min=0).mean(0).sum(0) for a, g in zip(attention, gradient)]).mean(0)


def chefer(
    attention: Sequence[Tensor],
    gradient: Sequence[Tensor],
    keys: Sequence[int],
    crossing: Sequence[bool] | None = None,
) -> Tensor:
    """(S, len(keys)): the columns `keys` of R after the last layer. Lists over layers, (H,S,S).

    crossing: the layers that attend to other keys, (H,S,K), to which `keys` then refers. R from the sequence
    to them starts as 0, and a layer Ā of cross-attention adds normalised(R within the sequence)ᵀ Ā (eq. 10;
    the relevance among the keys themselves is I).
    """
    crossing = crossing or [False] * len(attention)
    R_SS = torch.eye(attention[0].shape[1])
    R_ST = R_SS.new_zeros(len(R_SS), len(keys)) if any(crossing) else R_SS[:, list(keys)]
    for a, g, cross in zip(attention, gradient, crossing):
        mean = (a * g).clamp(min=0).mean(0)
        if cross:
            R_ST = R_ST + normalised(R_SS).T @ mean[:, list(keys)]
        else:
            R_ST = R_ST + mean @ R_ST
            R_SS = R_SS + mean @ R_SS if any(crossing) else R_SS
    return R_ST


def normalised(R_SS: Tensor) -> Tensor:
    """I plus R − I with rows that sum to 1 (eq. 8 and 9); a row of 0 stays 0."""
    identity = torch.eye(len(R_SS))
    rest = R_SS - identity
    total = rest.sum(-1, keepdim=True)
    return identity + rest / torch.where(total > 0, total, 1)


# Orders ----------------------------------------------------------------------------------------------


def order_of(value_T: np.ndarray) -> np.ndarray:
    """Image tokens by decreasing relevance, ties by position."""
    return np.argsort(-np.asarray(value_T), kind="stable")


def centre_first(boxes_T4: np.ndarray, size_of: Callable[[int], tuple[int, int]]) -> np.ndarray:
    """Tokens by the distance of their box from the middle of their image, relative to its sides.

    size_of: token → (width, height) of its image. Tokens without a place come last."""
    away = []
    for t, (left, top, right, bottom) in enumerate(boxes_T4):
        width, height = size_of(t)
        away.append(np.hypot((left + right) / 2 / width - 0.5, (top + bottom) / 2 / height - 0.5))
    return np.argsort(np.array(away), kind="stable")
