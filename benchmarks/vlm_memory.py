"""Peak memory of the phases' dump at the shape of LLaVA-1.5 7B, random weights.

python benchmarks/vlm_memory.py

Each length runs in a separate process. `extra` is the peak above the model itself while everything for
figures 2 to 4 is measured on one sample (logit lens on S − 64 visual tokens, both ways; unit sums; three rows
of norm-based attention). The other columns show what the usual approaches would need: all hidden states and
all attention matrices of the layers run here, and the (H,S,S,D) tensor of norm-based attention of one layer.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

SHAPE = dict(
    vocab_size=32064,
    hidden_size=4096,
    intermediate_size=11008,
    num_attention_heads=32,
    num_key_value_heads=32,
    max_position_embeddings=4096,
)


def peak() -> float:
    """MiB of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def model(layers: int, device: str, dtype: str):
    import torch
    import transformers as T

    from attention_atlas.models.vlm.loaded import LoadedVlm

    torch.manual_seed(0)
    small = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1)
    vision = T.CLIPVisionConfig(**small)
    text = T.LlamaConfig(num_hidden_layers=layers, **SHAPE)
    image = dict(image_token_id=32000, image_token_index=32000)
    config = T.LlavaConfig(text_config=text, vision_config=vision, **image)
    torch.set_default_dtype(getattr(torch, dtype))
    with torch.device(device):
        made = T.LlavaForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    return LoadedVlm("llava-1.5-7b shape", made, None)


def once(length: int, layers: int, device: str, dtype: str) -> dict[str, float]:
    import torch

    from attention_atlas.studies.vlm_phases.measure import measure

    loaded = model(layers, device, dtype)
    roles = [["bos", *["image"] * (length - 64), *["text"] * 63]]

    def inputs(size: int) -> dict[str, torch.Tensor]:
        ids = torch.arange(3, 3 + size, device=device)[None]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    short = [["bos", "image", "text", "text"]]
    measure(loaded, inputs(4), short, [(3, 4)])  # warm-up: memory that the libraries keep
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() / 2**20 if cuda else peak()
    start = time.perf_counter()
    measure(loaded, inputs(length), roles, [(length - 32, length)])
    seconds = time.perf_counter() - start
    after = torch.cuda.max_memory_allocated() / 2**20 if cuda else peak()
    size = torch.finfo(getattr(torch, dtype)).bits // 8
    return {
        "S": length,
        "model MiB": round(before),
        "extra MiB": round(after - before),
        "seconds": round(seconds, 1),
        "hidden states MiB": round((layers + 1) * length * 4096 * size / 2**20),
        "attention MiB": round(layers * 32 * length**2 * size / 2**20),
        "(H,S,S,D) MiB": round(32 * length**2 * 4096 * size / 2**20),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--lengths", type=int, nargs="+", default=[640, 1280, 2560])
    parser.add_argument("--one", type=int)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(once(args.one, args.layers, args.device, args.dtype)))
        return
    same = ["--layers", str(args.layers), "--device", args.device, "--dtype", args.dtype]
    for length in args.lengths:
        command = [sys.executable, __file__, "--one", str(length), *same]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(done.stdout.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
