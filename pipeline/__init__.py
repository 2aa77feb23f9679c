"""One thin Hydra script per stage, in data order: world, features, train, generate, dump, link, score,
metrics, plot, report."""

import sys
from pathlib import Path

# A copy of the repository (dvc exp run --temp, a smoke run) must import its own code, not the installed
# package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
