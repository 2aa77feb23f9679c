"""Models that see images only (ViT, DINOv2, CLIP's and SigLIP's towers): inputs, tokens, places."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch

from attention_atlas.capture.box_families import grid_boxes, seen_region
from attention_atlas.capture.boxes import clipped
from attention_atlas.errors import AtlasError, ConfigError, loading
from attention_atlas.look.keys import Keys
from attention_atlas.regions.backbone import Backbone, load_backbone

# SigLIP's pooling has a separate query, which is not a position of the sequence.
GLOBS = ["vision", "!head.*"]
PATCHES = 28  # along the shorter side, for a model without an image processor


class Vision:
    """net: a transformers model whose sequence ends with one token per patch, row by row. processor: its
    image processor; None for ImageNet's normalisation, with the shorter side resized to 28 patches."""

    def __init__(self, net: Any, processor: Any = None) -> None:
        self.net, self.processor = net.eval(), processor
        patch = getattr(net.config, "patch_size", None)
        patch = patch[0] if isinstance(patch, list | tuple) and len(set(patch)) == 1 else patch
        if not isinstance(patch, int):
            raise AtlasError(f"{type(net).__name__}: config.patch_size: is {patch}; give a ViT")
        self.patch = patch
        self._first: list[str] | None = None

    def scene(self, image: Any) -> tuple[dict[str, Any], Keys]:
        """(inputs of the model, the positions of its sequence as keys). Raises AtlasError for a model whose
        sequence is not one grid of patches."""
        inputs = self._inputs(image)
        pixels = inputs["pixel_values"]
        if pixels.ndim != 4:
            raise AtlasError(f"{type(self.net).__name__}: its images are not one grid of patches; give a ViT")
        rows, columns = (side // self.patch for side in pixels.shape[2:])
        if self._first is None:
            self._first = self._before_patches(inputs, rows * columns)
        size = image.size[::-1]
        region = (0.0, 0.0, float(image.width), float(image.height))
        if self.processor is not None:
            region = seen_region(size, self.processor)
        boxes_T4 = clipped(grid_boxes(rows, columns, region), size)
        nowhere_N4 = torch.full((len(self._first), 4), float("nan"))
        roles = [*self._first, *["image"] * len(boxes_T4)]
        return inputs, Keys(
            cross=False,
            globs=GLOBS,
            layers=list(range(int(self.net.config.num_hidden_layers))),
            roles=roles,
            names=[],
            boxes_K4=torch.cat([nowhere_N4, boxes_T4]).numpy(),
            image_K=np.where(np.array(roles) == "image", 0, -1),
            reason="",
        )

    def _inputs(self, image: Any) -> dict[str, Any]:
        if self.processor is None:
            pixels = Backbone(self.net, self.patch).pixels([image], PATCHES * self.patch)
        else:
            with loading(f"{type(self.processor).__name__}: image", "give the model's own image processor"):
                pixels = self.processor(images=image, return_tensors="pt")["pixel_values"]
        inputs: dict[str, Any] = {"pixel_values": pixels.to(self.net.device, self.net.dtype)}
        usual = getattr(self.net.config, "image_size", None)
        # DINOv2 interpolates its position embeddings always, ViT on request.
        on_request = "interpolate_pos_encoding" in inspect.signature(self.net.forward).parameters
        if on_request and tuple(pixels.shape[2:]) != (usual, usual):
            inputs["interpolate_pos_encoding"] = True
        return inputs

    def _before_patches(self, inputs: dict[str, Any], patches: int) -> list[str]:
        """Roles of the positions before the patches, inferred from their number."""
        with torch.no_grad(), loading(type(self.net).__name__, "give a ViT and its own image processor"):
            length = self.net(**inputs).last_hidden_state.shape[1]
        registers = int(getattr(self.net.config, "num_register_tokens", 0) or 0)
        others = length - patches - registers - 1
        if length == patches:
            return []
        if others < 0:
            raise AtlasError(
                f"{type(self.net).__name__}: has {length} positions for {patches} patches; give a ViT, whose "
                "sequence holds every patch"
            )
        return ["class", *["register"] * registers, *["special"] * others]


def is_vision(name: str) -> bool:
    """Whether a hub id, folder or ONNX file is a model for images only, by its configuration."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    from attention_atlas.look.load import REMEDY

    if name.endswith(".onnx"):
        return True
    with loading(f"MODEL: '{name}'", REMEDY):
        config = AutoConfig.from_pretrained(name)
    if type(config) in AutoModelForImageTextToText._model_mapping:
        return False
    return hasattr(config, "patch_size") or hasattr(getattr(config, "vision_config", None), "patch_size")


def load_vision(name: str, device: str = "auto", dtype: str = "auto") -> Vision:
    """A vision model, or the vision tower of one for images and texts (CLIP, SigLIP).

    name: hub id, folder, or an ONNX export of DINOv2 (a path or `package:NAME/FILE.onnx`). device, dtype: as
    `load`. Raises ConfigError for a model that cannot be loaded or has no patches.
    """
    from transformers import AutoModel
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    from attention_atlas.devices import resolve_device
    from attention_atlas.models.vlm.hub import resolved_precision

    found = resolve_device(device)
    weights, eight_bit = resolved_precision(dtype, found)
    if eight_bit:
        raise ConfigError("--dtype: 8bit is not for vision models; use auto")
    processor: Any = None
    if name.endswith(".onnx"):
        net = load_backbone(name).net
    else:
        with loading(f"MODEL: '{name}'", "give a vision model with its image processor"):
            processor = AutoImageProcessor.from_pretrained(name, backend="pil")
            net = AutoModel.from_pretrained(name)
        net = getattr(net, "vision_model", net)
    return Vision(net.to(found, weights), processor)
