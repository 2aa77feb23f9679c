"""PYTHONPATH=tests python -m rehearsal FOLDER [--only-data]"""

import argparse
from pathlib import Path

from attention_atlas.workflow.parallel import exit_with

from .rehearsal import prepare, rehearse

parser = argparse.ArgumentParser(
    prog="python -m rehearsal", description="Rehearse the paper profile in FOLDER."
)
parser.add_argument("folder", type=Path)
parser.add_argument("--only-data", action="store_true", help="write the copy and its data, run nothing")
arguments = parser.parse_args()


def main() -> int:
    if arguments.only_data:
        prepare(arguments.folder)
        return 0
    code = rehearse(arguments.folder)
    if code == 0:
        print(f"report: {arguments.folder / 'results' / 'report.html'}")
    return code


exit_with(main)
