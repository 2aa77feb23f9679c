"""A manifest for each stage of dvc.yaml: its composed configuration and a hash of each file it can import.

`python -m attention_atlas.workflow.manifests` is itself a stage. It runs when src/, pipeline/, conf/ or
params.yaml change, and writes data/manifests/<stage>.yaml. Every other stage depends on its manifest and on
its data. So a change makes exactly those stages stale whose result it could change: none for a comment in
conf/, and for the file of a model the stages that build or load it.

The source files of a stage are what its script and the classes that its configuration names (`_target_`)
import (workflow/sources.py). A stage that reads trained models also lists the files of these models. After
editing dvc.yaml, run `dvc repro --force manifests`: DVC allows no stage to depend on dvc.yaml.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.workflow.sources import PACKAGE, Sources

if TYPE_CHECKING:
    from omegaconf import DictConfig

# What the configurations are made from, in addition to conf/ and params.yaml.
COMPOSED_BY = (
    "workflow/manifests.py",
    "workflow/compose.py",
    "workflow/stage.py",
    "workflow/resolvers.py",
    "workflow/limit.py",
    "workflow/params.py",
)
DIGEST = "digest.txt"
FOLDER = Path("data/manifests")
NAME = "manifests"  # of the stage itself
# The other values of params.yaml reach a stage through dvc.yaml and through interpolation in its own groups.
OWN_PARAMS = ("profile", "seed", "limit", "device")
# Parts of a data set's file that only one script reads.
READ_BY = {"world": "world", "annotator": "annotate", "sizes": "world"}


def targets(config: Any) -> set[str]:
    """Every `_target_` in a configuration."""
    if isinstance(config, Mapping):
        own = {str(config["_target_"])} if "_target_" in config else set()
        return own.union(*map(targets, config.values()))
    if isinstance(config, list | tuple):
        return set().union(*map(targets, config))
    return set()


def stage_config(cfg: DictConfig, name: str) -> dict[str, Any]:
    """The configuration that the results of the stage `name` depend on: `cfg` as run_stage resolves it,
    without keys that change no result."""
    from attention_atlas.workflow.params import PARAMS
    from attention_atlas.workflow.stage import resolved

    values = resolved(cfg)[1]
    dropped = PARAMS.keys() - {*OWN_PARAMS}
    kept = {key: value for key, value in values.items() if key not in dropped}
    if "data" in kept:
        kept["data"] = {k: v for k, v in kept["data"].items() if READ_BY.get(k, name) == name}
    return {**kept, "device": values["device"][name]}


class Manifests:
    """The manifests of all stages of dvc.yaml in `root`, which must be the working directory."""

    def __init__(self, root: Path) -> None:
        self.root, self.sources = root, Sources(root)
        self.commands, self.producers = _stages(root)
        self._configs: dict[str, dict[str, Any]] = {}

    def write(self, out: Path) -> None:
        """Replace the folder `out`. Configurations in it are reused if their sources have not changed.

        Raises ConfigError for a stage that does not compose."""
        import yaml

        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        digest = self.digest()
        self._configs |= _kept(out, digest)
        new = out.with_name(f".{out.name}")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for name in self.commands:
            text = yaml.dump(self.manifest(name), Dumper=dumper, width=110, allow_unicode=True)
            (new / f"{name}.yaml").write_text(text, encoding="utf-8")
        (new / DIGEST).write_text(digest)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(new, out)

    def digest(self) -> str:
        """Digest of everything that the configurations are made from."""
        own = [self.root / "src" / PACKAGE / name for name in COMPOSED_BY]
        files = [self.root / "params.yaml", *sorted((self.root / "conf").rglob("*.yaml")), *own]
        return _digest([*self.commands.items(), *((str(p.relative_to(self.root)), _hash(p)) for p in files)])

    def manifest(self, name: str) -> dict[str, Any]:
        """{"config": ..., "code": {file: hash}} of one stage."""
        config = self.config(name)
        modules = {f"pipeline.{self.script(name)}", *targets(config)}
        for producer in self.producers[name]:
            modules |= targets(self.config(producer).get("model"))
        code = {str(path): _hash(self.root / path) for path in sorted(self.sources.closure(modules))}
        return {"config": config, "code": code}

    def script(self, name: str) -> str:
        words = shlex.split(self.commands[name])
        if words[:2] != ["python", "-m"] or not words[2].startswith("pipeline."):
            raise ConfigError(f"dvc.yaml: {name}: cmd: must be python -m pipeline.<script>, not {words[:3]}")
        return words[2].removeprefix("pipeline.")

    def config(self, name: str) -> dict[str, Any]:
        """The composed configuration of one stage."""
        if name not in self._configs:
            self._configs[name] = self._compose(self.script(name), name)
        return self._configs[name]

    def _compose(self, script: str, name: str) -> dict[str, Any]:
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        from attention_atlas.workflow.compose import compose
        from attention_atlas.workflow.stage import config_error

        try:
            return stage_config(compose(self.root, script, shlex.split(self.commands[name])[3:]), script)
        except (HydraException, OmegaConfBaseException, AtlasError) as error:
            raise ConfigError(f"dvc.yaml: {name}: {config_error(error)}") from None


def _kept(folder: Path, digest: str) -> dict[str, dict[str, Any]]:
    """Stage -> configuration from the manifests in `folder`, if composed from the same files."""
    import yaml

    if not (folder / DIGEST).is_file() or (folder / DIGEST).read_text() != digest:
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return {p.stem: yaml.load(p.read_bytes(), loader)["config"] for p in folder.glob("*.yaml")}


def _stages(root: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Stage -> its command, and stage -> the stages whose trained models it reads."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        graph = repo.index.graph
        kept = [stage for stage in graph if stage.name and stage.name != NAME]
        commands = {stage.name: str(stage.cmd) for stage in sorted(kept, key=lambda s: str(s.name))}
        producers = {
            str(stage.name): [
                str(need.name)
                for need in graph.successors(stage)
                if any(str(out.def_path).startswith("data/models/") for out in need.outs)
            ]
            for stage in kept
        }
    return commands, producers


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _digest(parts: Iterable[Any]) -> str:
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()


def main() -> None:
    try:
        Manifests(Path.cwd()).write(FOLDER)
    except AtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
