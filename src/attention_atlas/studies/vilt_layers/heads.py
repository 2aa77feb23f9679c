"""Importance of heads: loss and accuracy without one head, and accuracy as more and more heads are pruned.

A head is silenced by setting its slice of the attention output to 0 before the output projection (Michel,
Levy and Neubig 2019, section 2.2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attention_atlas.errors import AtlasError
from attention_atlas.measures.vqa_accuracy import vqa_accuracy
from attention_atlas.progress import progress

if TYPE_CHECKING:
    from attention_atlas.training.questions import QuestionBatches

Head = tuple[int, int]


@contextlib.contextmanager
def silenced(model: Any, heads: Iterable[Head]) -> Iterator[None]:
    """Run the model without these (layer, head); hooks are removed on exit."""
    layers = list(model.vilt.encoder.layer)
    of_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        count = layers[layer].attention.attention.num_attention_heads if layer < len(layers) else 0
        if not 0 <= layer < len(layers) or not 0 <= head < count:
            raise AtlasError(f"heads: layer {layer}, head {head}: the model has no such head; count from 0")
        of_layer.setdefault(layer, []).append(head)
    handles = []
    for layer, found in of_layer.items():
        size = layers[layer].attention.attention.attention_head_size

        def hook(
            _: Any, args: tuple[Any, ...], found: list[int] = found, size: int = size
        ) -> tuple[Any, ...]:
            context = args[0].clone()
            for head in found:
                context[..., head * size : (head + 1) * size] = 0
            return (context, *args[1:])

        handles.append(layers[layer].attention.output.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def judged(scores_BA: Tensor, target_BA: Tensor, data: QuestionBatches, indices: Sequence[int]) -> np.ndarray:
    """(B,2): official accuracy 0..1 of the best answer, and the loss (binary cross-entropy summed over
    answers).
    """
    loss_B = F.binary_cross_entropy_with_logits(scores_BA, target_BA, reduction="none").sum(-1)
    right = [
        vqa_accuracy(data.answers[best], data.examples[i].answers)
        for i, best in zip(indices, scores_BA.argmax(-1).tolist())
    ]
    return np.stack([np.asarray(right), loss_B.double().cpu().numpy()], -1)


@torch.no_grad()
def silence_each(model: Any, data: QuestionBatches, batch_size: int, device: str) -> dict[str, np.ndarray]:
    """`whole` (N,2) and `without` (N,L,H,2) [accuracy, loss] of every question with all heads, and without
    one.

    The input of each layer is computed once: silencing a head of layer l changes nothing before it.
    """
    layers = len(model.vilt.encoder.layer)
    heads = model.vilt.config.num_attention_heads
    whole, without = np.zeros((len(data), 2)), np.zeros((len(data), layers, heads, 2))
    for indices in progress(data.in_order(batch_size), "silence each head"):
        batch = {k: v.to(device) for k, v in data.batch(indices).items()}
        x_BSD, mask_BS, _ = model.embed(batch)
        inputs = [x_BSD]
        for layer in range(layers):
            inputs.append(model.run_layer(inputs[-1], mask_BS, layer))
        target_BA = batch["target_BA"]
        whole[indices] = judged(model.score(model.vilt.layernorm(inputs[-1])), target_BA, data, indices)
        for layer in range(layers):
            for head in range(heads):
                with silenced(model, [(layer, head)]):
                    scores = model.score(model.run_layers(inputs[layer], mask_BS, layer))
                without[indices, layer, head] = judged(scores, target_BA, data, indices)
    return {"whole": whole, "without": without}


def importance(found: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(N,L,H) decrease of the accuracy and (N,L,H) increase of the loss without each head."""
    difference = found["without"] - found["whole"][:, None, None]
    return -difference[..., 0], difference[..., 1]


def order_of(importance_LH: np.ndarray) -> list[Head]:
    """Heads from the least to the most important; ties in order of layer and head."""
    flat = np.argsort(importance_LH.ravel(), kind="stable")
    return [(int(i) // importance_LH.shape[1], int(i) % importance_LH.shape[1]) for i in flat]


@torch.no_grad()
def pruned(
    model: Any,
    data: QuestionBatches,
    orders: Sequence[Sequence[Head]],
    steps: Sequence[int],
    batch_size: int,
    device: str,
) -> np.ndarray:
    """(orders, N, steps) accuracy with the first 0, ... heads of each order silenced. Words and images are
    embedded once for all of them."""
    out = np.zeros((len(orders), len(data), len(steps)))
    for indices in progress(data.in_order(batch_size), "prune heads"):
        batch = {k: v.to(device) for k, v in data.batch(indices).items()}
        x_BSD, mask_BS, _ = model.embed(batch)
        for row, order in enumerate(orders):
            for column, count in enumerate(steps):
                with silenced(model, order[:count]):
                    scores = model.score(model.run_layers(x_BSD, mask_BS))
                out[row, indices, column] = judged(scores, batch["target_BA"], data, indices)[:, 0]
    return out
