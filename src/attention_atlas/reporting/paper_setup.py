"""`make paper-setup`: the papers' settings next to those of the paper profile, written to
docs/paper_setup.md.

`conf/paper_setup.yaml` lists each setting of a paper or its code with its source, and where our value is
defined: a key of the configuration that Hydra composes for a stage of the paper profile, or a constant or
default in the code. The page shows the value found there. A row that differs needs a reason, and a reason
needs a difference.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError, did_you_mean
from attention_atlas.files import write_text

LIST = Path("conf/paper_setup.yaml")
PAGE = Path("docs/paper_setup.md")
NOWHERE = "not a setting"
_FIELDS = {"what", "paper", "source", "run", "key", "code", "same", "reason", "note"}
_REQUIRED = ("what", "paper", "source")


@dataclass
class Row:
    """One row of the list with the configured value, once for each of its runs."""

    entry: dict[str, Any]
    here: list[Any]

    @property
    def differs(self) -> bool:
        wanted = self.entry.get("same", self.entry["paper"])
        # True == 1 in Python, but not in a configuration.
        return not self.here or any(
            value != wanted or isinstance(value, bool) != isinstance(wanted, bool) for value in self.here
        )

    def problem(self) -> str:
        """The problem of the row; "" if there is none."""
        if self.differs and not self.entry.get("reason"):
            return f"the paper has {_text(self.entry['paper'])}, ours is {self.value}: explain it in 'reason'"
        if not self.differs and self.entry.get("reason"):
            return "there is no difference to give a reason for; remove it, or make it a note"
        return ""

    @property
    def value(self) -> str:
        return " / ".join(dict.fromkeys(map(_text, self.here))) or NOWHERE


def read_list(path: str | Path = LIST) -> dict[str, Any]:
    """The list: `runs` (name -> stage of dvc.yaml, or script and overrides) and `studies` (title, rows).

    Raises AtlasError for an unknown or missing field, or a run that is not listed.
    """
    import yaml

    path = Path(path)
    if not path.exists():
        raise AtlasError(f"{path}: no such file; run this in the root of the repository")
    table = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    runs = table.get("runs", {})
    for study in table.get("studies", []):
        for number, entry in enumerate(study["rows"], start=1):
            where = f"{path}: {study['title']}: row {number} ({entry.get('what', '?')})"
            for name in _REQUIRED:
                if name not in entry:
                    raise AtlasError(f"{where}: {name}: field is missing; add it")
            for name in entry:
                if name not in _FIELDS:
                    raise AtlasError(f"{where}: {name}: unknown field{did_you_mean(name, _FIELDS)}")
            if ("run" in entry) != ("key" in entry) or ("key" in entry and "code" in entry):
                raise AtlasError(f"{where}: give run and key, or code, or neither")
            for run in _runs(entry):
                if run not in runs:
                    raise AtlasError(f"{where}: run: '{run}' is not under runs{did_you_mean(run, runs)}")
    return {"runs": runs, "studies": table.get("studies", [])}


def composed(runs: dict[str, str], root: str | Path = ".", profile: str = "paper") -> dict[str, Any]:
    """name -> resolved configuration of each run under a profile.

    A run is the address of a stage in dvc.yaml, whose command is composed, or the name of a script in
    pipeline/ with Hydra overrides. Raises AtlasError for a stage that is not in the profile's graph.
    """
    from omegaconf import OmegaConf

    from attention_atlas.training.run import run_config
    from attention_atlas.workflow.compose import compose
    from attention_atlas.workflow.manifests import profile_graph

    graph = profile_graph(Path(root).resolve(), profile)
    found = {}
    for name, run in runs.items():
        words = graph.stages[run].words if run in graph.stages else shlex.split(run)
        if len(words) == 1 and run not in graph.stages:
            raise AtlasError(
                f"dvc.yaml: no stage '{run}' with profile {profile}{did_you_mean(run, graph.stages)}"
            )
        cfg = compose(Path(root), words[0], [*words[1:], f"profile={profile}"])
        values: Any = OmegaConf.to_container(cfg, resolve=True)
        if "train" in values and "model" in values:
            _, values["train"], _ = run_config(cfg)
        found[name] = values
    return found


def rows_of(study: dict[str, Any], configurations: dict[str, Any], path: str | Path = LIST) -> list[Row]:
    """The rows of a study with their values. Raises AtlasError for a key that a configuration lacks."""
    rows = []
    for entry in study["rows"]:
        values = [_in_code(entry["code"])] if "code" in entry else []
        for run in _runs(entry):
            value: Any = configurations[run]
            for part in str(entry["key"]).split("."):
                if not isinstance(value, dict) or part not in value:
                    known = did_you_mean(part, value) if isinstance(value, dict) else ""
                    raise AtlasError(
                        f"{path}: {study['title']}: {entry['what']}: key: '{entry['key']}' is not in the "
                        f"configuration of {run}{known}"
                    )
                value = value[part]
            values.append(value)
        rows.append(Row(entry, values))
    return rows


def page(list_path: str | Path = LIST, root: str | Path = ".") -> tuple[str, list[str]]:
    """The text of docs/paper_setup.md, and a line for each row with a problem."""
    table = read_list(list_path)
    configurations = composed(table["runs"], root)
    lines = [
        "# The papers' settings and ours",
        "",
        f"Made by `make paper-setup` from `{LIST}`; do not edit it by hand. *Here* is read from the",
        "configuration that Hydra composes for the stages of the paper profile (with the model's own",
        "training values merged in) or from the code. Where it differs, the last column says why.",
    ]
    problems = []
    for study in table["studies"]:
        lines += ["", f"## {study['title']}", ""]
        if study.get("about"):
            lines += [" ".join(study["about"].split()), ""]
        lines += [
            "| Setting | Paper | Source | Here | Key | Why it differs, notes |",
            "|---|---|---|---|---|---|",
        ]
        for row in rows_of(study, configurations, list_path):
            entry = row.entry
            key = f"`{entry['key']}` ({', '.join(_runs(entry))})" if "key" in entry else entry.get("code", "")
            why = " ".join(str(entry[name]) for name in ("reason", "note") if entry.get(name))
            cells = (entry["what"], _text(entry["paper"]), entry["source"], row.value, key, why)
            lines.append(
                "| " + " | ".join(" ".join(str(c).split()).replace("|", "\\|") for c in cells) + " |"
            )
            if row.problem():
                problems.append(f"{list_path}: {study['title']}: {entry['what']}: {row.problem()}")
    return "\n".join(lines) + "\n", problems


def _in_code(place: str) -> Any:
    """`module.CONSTANT`, or `module.function:parameter` for a default. Raises AtlasError if there is no such
    place."""
    import inspect

    from hydra.utils import get_object

    name, _, parameter = place.partition(":")
    try:
        found = get_object(name)
        value = inspect.signature(found).parameters[parameter].default if parameter else found
    except (ImportError, ValueError, TypeError, KeyError):
        raise AtlasError(f"{LIST}: code: no '{place}'; correct the list") from None
    return (
        sorted(value) if isinstance(value, frozenset) else list(value) if isinstance(value, tuple) else value
    )


def _runs(entry: dict[str, Any]) -> list[str]:
    run = entry.get("run", [])
    return list(run) if isinstance(run, list) else [str(run)]


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(v)}" for name, v in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, int | float) and abs(value) >= 10_000:
        return f"{value:,}"
    return str(value)


def main(arguments: list[str] | None = None) -> int:
    """Write the page or, with --check, compare it; returns 1 if a row has a problem or the page is
    outdated."""
    parser = argparse.ArgumentParser(prog="papersetup", description="The papers' settings and ours.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help=f"write {PAGE}")
    what.add_argument("--check", action="store_true", help=f"check whether {PAGE} is up to date")
    options = parser.parse_args(arguments)
    try:
        text, problems = page()
        if options.write:
            write_text(PAGE, text)
        elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            problems.append(f"{PAGE}: outdated; run make paper-setup")
    except AtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
