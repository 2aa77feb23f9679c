"""A manifest for each stage of dvc.yaml: its composed configuration and a hash of each file it can import.

`python -m attention_atlas.workflow.manifests` is itself a stage. It runs when src/, pipeline/, conf/ or
params.yaml change, and writes data/manifests/<stage>.yaml. Every other stage depends on its manifest and on
its data. A change thus makes exactly those stages stale whose results it could affect: none for a comment
in conf/, and for a model's file those that build or load the model. If dvc.yaml no longer matches conf/
(workflow/graph.py), the stage writes it and asks for another `dvc repro`.

The source files of a stage are what its script and the classes that its configuration names (`_target_`)
import (workflow/sources.py). A stage that reads trained models also lists the files of these models.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError
from attention_atlas.files import write_text
from attention_atlas.workflow.graph import Graph
from attention_atlas.workflow.sources import PACKAGE, Sources

if TYPE_CHECKING:
    from omegaconf import DictConfig

# What the configurations are made from, in addition to conf/ and params.yaml.
COMPOSED_BY = (
    "workflow/compose.py",
    "workflow/graph.py",
    "workflow/manifests.py",
    "workflow/stage.py",
    "workflow/resolvers.py",
    "workflow/limit.py",
    "workflow/params.py",
)
DIGEST = "digest.txt"
FOLDER = Path("data/manifests")
NAME = "manifests"  # of the stage itself
MODELS = "data/models/"
# Parts of a configuration that change no result, or only through other parts.
NOT_RESULTS = ("workers", "gpus", "studies", "paths")
# Parts of a study's file that reach a script as other parts of its configuration.
OF_THE_GRAPH = ("stages", "metrics", "figures")
# Scripts whose jobs read `cfg.study`; the others get its values by interpolation in their own groups.
READ_STUDY = ("metrics",)
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
    from attention_atlas.workflow.digests import CAPTURE_KEYS
    from attention_atlas.workflow.stage import resolved

    values = resolved(cfg)[1]
    kept = {key: value for key, value in values.items() if key not in NOT_RESULTS}
    if "capture" in kept:
        kept["capture"] = {k: v for k, v in kept["capture"].items() if k not in CAPTURE_KEYS}
    if "data" in kept:
        kept["data"] = {k: v for k, v in kept["data"].items() if READ_BY.get(k, name) == name}
    if "study" in kept:
        names = [key for key in kept["study"] if key not in OF_THE_GRAPH] if name in READ_STUDY else ["name"]
        kept["study"] = {key: kept["study"][key] for key in names}
    return {**kept, "device": values["device"][name]}


class Manifests:
    """The stages of the repository `root` and their manifests. Raises ConfigError as Graph does."""

    def __init__(self, root: Path) -> None:
        from attention_atlas.workflow.params import read_params

        self.root, self.out, self.sources = root, root / FOLDER, Sources(root)
        self.digest = self._digest()
        self._configs = _kept(self.out, self.digest)
        self.graph = Graph(root, read_params(root / "params.yaml"), self.config)

    def write(self) -> None:
        """Replace the folder `out`. Configurations in it are reused if their sources have not changed."""
        import yaml

        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        new = self.out.with_name(f".{self.out.name}")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for name in self.graph.stages:
            text = yaml.dump(
                self.manifest(name), Dumper=dumper, width=110, allow_unicode=True, sort_keys=False
            )
            (new / f"{name}.yaml").write_text(text, encoding="utf-8")
        (new / DIGEST).write_text(self.digest)
        shutil.rmtree(self.out, ignore_errors=True)
        os.replace(new, self.out)

    def write_graph(self) -> bool:
        """Write dvc.yaml if it does not match conf/. Returns whether it was written."""
        path, text = self.root / "dvc.yaml", self.graph.text()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return False
        write_text(path, text)
        return True

    def manifest(self, name: str) -> dict[str, Any]:
        """{"words": ..., "config": ..., "code": {file: hash}} of one stage."""
        stage = self.graph.stages[name]
        modules = {f"pipeline.{stage.script}", *targets(stage.config)}
        for producer in self.graph.producers(name):
            if any(path.startswith(MODELS) for path in producer.outputs):
                modules |= targets(producer.config.get("model"))
        code = {str(path): _hash(self.root / path) for path in sorted(self.sources.closure(modules))}
        return {"words": stage.words, "config": stage.config, "code": code}

    def config(self, words: Sequence[str]) -> dict[str, Any]:
        """The composed configuration of a script with overrides."""
        key = shlex.join(words)
        if key not in self._configs:
            self._configs[key] = self._compose(words)
        return self._configs[key]

    def _compose(self, words: Sequence[str]) -> dict[str, Any]:
        import yaml
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        from attention_atlas.workflow.compose import compose, config_error

        try:
            return stage_config(compose(self.root, words[0], words[1:]), words[0])
        except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
            raise config_error(error) from None

    def _digest(self) -> str:
        """Digest of everything that the configurations are made from."""
        own = [self.root / "src" / PACKAGE / name for name in COMPOSED_BY]
        files = [self.root / "params.yaml", *sorted((self.root / "conf").rglob("*.yaml")), *own]
        return _digest((str(path.relative_to(self.root)), _hash(path)) for path in files)


@functools.cache
def profile_graph(root: Path, profile: str) -> Graph:
    """The stages of the repository `root` under a profile, whatever params.yaml says."""
    from attention_atlas.workflow.compose import compose
    from attention_atlas.workflow.params import read_params

    def config(words: Sequence[str]) -> dict[str, Any]:
        return stage_config(compose(root, words[0], [*words[1:], f"profile={profile}"]), words[0])

    return Graph(root, {**read_params(root / "params.yaml"), "profile": profile}, config)


def _kept(folder: Path, digest: str) -> dict[str, dict[str, Any]]:
    """Command -> configuration from the manifests in `folder`, if composed from the same files."""
    import yaml

    if not (folder / DIGEST).is_file() or (folder / DIGEST).read_text() != digest:
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = (yaml.load(path.read_bytes(), loader) for path in folder.glob("*.yaml"))
    return {shlex.join(manifest["words"]): manifest["config"] for manifest in found}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _digest(parts: Iterable[Any]) -> str:
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()


def main() -> None:
    try:
        manifests = Manifests(Path.cwd())
        if manifests.write_graph():
            raise AtlasError(
                "dvc.yaml: did not match conf/ and was written again; run the same command again"
            )
        manifests.write()
    except AtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
