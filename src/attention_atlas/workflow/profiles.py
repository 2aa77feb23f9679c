"""A profile is a set of values for params.yaml, and files of its own (workflow/compose.py).

`python -m attention_atlas.workflow.profiles paper` sets them in params.yaml, keeping comments, and writes
dvc.yaml.
`python -m attention_atlas.workflow.profiles smoke --in DIR` copies the repository to DIR, sets the profile
there and runs `dvc repro`, so that the results of a longer profile are not overwritten.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError, ConfigError, did_you_mean
from attention_atlas.files import write_text
from attention_atlas.workflow.manifests import Manifests
from attention_atlas.workflow.parallel import exit_with, repro_side_by_side
from attention_atlas.workflow.params import check_params
from attention_atlas.workflow.tracking_runs import tracking_uri


def apply_profile(root: Path, name: str) -> None:
    """Merge conf/profiles/<name>.yaml over params.yaml."""
    from ruamel.yaml import YAML

    folder = root / "conf" / "profiles"
    path = folder / f"{name}.yaml"
    if not path.exists():
        raise ConfigError(
            f"{path}: no such profile{did_you_mean(name, [p.stem for p in folder.glob('*.yaml')])}"
        )
    set_params(root, YAML(typ="safe").load(path.read_text(encoding="utf-8")))


def set_params(root: Path, values: dict[str, Any]) -> None:
    """Merge `values` over params.yaml, keeping its comments. Raises ConfigError for an invalid value."""
    import io

    from ruamel.yaml import YAML

    round_trip = YAML()  # keeps comments; reads plain values only
    round_trip.preserve_quotes = True
    round_trip.width = 200
    params_path = root / "params.yaml"
    params = round_trip.load(params_path.read_text(encoding="utf-8"))
    for name, value in values.items():
        params[name] = {**params[name], **value} if name == "device" else value
    check_params(_plain(params), params_path)
    buffer = io.StringIO()
    round_trip.dump(params, buffer)
    write_text(params_path, buffer.getvalue())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def copy_repository(root: Path, into: Path) -> None:
    """Clone the current commit of `root` into `into` and copy its uncommitted files over it. An existing copy
    keeps its outputs, so that a second run redoes only what changed."""
    if not (into / ".git").exists():
        into.parent.mkdir(parents=True, exist_ok=True)
        _run(["git", "clone", "--quiet", "--local", "--no-hardlinks", str(root), str(into)], root)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    wanted = {name for name in listed.stdout.decode().split("\0") if name and (root / name).is_file()}
    present = subprocess.run(["git", "ls-files", "-z"], cwd=into, capture_output=True, check=True)
    for name in set(present.stdout.decode().split("\0")) - wanted - {""}:
        (into / name).unlink(missing_ok=True)
    for name in sorted(wanted - {"dvc.lock"}):
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # Unchanged files keep their time stamp, so that DVC need not hash them again.
        if not target.exists() or target.read_bytes() != (root / name).read_bytes():
            shutil.copy2(root / name, target)


def repro(root: Path, name: str, into: Path) -> int:
    """Run `dvc repro` with a profile in a copy of the repository; runs go to the MLflow store of `root`."""
    copy_repository(root, into)
    apply_profile(into, name)
    Manifests(into).write_graph()
    python_folder = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": tracking_uri(root),
        "PATH": f"{python_folder}{os.pathsep}{os.environ['PATH']}",
    }
    return repro_side_by_side(into, environment)


def _run(command: list[str], cwd: Path) -> None:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if result.returncode:
        raise AtlasError(f"{' '.join(command[:2])}: {(result.stderr.strip().splitlines() or ['failed'])[-1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("profile")
    parser.add_argument("--in", dest="into", type=Path, help="run dvc repro in a copy of the repository here")
    arguments = parser.parse_args()
    exit_with(lambda: _run_profile(Path.cwd(), arguments.profile, arguments.into))


def _run_profile(root: Path, name: str, into: Path | None) -> int:
    if into is None:
        apply_profile(root, name)
        Manifests(root).write_graph()
        print(f"params.yaml and dvc.yaml are now those of profile '{name}'")
        return 0
    code = repro(root, name, into)
    if code == 0:
        print(f"report: {into / 'results' / 'report.html'}")
    return code


if __name__ == "__main__":
    main()
