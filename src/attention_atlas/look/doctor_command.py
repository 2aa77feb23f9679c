"""The command `doctor`: arguments, messages, exit codes."""

from __future__ import annotations

import argparse
from pathlib import Path

from attention_atlas.errors import ConfigError
from attention_atlas.look.command import add_machine

HELP = "whether sdpa, flash, eager and the capture agree on logits, answers and attention maps"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run one input through every attention implementation of this installation and through the capture, "
        "and report whether logits, answers and attention maps agree, and where they first differ."
    )
    parser.add_argument("model", metavar="MODEL", help="hub id, or a folder that save_pretrained wrote")
    parser.add_argument(
        "--image",
        nargs="+",
        type=Path,
        metavar="PHOTO",
        help="one or more files (default: a made-up image)",
    )
    parser.add_argument("--prompt", help="the question (default: What is in the picture?)")
    parser.add_argument("--answer", help="text to compare on (default: each implementation writes its own)")
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="maximum length of the model's answer (default: 20)"
    )
    parser.add_argument(
        "--layers",
        metavar="LIST",
        help="layers of the language model with maps, from 0: 0,8,16-31 (default: all attention modules)",
    )
    add_machine(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for doctor.json")


def run(args: argparse.Namespace) -> None:
    """Raises AtlasError for a wrong argument before anything is loaded."""
    from attention_atlas.data.images import read_rgb
    from attention_atlas.look.command import checked_length, layer_numbers
    from attention_atlas.look.result import checked_folder

    layers = None if args.layers is None else layer_numbers(args.layers)
    options = checked_length(args.max_new_tokens, args.answer)
    if args.prompt is not None:
        if not args.prompt.strip():
            raise ConfigError("--prompt: is empty; give a question or an instruction, or leave it out")
        options["prompt"] = args.prompt
    if args.out is not None:
        checked_folder(args.out)
    for path in args.image or ():
        read_rgb(path)

    from attention_atlas.look.doctor import diagnose
    from attention_atlas.look.load import load

    model, processor = load(args.model, args.device, args.dtype)
    found = diagnose(model, processor, args.image, answer=args.answer, layers=layers, **options)
    print(found.text())
    if args.out is not None:
        print(f"\n{found.save(args.out)}")
