"""`attention-atlas track`: send MLflow the runs that were kept while it could not be reached."""

from __future__ import annotations

import argparse
from pathlib import Path

from attention_atlas.errors import AtlasError
from attention_atlas.workflow.tracking_runs import kept, records_folder, tracking_uri, without_password

HELP = "hand over to MLflow the runs that were kept while it could not be reached"
EXTRA = "pipeline"
HOUR = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=Path(), help="the repository (default: this folder)")


def run(args: argparse.Namespace) -> None:
    """Raises AtlasError if MLflow does not take all of them."""
    root, uri = args.root, tracking_uri(args.root)
    if not kept(root):
        print(f"{records_folder(root)}: nothing is kept")
        return
    from attention_atlas.workflow.tracking_store import Store
    from attention_atlas.workflow.tracking_writer import hand_over

    count, reason = hand_over(Store(root, uri), HOUR)
    where = f"MLflow at {without_password(uri)}"
    print(f"{where}: {count} kept runs recorded")
    if reason:
        raise AtlasError(
            f"{where} does not record ({reason}); {len(kept(root))} runs stay in {records_folder(root)}; "
            "start the server or correct MLFLOW_TRACKING_URI, then run this again"
        )
    if left := kept(root):
        print(f"{records_folder(root)}: {len(left)} more are being written or handed over by others")
