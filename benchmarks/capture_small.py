"""Small models, where the overhead of every call counts: ViLT base and the mini captioner.

python benchmarks/capture_small.py
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from capture_timing import alternate, print_table

from attention_atlas.capture import Capture, Groups


def vilt() -> tuple[Any, dict[str, Any], dict[str, Groups]]:
    """ViLT base at 384 × 384: 12 layers, 12 heads, 40 text and 145 image tokens."""
    from transformers import ViltConfig, ViltModel

    torch.manual_seed(0)
    model = ViltModel(ViltConfig(max_image_length=-1)).eval()
    inputs = {"input_ids": torch.randint(0, 30000, (1, 40)), "pixel_values": torch.randn(1, 3, 384, 384)}
    return model, inputs, {"*": eighths(185)}


def captioner() -> tuple[Any, dict[str, Any], dict[str, Groups]]:
    """The mini object relation transformer: 6 + 6 layers, 8 heads, dim 128; 16 texts, 36 regions."""
    from attention_atlas.models.object_relation import ObjectRelationTransformer

    torch.manual_seed(0)
    model = ObjectRelationTransformer(800, 256, dim=128, inner=512).eval()
    batch = {
        "ids_BT": torch.randint(4, 800, (16, 72)),
        "features_BND": torch.randn(16, 36, 256),
        "boxes_BN4": torch.rand(16, 36, 4).sort(-1).values,
        "regions_BN": torch.ones(16, 36, dtype=torch.bool),
    }
    groups = {"decoder_self": eighths(71), "*": eighths(36)}
    return model, {"batch": batch}, groups


def eighths(length: int) -> Groups:
    member = torch.nn.functional.one_hot(torch.arange(length) * 8 // length, 8)[None]
    return Groups([f"g{i}" for i in range(8)], member)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, cpu, {args.threads} thread(s), float32")
    for build in (vilt, captioner):
        model, inputs, groups = build()

        def plain(model: Any = model, inputs: dict[str, Any] = inputs) -> None:
            with torch.no_grad():
                model(**inputs)

        ways: dict[str, Any] = {"plain": plain}
        for backend in ("auto", "fused", "materialised"):
            capture = Capture(model, ["mass", "entropy"], groups=groups, backend=backend, check=False)
            ways[f"{backend} capture"] = lambda capture=capture, inputs=inputs: capture(**inputs)
        print_table((build.__doc__ or "").strip(), alternate(ways, args.rounds, "cpu"))


if __name__ == "__main__":
    main()
