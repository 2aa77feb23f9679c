"""The command `faithfulness`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.interventions.arguments import add_output, add_question, checked_question, number

HELP = "which relevance of image tokens is faithful: deletion and insertion curves against random orders"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Rank the tokens of an image by raw attention, rollout, norm-based attention, gradient × attention "
        "and Chefer's relevance; hide and show them in that order, and compare how the log-probability of "
        "the answer falls and rises with random and centre-first orders (docs/howto/faithfulness.md)."
    )
    add_question(parser, required=False)
    parser.add_argument(
        "--data",
        type=Path,
        metavar="CSV",
        help="several examples: columns image (path from the file's folder), prompt and, if you like, answer",
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="as in the table (default: all)")
    parser.add_argument(
        "--baseline",
        default="mean",
        help="what hides a token: mean (colour of the image), blur, embedding (default: mean)",
    )
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="points of a curve (default: 10)")
    parser.add_argument(
        "--draws", type=int, default=10, metavar="N", help="random orders of an example (default: 10)"
    )
    add_output(parser)


def run(args: argparse.Namespace) -> None:
    """Raises AtlasError for a wrong argument before anything is loaded."""
    longest = checked_question(args)
    examples, names = _examples(args)

    import numpy as np

    from attention_atlas.interventions.league import FILES, check, faithfulness
    from attention_atlas.interventions.relevance import METHODS
    from attention_atlas.look.load import load

    methods = args.methods or METHODS
    check(methods, args.baseline, args.steps, args.draws)
    model, processor = load(args.model, args.device, args.dtype)
    league = faithfulness(
        model,
        processor,
        examples,
        methods=methods,
        baseline=args.baseline,
        steps=args.steps,
        draws=args.draws,
        names=names,
        **longest,
    )
    league.model = args.model
    league.save(args.out)
    notes = dict.fromkeys(note for example in league.examples for note in example.notes)
    for note in [*league.left_out, *notes]:
        print(f"note: {note}")
    if len(league.examples) == 1:
        low, high = np.percentile(league.examples[0].random_areas, [2.5, 97.5])
        print(f"answer: {league.examples[0].answer}")
        print(f"95 % of the random orders have an area of {low:.3f} to {high:.3f}")
    print(f"{len(league.examples)} examples; hidden tokens: {args.baseline}; gain over random in nats")
    print("method                 curve         area  normalised     gain  [95 % interval]")
    for row in league.rows():
        numbers = f"{number(row['area'])}     {number(row['normalised'])}  {number(row['gain'])}"
        ends = f"[{number(row['gain_low'])}, {number(row['gain_high'])}]"
        print(f"{row['method']:22} {row['curve']:9} {numbers}  {ends}")
    for name in FILES:
        print(args.out / name)


def _examples(args: argparse.Namespace) -> tuple[list[tuple[Any, str, str | None]], list[str]]:
    """(examples, their names)."""
    from attention_atlas.data.csv_rows import csv_rows
    from attention_atlas.data.images import read_rgb

    if args.data is None:
        if args.image is None or args.prompt is None:
            raise ConfigError("--image, --prompt: give both, or several examples with --data")
        for path in args.image:
            read_rgb(path)
        return [(list(args.image), args.prompt, args.answer)], []
    if args.image is not None or args.prompt is not None or args.answer is not None:
        raise ConfigError("--data: holds the examples; leave out --image, --prompt and --answer")
    if not args.data.is_file():
        raise ConfigError(f"--data: {args.data}: no such file; give a CSV with columns image and prompt")
    columns, rows = csv_rows(args.data)
    for name in ("image", "prompt"):
        if name not in columns:
            raise ConfigError(f"--data: {args.data}: has no column '{name}'; it has {', '.join(columns)}")
    if not rows:
        raise ConfigError(f"--data: {args.data}: has no rows; give at least one example")
    found, names = [], []
    for line, row in rows:
        name = f"{args.data}: line {line}"
        for column in ("image", "prompt"):
            if not row[column].strip():
                raise ConfigError(f"--data: {name}: {column} is empty; fill it in, or remove the line")
        path = args.data.parent / row["image"]
        try:
            read_rgb(path)
        except AtlasError as error:
            raise ConfigError(f"--data: {name}: {error}") from None
        found.append((path, row["prompt"], row.get("answer", "").strip() or None))
        names.append(name)
    return found, names
