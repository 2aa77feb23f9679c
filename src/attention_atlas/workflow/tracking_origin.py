"""Where a run comes from, for MLflow's columns Source and User: git, the command, and the `dvc repro`, sweep
or `make reproduce` that it belongs to."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
import sys
from pathlib import Path

SESSION_VARIABLE = "ATLAS_SESSION"  # "key title" of the parent that several stages share


def session() -> tuple[str, str] | None:
    """(key, title) of the sweep or run that this stage belongs to, else of the `dvc` process above it."""
    key, _, title = os.environ.get(SESSION_VARIABLE, "").partition(" ")
    if key and title:
        return key, title
    if "DVC_STAGE" not in os.environ:
        return None
    import psutil

    with contextlib.suppress(psutil.Error):
        for process in psutil.Process().parents():
            command = process.cmdline()
            if any(Path(word).name in ("dvc", "dvc.exe") for word in command[:3]):
                words = [w for w in command if not w.startswith("-")]
                first = words.index(next(w for w in words if "dvc" in w))
                return f"{process.pid}-{process.create_time():.2f}", " ".join(["dvc", *words[first + 1 :]])
    return None


def source_tags(root: Path) -> dict[str, str]:
    """MLflow's tags for the source of a run, as far as they are known."""
    commit, branch = [*_git(root, "rev-parse", "HEAD", "--abbrev-ref", "HEAD").split(), "", ""][:2]
    tags = {
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": _script(root),
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.branch": branch,
        "mlflow.source.git.repoURL": _git(root, "config", "--get", "remote.origin.url"),
        "mlflow.source.git.dirty": str(bool(_git(root, "status", "--porcelain"))).lower() if commit else "",
        "dvc.exp": os.environ.get("DVC_EXP_NAME", ""),
    }
    with contextlib.suppress(OSError, KeyError, ImportError):  # a user without a name
        tags["mlflow.user"] = getpass.getuser()
    return {name: value for name, value in tags.items() if value}


def _script(root: Path) -> str:
    script = Path(sys.argv[0])
    with contextlib.suppress(ValueError, OSError):
        return str(script.resolve().relative_to(root.resolve()))
    return script.name


def _git(root: Path, *words: str) -> str:
    try:
        result = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    except OSError:  # no git here
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
