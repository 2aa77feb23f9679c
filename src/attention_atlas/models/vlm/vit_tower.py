"""A pretrained DINOv2-architecture ViT as the vision tower of LLaVA, in place of the CLIP trained here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.vlm.clip_tower import ClipTower
from attention_atlas.regions.backbone import Backbone, load_backbone

KIND = "dinov2"
# The towers trained here take values of -1..1 (models/vlm/images.py).
MEAN = STD = 0.5


class PooledDinov2(Dinov2Model):
    """Dinov2Model with fewer positions: all hidden states hold the class token, then the means of squares of
    `config.pool` x `config.pool` patches, row by row. An image has `config.image_size` pixels a side."""

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> Any:
        out = super().forward(pixel_values, **kwargs)
        out.last_hidden_state = self._pooled(out.last_hidden_state)
        if out.hidden_states is not None:
            out.hidden_states = tuple(self._pooled(h) for h in out.hidden_states)
        return out

    def _pooled(self, hidden_BSD: Tensor | None) -> Tensor | None:
        if hidden_BSD is None:  # a layer that LLaVA does not ask for
            return None
        config: Any = self.config
        side, pool = config.image_size // config.patch_size, config.pool
        cells = hidden_BSD[:, 1:].unflatten(1, (side // pool, pool, side // pool, pool))
        return torch.cat([hidden_BSD[:, :1], cells.mean((2, 4)).flatten(1, 2)], 1)


class VitTower:
    """`vision`: the PooledDinov2, for images of `image_size` pixels with values of -1..1. `sizes`: the
    arguments of its configuration and `model_type`. model, revision, digest, layers: as in `load_backbone`.

    Raises ConfigError for sizes that do not fit, AtlasError for a model of another architecture.
    """

    stem: tuple[int, ...] = ()

    def __init__(
        self,
        model: str,
        image_size: int,
        pool: int = 1,
        layers: int | None = None,
        digest: str | None = None,
        revision: str | None = None,
    ) -> None:
        backbone = load_backbone(model, revision, digest, layers)
        config = backbone.net.config
        if config.model_type != KIND:
            raise AtlasError(f"tower: '{model}' is a {config.model_type}; give a DINOv2-architecture ViT")
        cell = config.patch_size * pool
        if image_size % cell:
            raise ConfigError(
                f"tower: image_size: {image_size} is no multiple of {cell}, the pixels of {pool} x {pool} "
                "patches; change image_size or pool"
            )
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "patch_size")
        self.sizes: dict[str, Any] = {name: getattr(config, name) for name in names}
        self.sizes |= {"model_type": KIND, "image_size": image_size, "pool": pool, "use_mask_token": False}
        self.vision = PooledDinov2(vit_config(self.sizes))
        self.vision.load_state_dict(_fitted(backbone, image_size))
        self.vision.eval()


def is_vit(sizes: Mapping[str, Any]) -> bool:
    """Whether these are sizes of a PooledDinov2, not of a CLIP tower."""
    return sizes.get("model_type") == KIND


def vit_config(sizes: Mapping[str, Any]) -> Dinov2Config:
    return Dinov2Config(**{name: value for name, value in sizes.items() if name != "model_type"})


@torch.no_grad()
def _fitted(backbone: Backbone, image_size: int) -> dict[str, Tensor]:
    """Weights for images of `image_size` pixels with values of -1..1: positions are interpolated once, and
    the backbone's normalisation is folded into the patch projection."""
    weights = {name: value.clone() for name, value in backbone.net.state_dict().items()}
    weights.pop("embeddings.mask_token", None)
    patches = (image_size // backbone.patch) ** 2
    weights["embeddings.position_embeddings"] = backbone.net.embeddings.interpolate_pos_encoding(
        torch.empty(1, 1 + patches, backbone.dim), image_size, image_size
    )
    projection = "embeddings.patch_embeddings.projection"
    kernel_D3HW = weights[f"{projection}.weight"]
    mean_3, std_3 = torch.tensor(backbone.mean), torch.tensor(backbone.std)
    weights[f"{projection}.bias"] += torch.einsum("dchw,c->d", kernel_D3HW, (MEAN - mean_3) / std_3)
    weights[f"{projection}.weight"] = kernel_D3HW * (STD / std_3).view(3, 1, 1)
    return weights


def load_tower(given: str | Mapping[str, Any]) -> ClipTower | VitTower:
    """The tower that a run folder holds, or with these arguments of VitTower."""
    from attention_atlas.models.run_folder import load_run

    if isinstance(given, Mapping):
        return VitTower(**given)
    tower = load_run(given)[0]
    if not isinstance(tower, ClipTower):
        raise AtlasError(f"{given}: holds no ClipTower; train model=clip_tower there")
    return tower
