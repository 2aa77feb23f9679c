"""How much each picture token matters for an answer, by several methods.

Rows are the positions that predict the answer; y = Σ log p of its tokens, teacher-forced, in nats; A is the
attention, ∇A = ∂y/∂A, (x)⁺ = max(x, 0). Axes: L layer, H head, S position (query or key), T picture token.

- attention_last, attention: A, mean over heads and rows, of the last layer / of all layers
- rollout: Abnar and Zuidema 2020, through all layers, mean over rows
- norm_last, norm: α·‖f(x)‖ in place of A (Kobayashi et al. 2020)
- gradient_attention: Σ over queries of (∇A ⊙ A)⁺, mean over heads and layers (as Barkan et al. 2021)
- chefer: R ← R + E_h[(∇A ⊙ A)⁺] R from R = I, layer by layer; mean over rows of R (Chefer et al. 2021,
  eq. 5 and 6: the rule for self-attention)

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

from attention_atlas.capture import role_groups
from attention_atlas.capture.routes import captured_by
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.sites import Sites
from attention_atlas.errors import AtlasError
from attention_atlas.interventions.answers import Answered, answer_log_probs
from attention_atlas.look.attend import WordCapture, decoder_layers
from attention_atlas.look.words import Word

CAPTURED = ("attention_last", "attention", "rollout", "norm_last", "norm")
GRADIENTS = ("gradient_attention", "chefer")
METHODS = (*CAPTURED, *GRADIENTS)


def relevance(
    model: Any, case: Answered, methods: Sequence[str] = METHODS
) -> tuple[dict[str, np.ndarray], list[str]]:
    """({method: (T,) relevance of the picture tokens, in their order}, notes on methods left out).

    Raises AtlasError for a model whose pictures are not tokens of the sequence.
    """
    picture_T = picture_tokens(model, case)
    found: dict[str, np.ndarray] = {}
    notes: list[str] = []
    if set(methods) & set(CAPTURED):
        found, notes = _captured(model, case, picture_T)
    if set(methods) & set(GRADIENTS):
        attention, gradient = attention_gradients(model, case)
        found["gradient_attention"] = gradient_attention(attention, gradient)[picture_T].numpy()
        R_ST = chefer(attention, gradient, picture_T)
        found["chefer"] = R_ST[case.rows].mean(0).numpy()
    return {name: found[name] for name in methods if name in found}, notes


def picture_tokens(model: Any, case: Answered) -> list[int]:
    """Positions of the picture."""
    decoder_layers(model)  # raises for an encoder-decoder
    sites = Sites(model, ["*"], {})
    inside = f"{sites.decoder_name()}." if sites.decoder_name() else ""
    for name in sites.modules:
        if name.startswith(inside) and name.endswith(("cross_attn", "crossattention")):
            raise AtlasError(
                f"{type(model).__name__}: reads pictures by cross-attention ({name}), not as tokens of the "
                "sequence; use a model whose pictures are tokens"
            )
    return [s for s, role in enumerate(case.whole.roles) if role == "image"]


def _captured(
    model: Any, case: Answered, picture_T: Sequence[int]
) -> tuple[dict[str, np.ndarray], list[str]]:
    word = Word(case.whole.answer, "answer", [row + 1 for row in case.rows], case.rows)
    groups, layers = role_groups([case.whole.roles]), decoder_layers(model)
    every = range(int(model.config.get_text_config().num_hidden_layers))
    inputs, notes = case.whole.inputs | {"use_cache": False}, []
    try:
        capture = WordCapture(model, layers, [word], groups, picture_T, every)
        capture(**inputs)
    except AtlasError as error:
        if "do not request norms" not in str(error):
            raise
        notes.append(f"no norm-based attention: {str(error).removeprefix('capture: ')}")
        capture = WordCapture(model, layers, [word], groups, picture_T, every, norm=False)
        capture(**inputs)
    found = {}
    for statistic, name in (("rows", "attention"), ("norm_rows", "norm")):
        by_layer = capture.word_values[statistic]
        if by_layer:
            mean_LT = np.stack(
                [by_layer[n][:, 0, picture_T].mean(0).float().numpy() for n in sorted(by_layer)]
            )
            found[f"{name}_last"], found[name] = mean_LT[-1], mean_LT.mean(0)
    rollout = capture.word_values["rollout"]
    found["rollout"] = rollout[max(rollout)][0].float().numpy()
    return found, notes


# Gradients -------------------------------------------------------------------------------------------


def attention_gradients(model: Any, case: Answered) -> tuple[list[Tensor], list[Tensor]]:
    """(A, ∇A), each a list over layers of (H,S,S) on the CPU. y is the answer's log-probability."""
    decoder_layers(model)
    recorder = _WithGradient(Sites(model, ["decoder"], {}))
    with torch.enable_grad(), _frozen(model), captured_by(recorder, model):
        y = answer_log_probs(model, case.whole).sum()
        kept = [recorder.weights[layer] for layer in sorted(recorder.weights)]
        if not kept:
            raise AtlasError(
                f"{type(model).__name__}: no attention over the whole sequence passed through the capture; "
                "leave out the methods with gradients"
            )
        gradients = torch.autograd.grad(y, kept, allow_unused=True)
    zero = [torch.zeros_like(w) if g is None else g for w, g in zip(kept, gradients)]
    return [w[0].detach().float().cpu() for w in kept], [g[0].float().cpu() for g in zero]


class _WithGradient:
    """The recorder that computes attention of the language model from matrices that it keeps."""

    def __init__(self, sites: Sites) -> None:
        self.sites = sites
        self.weights: dict[int, Tensor] = {}

    def wants(self, module: nn.Module) -> bool:
        return id(module) in self.sites.names and self.sites.wanted(module)

    def residual_input(self, module: nn.Module, x: Tensor) -> None:
        pass

    def attend(self, call: AttentionCall) -> Tensor:
        name, _, layer = self.sites.site(call.module)
        if call.q.shape[2] != call.k.shape[2] or layer in self.weights:
            raise AtlasError(
                f"gradients: {name}: attends to a compressed sequence or several times in a pass; leave out "
                "the methods with gradients"
            )
        exact = call.factored().in_float32()
        weights = exact.weights()
        if not weights.requires_grad:  # the first layer's: nothing before it is differentiated
            weights = weights.detach().requires_grad_()
        self.weights[layer] = weights
        return (weights @ exact.v).to(call.v.dtype)


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Without gradients of parameters, whose inputs would be kept for them."""
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


def chefer(attention: Sequence[Tensor], gradient: Sequence[Tensor], keys: Sequence[int]) -> Tensor:
    """(S, len(keys)): the columns `keys` of R after the last layer. Lists over layers, (H,S,S)."""
    R_ST = torch.eye(attention[0].shape[-1])[:, list(keys)]
    for a, g in zip(attention, gradient):
        R_ST = R_ST + (a * g).clamp(min=0).mean(0) @ R_ST
    return R_ST


# Orders ----------------------------------------------------------------------------------------------


def order_of(value_T: np.ndarray) -> np.ndarray:
    """Picture tokens by falling relevance, ties by position."""
    return np.argsort(-np.asarray(value_T), kind="stable")


def centre_first(boxes_T4: np.ndarray, size_of: Callable[[int], tuple[int, int]]) -> np.ndarray:
    """Tokens by the distance of their box from the middle of their picture, relative to its sides.

    size_of: token → (width, height) of its picture. Tokens without a place come last."""
    away = []
    for t, (left, top, right, bottom) in enumerate(boxes_T4):
        width, height = size_of(t)
        away.append(np.hypot((left + right) / 2 / width - 0.5, (top + bottom) / 2 / height - 0.5))
    return np.argsort(np.array(away), kind="stable")
