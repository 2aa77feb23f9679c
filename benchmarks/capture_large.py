"""Layers of a large language model with random weights: plain, with capture, and with eager attention.

    python benchmarks/capture_large.py --layers 1 4 --lengths 640 2048
    python benchmarks/capture_large.py --shape small --layers 32
    python benchmarks/capture_large.py --device cuda --dtype bfloat16 --shape 13B --largest

All ways except plain compute statistics: mass of 8 groups and entropy for every layer, head and query.
nnsight and TransformerLens take part if they are installed.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
from functools import partial
from typing import Any

import torch
from capture_timing import alternate, print_table

from attention_atlas.capture import Capture, Groups

# LLaVA-1.5's language models (Vicuna 7B and 13B).
SHAPES = {
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32},
    "13B": {"hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40},
    "small": {"hidden_size": 512, "intermediate_size": 1376, "num_attention_heads": 8},
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4},
}
GROUPS = 8


def build(shape: str, layers: int, device: str, dtype: torch.dtype) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"vocab_size": 1000, "num_hidden_layers": layers, **SHAPES[shape]}
    config = LlamaConfig(use_cache=False, **sizes)
    torch.manual_seed(0)
    with torch.device(device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return LlamaForCausalLM(config).eval()
        finally:
            torch.set_default_dtype(before)


def ways(model: Any, length: int, others: dict[str, Any]) -> dict[str, Any]:
    """{name: function that runs the model on `length` tokens and returns its logits}."""
    device = model.device
    ids = torch.randint(0, 1000, (1, length), generator=torch.Generator().manual_seed(0)).to(device)
    label = torch.arange(length) * GROUPS // length
    groups = Groups([f"g{i}" for i in range(GROUPS)], torch.nn.functional.one_hot(label, GROUPS)[None])
    member = groups.member_BKG[0].to(device)

    def implementation(name: str) -> None:
        if model.config._attn_implementation != name:
            model.set_attn_implementation(name)

    def plain() -> torch.Tensor:
        implementation("sdpa")
        with torch.no_grad():
            return model(input_ids=ids, use_cache=False).logits

    def captured(backend: str) -> Any:
        def run() -> torch.Tensor:
            implementation("sdpa")
            # Without the checks of the first pass: measure the steady state.
            capture = Capture(model, ["mass", "entropy"], groups=groups, backend=backend, check=False)
            return capture(input_ids=ids, use_cache=False).output.logits

        return run

    def eager() -> torch.Tensor:
        implementation("eager")
        with torch.no_grad():
            output = model(input_ids=ids, use_cache=False, output_attentions=True)
            for attn in output.attentions:
                statistics(attn, member)
        return output.logits

    found = {
        "plain sdpa": plain,
        "fused capture": captured("fused"),
        "materialised capture": captured("materialised"),
        "eager, output_attentions": eager,
    }
    for name, way in others.items():
        found[name] = partial(way, ids, member)
    return {name: way for name, way in found.items() if fits(name, model, length)}


def other_libraries(model: Any) -> dict[str, Any]:
    """{name: function of ids and groups} of the installed ones."""
    found = {"nnsight on eager": nnsight_way(model), "TransformerLens bridge": bridge_way(model)}
    return {name: way for name, way in found.items() if way is not None}


def statistics(attn: torch.Tensor, member: torch.Tensor) -> tuple[Any, Any]:
    attn = attn.float()
    return attn @ member.float(), -torch.xlogy(attn, attn).sum(-1)


def fits(name: str, model: Any, length: int) -> bool:
    """Whether the matrices that a way holds at once fit into memory; softmax and entropy need three."""
    config = model.config
    layers = config.num_hidden_layers if name.startswith("eager") else 1
    kept = 0 if name in ("plain sdpa", "fused capture") else layers + 3
    needed = kept * config.num_attention_heads * length**2 * model.dtype.itemsize
    if model.device.type == "cuda":
        free = torch.cuda.mem_get_info()[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > 0.9 * free:
        print(f"{name}: left out at S = {length}: needs {needed / 2**30:.0f} GiB for matrices", flush=True)
    return needed <= 0.9 * free


def nnsight_way(model: Any) -> Any:
    """The same statistics with nnsight's tracing of the eager model."""
    try:
        from nnsight import NNsight
    except ImportError:
        return None
    traced: Any = NNsight(model)

    def run(ids: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
        kept: list[Any] = []
        if model.config._attn_implementation != "eager":
            model.set_attn_implementation("eager")
        with torch.no_grad(), traced.trace(input_ids=ids, use_cache=False, output_attentions=True):
            for layer in traced.model.layers:
                attn: Any = layer.self_attn.output[1].float()
                entropy: Any = -torch.xlogy(attn, attn).sum(-1)
                kept += [(attn @ member.float()).save(), entropy.save()]
            logits: Any = traced.output.logits.save()
        return logits

    return run


def bridge_way(model: Any) -> Any:
    """The same statistics in hooks of TransformerLens' bridge, on a copy because it replaces modules."""
    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ImportError:
        return None
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    with tempfile.TemporaryDirectory() as folder:  # the bridge rereads the tokenizer
        tokenizer.save_pretrained(folder)
        bridge: Any = TransformerBridge.boot_transformers(
            "random llama",
            hf_model=copy.deepcopy(model),
            tokenizer=AutoTokenizer.from_pretrained(folder),
            device=str(model.device),
            dtype=model.dtype,
        )
    names = [f"blocks.{i}.attn.hook_pattern" for i in range(model.config.num_hidden_layers)]

    def run(ids: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
        kept: list[Any] = []

        def hook(attn: torch.Tensor, hook: Any) -> None:
            kept.append(statistics(attn, member))

        with torch.no_grad():
            logits: torch.Tensor = bridge.run_with_hooks(ids, fwd_hooks=[(name, hook) for name in names])
        assert len(kept) == len(names)
        return logits

    return run


def largest(shape: str, device: str, dtype: torch.dtype) -> None:
    """The longest input, in steps of 1.5, that fits into memory for each way."""
    model = build(shape, 1, device, dtype)
    others = other_libraries(model)
    for name in ways(model, 16, others):
        length, survived = 512, 0
        while length < 2**18:
            try:
                ways(model, length, others)[name]()
            except (torch.OutOfMemoryError, RuntimeError, KeyError):
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
        others = other_libraries(model)
        for length in args.lengths:
            found = ways(model, length, others)
            title = f"{args.shape} shape, {layers} layer(s), S = {length}"
            print_table(title, alternate(found, args.rounds, args.device))
            logits = found["plain sdpa"]()
            for name, way in found.items():
                difference = float((way() - logits).abs().max())
                print(f"{name}: largest difference of logits from plain {difference:.1e}")
            del found, logits
        del model, others
    if args.largest:
        largest(args.shape, args.device, dtype)


if __name__ == "__main__":
    main()
