"""Attention of a large language model on a GPU: flash, ours in one pass, eager; one layer and whole models.

    python benchmarks/capture_cuda.py attention --shapes 7B 13B grouped --lengths 640 2048 8192 16384
    python benchmarks/capture_cuda.py model --shapes 7B --lengths 640 2048 8192 16384 --json rows.json

Random weights in bfloat16, causal, batch 1; groups as in LLaVA-1.5: BOS, image (nine tenths), text. The ways
of a table alternate in one process; times are medians by CUDA events (of one layer: of a CUDA graph, without
the CPU's part), memory is the allocator's peak. `model` also gives the time on the GPU alone, and compares
the logits of each way with the plain model's.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from attention_atlas.capture import Capture, Groups
from attention_atlas.capture.backends import compute
from attention_atlas.capture.one_pass import from_kernel
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.want import Want

# LLaVA-1.5's language models (Vicuna 7B and 13B); `grouped` has the heads of Llama 3 8B and Mistral 7B.
SIZES = "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"
SHAPES = {
    "7B": (4096, 11008, 32, 32, 32),
    "13B": (5120, 13824, 40, 40, 40),
    "grouped": (4096, 14336, 32, 32, 8),
    "tiny": (64, 96, 2, 4, 2),
}
MASS, BOTH = ["mass"], ["mass", "entropy"]
Ways = dict[str, Callable[[], Any]]


def roles(length: int) -> Groups:
    at = torch.arange(length)
    image = (at > 0) & (at <= length * 9 // 10)
    return Groups(["bos", "image", "text"], torch.stack([at == 0, image, (at > 0) & ~image], -1)[None])


def one_layer(shape: str, length: int, device: str) -> Ways:
    """One causal attention call; all ways but the first also return the statistics they name."""
    hidden_size, _, _, heads, key_heads = SHAPES[shape]
    width = hidden_size // heads

    def noise(n: int) -> torch.Tensor:
        return torch.randn(1, length, n, width, device=device, dtype=torch.bfloat16).transpose(1, 2)

    q, k, v = noise(heads), noise(key_heads), noise(key_heads)
    call = AttentionCall(nn.Module(), q, k, v, is_causal=True)
    member = roles(length).member_BKG.to(device)
    hidden = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)

    def default() -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=key_heads < heads)

    def flash() -> torch.Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION if device == "cuda" else SDPBackend.MATH):
            return default()

    def one_pass(names: list[str], context: bool = True) -> Any:
        return from_kernel(call, Want(frozenset(names), member_BKG=member), None, context)

    def beside(names: list[str]) -> Any:
        return flash(), one_pass(names, False)

    def passes() -> Any:
        # As used for a type or statistic that the kernel does not support.
        return flash(), compute(call.factored(), Want(frozenset(BOTH), member_BKG=member), None, "fused")

    def eager() -> Any:
        full = call.factored()
        score = (full.q @ full.k.mT * width**-0.5).masked_fill_(hidden, float("-inf"))
        attn = torch.softmax(score, -1, dtype=torch.float32).to(q.dtype)
        return attn @ full.v, attn @ member[:, None].to(q.dtype)

    return {
        "flash": flash,
        "default sdpa": default,
        "one pass, mass": lambda: one_pass(MASS),
        "one pass, mass and entropy": lambda: one_pass(BOTH),
        "flash and our kernel, mass": lambda: beside(MASS),
        "flash and our kernel, mass and entropy": lambda: beside(BOTH),
        "flash and fused passes, mass and entropy": passes,
        "eager, whole matrix, mass": eager,
    }


def build(shape: str, device: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            sizes: dict[str, Any] = {
                "vocab_size": 32000,
                "max_position_embeddings": 32768,
                "use_cache": False,
            }
            config = LlamaConfig(**sizes, **dict(zip(SIZES, SHAPES[shape])))
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def whole_model(model: Any, length: int) -> Ways:
    """Each way returns its logits; statistics of all layers are on the CPU at the end."""
    ids = torch.randint(3, 32000, (1, length), generator=torch.Generator().manual_seed(0)).to(model.device)
    groups = roles(length)
    member = groups.member_BKG.to(model.device, torch.bfloat16)

    def plain(implementation: str = "sdpa", **more: Any) -> Any:
        if model.config._attn_implementation != implementation:
            model.set_attn_implementation(implementation)
        with torch.no_grad():
            return model(input_ids=ids, **more)

    def eager() -> Any:
        output = plain("eager", output_attentions=True)
        torch.stack([attn @ member[:, None] for attn in output.attentions]).float().cpu()
        return output.logits

    def captured(names: list[str], backend: str) -> Callable[[], Any]:
        capture = Capture(model, names, groups=groups, backend=backend)
        return lambda: capture.run(plain).output.logits

    return {
        "plain sdpa": lambda: plain().logits,
        "capture, mass": captured(MASS, "auto"),
        "capture, mass and entropy": captured(BOTH, "auto"),
        "capture one_pass, mass": captured(MASS, "one_pass"),
        "capture one_pass, mass and entropy": captured(BOTH, "one_pass"),
        "eager, output_attentions, mass": eager,
    }


def measure(ways: Ways, rounds: int, device: str, graphs: bool) -> dict[str, dict[str, float]]:
    """{way: ms, gpu ms, peak MiB (all that is allocated), extra MiB (above what was allocated before)}.

    One unmeasured call compiles and checks; a way that does not fit into memory is left out. graphs: time the
    replay of a CUDA graph, so that the work of the CPU does not count; else gpu ms is the kernels' total.
    """
    found: dict[str, dict[str, float]] = {}
    runs: Ways = {}
    for name, way in ways.items():
        try:
            way()
            found[name] = memory(way, device)
            runs[name] = recorded(way) if graphs and device == "cuda" else way
            if not graphs:
                found[name]["gpu ms"] = kernels(way)
        except RuntimeError as error:  # out of memory is one
            print(f"{name}: left out: {str(error)[:90]}", flush=True)
            found.pop(name, None)
        if device == "cuda":
            torch.cuda.empty_cache()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            took = elapsed(run, device)
            if turn:
                times[name].append(took)
    for name, values in times.items():
        found[name]["ms"] = statistics.median(values)
    return found


def memory(way: Callable[[], Any], device: str) -> dict[str, float]:
    if device == "cpu":
        way()
        return {"peak": 0.0, "extra": 0.0}
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    way()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    return {"peak": peak / 2**20, "extra": (peak - before) / 2**20}


def recorded(way: Callable[[], Any]) -> Callable[[], Any]:
    torch.cuda.empty_cache()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        way()
    return graph.replay


def kernels(way: Callable[[], Any]) -> float:
    """Milliseconds that all kernels and copies of one call take on the GPU."""
    if not torch.cuda.is_available():
        return 0.0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        way()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1000


def elapsed(run: Callable[[], Any], device: str) -> float:
    if device == "cpu":
        run()
        return 0.0
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def print_table(title: str, costs: dict[str, dict[str, float]]) -> None:
    """Ratios are to the first way."""
    first = next(iter(costs.values()))
    columns = [name for name in ("ms", "gpu ms", "peak", "extra") if name in first]

    def cells(cost: dict[str, float]) -> str:
        ratios = (f"{cost[name] / first[name]:.2f}" if first[name] else "–" for name in columns)
        return " | ".join(f"{cost[name]:.3f} | {ratio}" for name, ratio in zip(columns, ratios))

    heads = "".join(f" {name} | × |" for name in columns)
    print(f"\n{title}\n\n| way |{heads} logits |\n|{'---|' * (2 * len(columns) + 2)}")
    for name, cost in costs.items():
        logits = {None: "", 0.0: "equal"}.get(cost.get("logits"), f"≤ {cost.get('logits', 0):.3g}")
        print(f"| {name} | {cells(cost)} | {logits} |", flush=True)


def compared(ways: Ways, costs: dict[str, dict[str, float]]) -> None:
    """Add the largest difference of logits to the first way's."""
    first, *names = costs
    plain = ways[first]()
    for name in names:
        costs[name]["logits"] = float((ways[name]() - plain).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["attention", "model"])
    parser.add_argument("--shapes", nargs="+", default=["7B"], choices=SHAPES)
    parser.add_argument("--lengths", type=int, nargs="+", default=[640, 2048, 8192, 16384])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", help="words that a way's name must contain one of")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="also write all numbers there")
    args = parser.parse_args()
    where = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    print(f"{where}, torch {torch.__version__}, {args.part}", flush=True)
    rows: list[dict[str, Any]] = []
    for shape in args.shapes:
        model = build(shape, args.device) if args.part == "model" else None
        for length in args.lengths:
            ways = whole_model(model, length) if model else one_layer(shape, length, args.device)
            if args.only:
                ways = {n: way for n, way in ways.items() if any(word in n for word in args.only)}
            costs = measure(ways, args.rounds, args.device, graphs=model is None)
            if model:
                compared(ways, costs)
            print_table(f"{shape}, S = {length}", costs)
            rows += [
                {"part": args.part, "shape": shape, "S": length, "way": n, **c} for n, c in costs.items()
            ]
            if args.json:
                args.json.write_text(json.dumps({"device": where, "torch": torch.__version__, "rows": rows}))
            del ways
            if args.device == "cuda":
                torch.cuda.empty_cache()
        del model


if __name__ == "__main__":
    main()
