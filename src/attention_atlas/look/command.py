"""The command `look`: arguments, messages, exit codes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from attention_atlas.errors import ConfigError

HELP = "what each word of a prompt and its answer looks at in your pictures, as one HTML page"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Let a vision-language model answer a prompt about pictures (or take your answer), run it once more "
        "over the whole text, and write statistics.h5, summary.json and index.html, a page without a server."
    )
    parser.add_argument("model", metavar="MODEL", help="hub id, or a folder that save_pretrained wrote")
    parser.add_argument(
        "--image", nargs="+", required=True, type=Path, metavar="PHOTO", help="one or more files"
    )
    parser.add_argument(
        "--prompt",
        required=True,
        help="the question; with the processor's picture token in it, used as it is",
    )
    parser.add_argument("--answer", help="text to look at (default: the model writes it, greedily)")
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="longest answer of the model (default: 40)"
    )
    parser.add_argument(
        "--layers",
        metavar="LIST",
        help="layers with maps, from 0: 0,8,16-31 (default: as many as the page can hold)",
    )
    parser.add_argument(
        "--sinks", action="store_true", help="print which tokens take mass as sinks, and what is left without"
    )
    add_machine(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the three files")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """--device and --dtype, which all commands have."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16, float16, 8bit (default: auto)"
    )


def run(args: argparse.Namespace) -> None:
    """Raises AtlasError before anything is loaded where an argument is wrong."""
    from attention_atlas.data.pictures import read_rgb
    from attention_atlas.look.result import FILES, checked_folder

    layers = None if args.layers is None else layer_numbers(args.layers)
    longest = checked_length(args.max_new_tokens, args.answer)
    if not args.prompt.strip():
        raise ConfigError("--prompt: is empty; give a question or an instruction")
    checked_folder(args.out)
    for path in args.image:
        read_rgb(path)

    from attention_atlas.look import Atlas
    from attention_atlas.look.load import load

    model, processor = load(args.model, args.device, args.dtype)
    look = Atlas(model, processor).look(list(args.image), args.prompt, args.answer, layers=layers, **longest)
    look.model = args.model
    look.save(args.out)
    for note in look.notes:
        print(f"note: {note}")
    print(f"answer: {look.answer}")
    if len(look.kept) < len(look.layers) and layers is None:
        kept = ", ".join(map(str, look.kept))
        print(f"maps of layers {kept} of {len(look.layers)}; choose others with --layers")
    if args.sinks:
        from attention_atlas.look.sinks import look_sinks

        print(look_sinks(look).text())
    for name in FILES:
        print(f"{args.out / name}  {(args.out / name).stat().st_size / 1e6:.2f} MB")


def checked_length(longest: int | None, answer: str | None) -> dict[str, Any]:
    """--max-new-tokens as a keyword argument, if it is given."""
    if longest is None:
        return {}
    if answer is not None:
        raise ConfigError("--max-new-tokens: has no effect with --answer; leave one of them out")
    if longest < 1:
        raise ConfigError(f"--max-new-tokens: {longest} is less than 1; give a positive number")
    return {"max_new_tokens": longest}


def layer_numbers(text: str) -> list[int]:
    """'0,8,16-31' → [0, 8, 16, ..., 31]."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise ConfigError(
                f"--layers: '{part}' is no layer; give numbers and ranges, for example 0,8,16-31"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ConfigError(f"--layers: '{part}' ends before it begins; give the smaller number first")
        found += range(first, last + 1)
    return found
