"""Image encoders of the DAMSM: from an image to regions and a global vector, in the space of the words.

`ImageEncoder` is a small CNN trained from scratch with the DAMSM. The other two use a frozen pretrained
network and train only the two projections: `InceptionEncoder` the paper's Inception-v3 by path,
`BackboneEncoder` a network of transformers by path or hub id. `reads` is the required side of the images
(None: any).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import AtlasError, ConfigError, first_line


class ImageEncoder(nn.Module):
    """pixels (B,3,S,S) in -1..1 -> regions (B,N,D), N = side², in raster order, and the global vector (B,D).

    size: S, a power of two times `side`; channels: of the first layer, doubled at each halving of the side up
    to four times.
    """

    def __init__(self, dim: int, size: int = 32, side: int = 8, channels: int = 32) -> None:
        super().__init__()
        halvings = (size // side).bit_length() - 1 if side else 0
        if side < 2 or side * 2**halvings != size:
            raise ConfigError(f"ImageEncoder: size: {size} must be side ({side}) times a power of two")
        self.size, self.side = size, side
        self.reads: int | None = size
        wide = channels
        layers: list[nn.Module] = [_conv(3, wide, 1)]
        for _ in range(halvings):
            more = min(2 * wide, 4 * channels)
            layers.append(_conv(wide, more, 2))
            wide = more
        self.trunk = nn.Sequential(*layers, _conv(wide, wide, 1))
        self.whole = nn.Sequential(_conv(wide, wide, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.region = nn.Linear(wide, dim)
        self.sentence = nn.Linear(wide, dim)

    def forward(self, pixels_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        if pixels_BCSS.shape[-1] != self.size:
            raise AtlasError(
                f"ImageEncoder: size: {self.size}, but images have {pixels_BCSS.shape[-1]} pixels; "
                "use the same size for the DAMSM and its tasks"
            )
        found_BCHW = self.trunk(pixels_BCSS)
        regions_BND = self.region(found_BCHW.flatten(2).transpose(1, 2))
        return regions_BND, self.sentence(self.whole(found_BCHW))


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.2, inplace=True),
    )


class InceptionEncoder(nn.Module):
    """Like ImageEncoder, with a frozen Inception-v3 (Xu et al. 2018, section 3.2): images of any size are
    scaled to 299 pixels; the regions are the 17 × 17 × 768 outputs of block Mixed_6e, the global vector is
    the last pooling (2,048).

    weights: the file described in `models/inception.py`: the 2015 network on which FID is defined, in
    torch-fidelity's layers. The released code uses torchvision's weights of the same architecture. Raises
    AtlasError as `read_network` does.
    """

    reads = None
    SIZE = 299

    def __init__(self, dim: int, weights: str) -> None:
        super().__init__()
        from attention_atlas.models.inception import read_network

        blocks = dict(read_network(weights).named_children())
        last = list(blocks).index("Mixed_6e") + 1
        self.inner = nn.Sequential(*list(blocks.values())[:last])
        self.outer = nn.Sequential(*(m for name, m in list(blocks.items())[last:] if name != "fc"))
        self.region, self.sentence = nn.Linear(768, dim, bias=False), nn.Linear(2048, dim)
        for layer in (self.region, self.sentence):
            nn.init.uniform_(layer.weight, -0.1, 0.1)  # as the released code

    def train(self, mode: bool = True) -> InceptionEncoder:
        """Keeps batch statistics frozen."""
        super().train(mode)
        self.inner.eval()
        self.outer.eval()
        return self

    def forward(self, pixels_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        scaled = F.interpolate(pixels_BCSS, (self.SIZE, self.SIZE), mode="bilinear", align_corners=False)
        inner_BCHW = self.inner((scaled * 127.5 - 0.5) / 128)  # a byte x goes in as (x - 128) / 128
        outer_BC = self.outer(inner_BCHW).flatten(1)
        return self.region(inner_BCHW.flatten(2).transpose(1, 2)), self.sentence(outer_BC)


class BackboneEncoder(nn.Module):
    """Like ImageEncoder, with a frozen convolutional network of transformers (`weights`: hub id or folder,
    such as microsoft/resnet-50).

    size: images are scaled to it. The regions are the second-to-last stage, the global vector is the mean
    of the last. Raises AtlasError if the weights cannot be loaded or belong to another kind of network.
    """

    reads = None
    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, dim: int, weights: str, size: int = 224) -> None:
        super().__init__()
        from transformers import AutoModel

        try:
            self.backbone = AutoModel.from_pretrained(weights)
            inner, outer = self.backbone.config.hidden_sizes[-2:]
        except (OSError, ValueError, AttributeError) as error:
            known = "" if Path(weights).exists() else " (no such folder)"
            raise AtlasError(
                f"BackboneEncoder: weights: '{weights}'{known}: {first_line(error)}; give the hub "
                f"id "
                "or folder of a convolutional network of transformers, such as a ResNet"
            ) from None
        self.backbone.requires_grad_(False)
        self.size = size
        self.region, self.sentence = nn.Linear(inner, dim), nn.Linear(outer, dim)
        # The normalisation of ImageNet networks.
        self.register_buffer("mean_C11", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std_C11", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def train(self, mode: bool = True) -> BackboneEncoder:
        """Keeps batch statistics frozen."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, pixels_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        scaled = F.interpolate(pixels_BCSS, (self.size, self.size), mode="bilinear", align_corners=False)
        normal = ((scaled + 1) / 2 - self.mean_C11) / self.std_C11
        inner_BCHW, outer_BCHW = self.backbone(normal, output_hidden_states=True).hidden_states[-2:]
        return self.region(inner_BCHW.flatten(2).transpose(1, 2)), self.sentence(outer_BCHW.mean((2, 3)))
