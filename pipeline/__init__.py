"""Thin Hydra scripts, in data order: world, annotate, features, ocr, train, generate, dump, parse, link,
metrics, plot, report. A stage of dvc.yaml is one of them with overrides."""

import sys
from pathlib import Path

# A copy of the repository (dvc exp run --temp, a smoke run) must import its own code, not the installed
# package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
