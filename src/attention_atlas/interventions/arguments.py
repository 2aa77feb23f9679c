"""Arguments that the commands of this package share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from attention_atlas.errors import ConfigError
from attention_atlas.look.command import add_machine, checked_length


def add_question(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument("model", metavar="MODEL", help="hub id, or a folder that save_pretrained wrote")
    parser.add_argument(
        "--image", nargs="+", required=required, type=Path, metavar="PHOTO", help="one or more files"
    )
    parser.add_argument("--prompt", required=required, help="the question")
    parser.add_argument("--answer", help="answer to score (default: the model writes it, greedily)")
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="maximum length of the model's answer (default: 40)"
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    add_machine(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the two files")


def checked_question(args: argparse.Namespace) -> dict[str, Any]:
    """{"max_new_tokens": N} if it is given. Raises ConfigError before anything is loaded."""
    from attention_atlas.look.result import checked_folder

    longest = checked_length(args.max_new_tokens, args.answer)
    if args.prompt is not None and not args.prompt.strip():
        raise ConfigError("--prompt: is empty; give a question or an instruction")
    checked_folder(args.out)
    return longest


def number(value: float | None) -> str:
    return "      –" if value is None else f"{value:7.3f}"
