"""A LLaVA with planted weights: its answer depends on whether one patch is white, and on nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import look_tiny
import numpy as np
import torch

from attention_atlas.look.load import load

SIDE, PATCH = look_tiny.SIZE // look_tiny.PATCH, look_tiny.PATCH
ANSWER = "red"
LAST = look_tiny.LLAMA["num_hidden_layers"] - 1


def image(white: int | None) -> Any:
    """A grey square with one white patch, counted row by row, or none."""
    from PIL import Image

    pixels = np.full((look_tiny.SIZE, look_tiny.SIZE, 3), 128, dtype=np.uint8)
    if white is not None:
        top, left = white // SIDE * PATCH, white % SIDE * PATCH
        pixels[top : top + PATCH, left : left + PATCH] = 255
    return Image.fromarray(pixels)


@torch.no_grad()
def planted(folder: Path, blind: bool = False) -> tuple[Any, Any]:
    """(model, processor). Head 0 of the last layer attends to a white patch and carries it to the answer, all
    other heads attend uniformly and carry nothing. blind: the image tokens are all the same."""
    model, processor = load(str(look_tiny.llava(folder)), "cpu", "float32")
    for name, parameter in model.named_parameters():
        parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    tower, text = model.model.vision_tower, model.model.language_model
    tower = getattr(tower, "vision_model", tower)
    # Patch: brightness and its negative, and a constant that dominates the layer norm.
    tower.embeddings.patch_embedding.weight[0] = 1 / (3 * PATCH**2)
    tower.embeddings.patch_embedding.weight[1] = -1 / (3 * PATCH**2)
    tower.embeddings.position_embedding.weight[:, 2] = 20.0
    tower.embeddings.position_embedding.weight[:, 3] = -20.0
    # Above the threshold, dimension 0 of the token is about 1. Dimension 1 is a constant, as in words.
    projector = model.model.multi_modal_projector
    projector.linear_1.weight[0, 0], projector.linear_1.bias[0] = 100.0, -15.0
    projector.linear_2.weight[0, 0], projector.linear_2.bias[1] = 0.0 if blind else 0.07, 1.0
    text.embed_tokens.weight[:, 1] = 1.0
    attention = text.layers[LAST].self_attn
    attention.q_proj.weight[1, 1], attention.k_proj.weight[1, 0] = 2.0, 2.0
    attention.v_proj.weight[0, 0], attention.o_proj.weight[2, 0] = 1.0, 1.0
    for token in processor.tokenizer(ANSWER, add_special_tokens=False)["input_ids"]:
        model.lm_head.weight[token, 2] = 3.0
    return model, processor
