"""The command `knockout`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from attention_atlas.errors import ConfigError
from attention_atlas.interventions.arguments import add_output, add_question, checked_question, number

HELP = "how much less probable an answer becomes when text and image cannot read each other"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Cut attention between text and image in windows of layers, and report the change of the answer's "
        "log-probability, by word, against the same cut with another image (docs/howto/faithfulness.md)."
    )
    add_question(parser, required=True)
    parser.add_argument(
        "--other",
        nargs="+",
        type=Path,
        metavar="PHOTO",
        help="the control's image (default: your own, painted in its mean colour)",
    )
    parser.add_argument(
        "--cut",
        nargs="+",
        metavar="CUT",
        help="query-key of text, image, prompt, answer (default: text-image image-text answer-image)",
    )
    parser.add_argument(
        "--windows", type=int, metavar="N", help="windows of layers, beside all layers (default: 8)"
    )
    parser.add_argument("--heads", metavar="LAYER", help="layers whose heads are cut one by one: 3 or 3,4")
    add_output(parser)


def run(args: argparse.Namespace) -> None:
    """Raises AtlasError for a wrong argument before anything is loaded."""
    from attention_atlas.data.images import read_rgb

    longest = checked_question(args)
    heads = [] if args.heads is None else _numbers(args.heads)
    for path in [*args.image, *(args.other or [])]:
        read_rgb(path)

    from attention_atlas.interventions.knockout import CUTS, FILES, knock_out
    from attention_atlas.look.load import load

    model, processor = load(args.model, args.device, args.dtype)
    width = int(model.config.get_text_config().num_attention_heads)
    found = knock_out(
        model,
        processor,
        list(args.image),
        args.prompt,
        args.answer,
        other=args.other,
        cuts=args.cut or CUTS,
        windows=args.windows,
        heads=[(layer, head) for layer in heads for head in range(width)],
        **longest,
    )
    found.model = args.model
    found.save(args.out)
    print(f"answer: {found.answer}")
    print(f"control: {found.control}")
    print(f"log p of the answer: {number(found.plain_N.sum())}, control: {number(found.other_plain_N.sum())}")
    print("cut             layers  head   change    other      net  (nats, whole answer)")
    for c, cut in enumerate(found.cuts):
        head = "all" if cut.head is None else str(cut.head)
        values = (found.change_CN[c], found.other_change_CN[c], found.net_CN[c])
        numbers = "  ".join(number(float(v_N.sum())) for v_N in values)
        print(f"{cut.name:15} {f'{cut.first}-{cut.last}':>6} {head:>5}  {numbers}")
    for name in FILES:
        print(args.out / name)


def _numbers(text: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ConfigError(f"--heads: '{text}' names no layers; give numbers from 0, for example 3,4")
    return [int(part) for part in text.split(",")]
