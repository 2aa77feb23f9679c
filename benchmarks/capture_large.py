"""Layers of a large language model with random weights: plain, with capture, and with eager attention.

    python benchmarks/capture_large.py --layers 1 4 --lengths 640 2048
    python benchmarks/capture_large.py --device cuda --dtype bfloat16 --shape 13B --largest

All ways except plain compute statistics: mass of 8 groups and entropy for every layer, head and query.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from capture_timing import alternate, print_table

from attention_atlas.capture import Capture, Groups

# LLaVA-1.5's language models (Vicuna 7B and 13B).
SHAPES = {
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32},
    "13B": {"hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40},
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4},
}
GROUPS = 8


def build(shape: str, layers: int, device: str, dtype: torch.dtype) -> Any:
    from transformers import LlamaConfig, LlamaModel

    sizes: dict[str, Any] = {"vocab_size": 1000, "num_hidden_layers": layers, **SHAPES[shape]}
    config = LlamaConfig(use_cache=False, **sizes)
    torch.manual_seed(0)
    with torch.device(device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return LlamaModel(config).eval()
        finally:
            torch.set_default_dtype(before)


def ways(model: Any, length: int) -> dict[str, Any]:
    device = model.device
    ids = torch.randint(0, 1000, (1, length), generator=torch.Generator().manual_seed(0)).to(device)
    label = torch.arange(length) * GROUPS // length
    groups = Groups([f"g{i}" for i in range(GROUPS)], torch.nn.functional.one_hot(label, GROUPS)[None])
    member = groups.member_BKG[0].to(device)

    def implementation(name: str) -> None:
        if model.config._attn_implementation != name:
            model.set_attn_implementation(name)

    def plain() -> None:
        implementation("sdpa")
        with torch.no_grad():
            model(input_ids=ids)

    def captured(backend: str) -> Any:
        def run() -> None:
            implementation("sdpa")
            # Without the checks of the first pass: measure the steady state.
            capture = Capture(model, ["mass", "entropy"], groups=groups, backend=backend, check=False)
            capture(input_ids=ids)

        return run

    def eager() -> None:
        implementation("eager")
        with torch.no_grad():
            attentions = model(input_ids=ids, output_attentions=True).attentions
            for attn in attentions:
                attn = attn.float()
                attn @ member.float()
                -torch.xlogy(attn, attn).sum(-1)

    found = {
        "plain sdpa": plain,
        "fused capture": captured("fused"),
        "materialised capture": captured("materialised"),
        "eager, output_attentions": eager,
    }
    other = nnsight_way(model, ids, member, implementation)
    return found | ({"nnsight on eager": other} if other else {})


def nnsight_way(model: Any, ids: torch.Tensor, member: torch.Tensor, implementation: Any) -> Any:
    """The same statistics with nnsight's tracing of the eager model, when it is installed."""
    try:
        from nnsight import NNsight
    except ImportError:
        return None
    traced: Any = NNsight(model)

    def run() -> None:
        kept: list[Any] = []
        implementation("eager")
        with torch.no_grad(), traced.trace(input_ids=ids, output_attentions=True):
            for layer in traced.layers:
                attn: Any = layer.self_attn.output[1].float()
                entropy: Any = -torch.xlogy(attn, attn).sum(-1)
                kept += [(attn @ member.float()).save(), entropy.save()]

    return run


def largest(shape: str, device: str, dtype: torch.dtype) -> None:
    """The longest input, in steps of 1.5, that fits into memory for each way."""
    model = build(shape, 1, device, dtype)
    for name in ways(model, 16):
        length, survived = 512, 0
        while length < 2**18:
            try:
                ways(model, length)[name]()
            except (torch.OutOfMemoryError, RuntimeError):
                break
            survived, length = length, int(length * 1.5) // 16 * 16
            torch.cuda.empty_cache()
        print(f"| {shape}, {name} | largest S: {survived} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="7B", choices=SHAPES)
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--lengths", type=int, nargs="+", default=[640, 2048])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--largest", action="store_true")
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.device}, {args.threads} thread(s), {args.dtype}")
    for layers in args.layers:
        model = build(args.shape, layers, args.device, dtype)
        for length in args.lengths:
            found = ways(model, length)
            title = f"{args.shape} shape, {layers} layer(s), S = {length}"
            print_table(title, alternate(found, args.rounds, args.device))
        del model
    if args.largest:
        largest(args.shape, args.device, dtype)


if __name__ == "__main__":
    main()
