"""`attention-atlas COMMAND ...`, or `python -m attention_atlas COMMAND ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from attention_atlas.errors import AtlasError, system_error

# Each module has HELP, add_arguments(parser) and run(args).
COMMANDS = {
    "look": "attention_atlas.look.command",
    "ground": "attention_atlas.ground.command",
    "doctor": "attention_atlas.look.doctor_command",
    "knockout": "attention_atlas.interventions.knockout_command",
    "faithfulness": "attention_atlas.interventions.faithfulness_command",
    "track": "attention_atlas.workflow.track_command",
    "phases": "attention_atlas.studies.vlm_phases.command",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 after one line that names the wrong argument or file."""
    parser = argparse.ArgumentParser(prog="attention-atlas", description="Where vision-language models look.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = import_module(module)
        sub = subparsers.add_parser(name, help=command.HELP)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run, extra=getattr(command, "EXTRA", "look"))
    args = parser.parse_args(arguments)
    try:
        args.run(args)
    except AtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        known = system_error(error)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(
            f'error: the package {error.name} is missing; pip install "attention-atlas[{args.extra}]"',
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
