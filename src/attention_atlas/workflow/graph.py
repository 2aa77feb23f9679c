"""dvc.yaml, written from conf/: `python -m attention_atlas.workflow.manifests`.

conf/study/<study>.yaml lists the stages of a study, each as the command line of a script. A stage depends on
the files that its composed configuration names (`inputs`, the data set, the settings of the script) and
writes those that it names under `outputs`. Data sets that a study needs bring their own stages: `world`,
`annotator`, `region_features` and `scene_text` in conf/data/<name>.yaml say which script makes them.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError, ConfigError, did_you_mean

# Scripts whose configuration has the group `study`.
OF_A_STUDY = ("train", "generate", "dump", "metrics", "plot")
# Parts of a configuration that name files which the stage does not read.
NOT_READ = ("outputs", "paths", "study", "reports", "figure", "data")
# Section of a data set's configuration -> script that makes the files it describes.
MADE_BY = {"world": "world", "annotator": "annotate", "region_features": "features", "scene_text": "ocr"}
HEAD = """\
# Written by `python -m attention_atlas.workflow.manifests` from conf/ and params.yaml; edit those.
# A stage depends on its data and on its manifest: the configuration composed by Hydra and the hash of each
# source file it can import. The first stage rewrites the manifests when code or configuration changes.
"""


@dataclass
class Stage:
    """One stage. words: script and overrides; inputs, outputs: paths."""

    name: str
    words: list[str]
    config: Mapping[str, Any]
    inputs: list[str]
    outputs: list[str]

    @property
    def script(self) -> str:
        return self.words[0]

    @property
    def trains_published_weights(self) -> bool:
        """Whether to leave the stage out: published weights are loaded without training."""
        model = self.config.get("model") or {}
        return self.script == "train" and model.get("run_folder", "") is None

    @property
    def command(self) -> str:
        return shlex.join(["python", "-m", f"pipeline.{self.script}", *self.words[1:]])


# (script, overrides) -> resolved configuration.
Compose = Callable[[Sequence[str]], Mapping[str, Any]]


def expand(name: str, lines: str | Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """(stage name, words) for each combination of the values that `lines` list, as in a Hydra multirun.

    >>> list(expand("fit", "train data=a model=b,c"))
    [('fit-b', ['train', 'data=a', 'model=b']), ('fit-c', ['train', 'data=a', 'model=c'])]
    """
    rows: list[list[str]] = []
    for line in [lines] if isinstance(lines, str) else lines:
        script, *overrides = shlex.split(line)
        pairs = [word.partition("=") for word in overrides]
        values = ([f"{key}={value}" for value in given.split(",") if value] for key, _, given in pairs)
        rows += [[script, *words] for words in itertools.product(*values)]
    chosen = [{key: value for key, _, value in (w.partition("=") for w in row[1:])} for row in rows]
    for keys in (("model",), ("data",), ("model", "data")):
        suffixes = ["-".join(values[key] for key in keys if key in values) for values in chosen]
        if len(set(suffixes)) == len(rows):
            break
    for row, suffix in zip(rows, suffixes):
        yield name if len(rows) == 1 else f"{name}-{suffix}", row


class Graph:
    """All stages of the repository `root` with the parameters `params`. Raises ConfigError for a study that
    does not exist, a stage that does not compose, or two stages that write the same file."""

    def __init__(self, root: Path, params: Mapping[str, Any], compose: Compose) -> None:
        self.root, self.params, self.compose = root, params, compose
        declared = [self._stage(*found) for study in params["studies"] for found in self._declared(study)]
        ours = [*(stage for stage in declared if not stage.trains_published_weights), self._report()]
        self.stages: dict[str, Stage] = {}
        writers: dict[str, str] = {}
        for stage in [*self._data_stages(ours), *ours]:
            if stage.name in self.stages:
                raise ConfigError(f"conf/study: two stages are named '{stage.name}'; rename one")
            for path in stage.outputs:
                if path in writers:
                    raise ConfigError(
                        f"conf/study: {stage.name}: writes {path}, as does {writers[path]}; remove one"
                    )
                writers[path] = stage.name
            self.stages[stage.name] = stage

    def producers(self, name: str) -> list[Stage]:
        """The stages that write what the stage `name` reads."""
        return [stage for stage in self.stages.values() if _reads(self.stages[name], stage)]

    def text(self) -> str:
        """dvc.yaml."""
        import yaml

        stages: dict[str, Any] = {
            "manifests": {
                "cmd": "python -m attention_atlas.workflow.manifests",
                "deps": ["conf", "params.yaml", "pipeline", "src"],
                "outs": [{"data/manifests": {"persist": True}}],
            }
        }
        for name, stage in self.stages.items():
            numbers = [path for path in stage.outputs if path.endswith("/metrics.json")]
            stages[name] = {
                "cmd": stage.command,
                "deps": [f"data/manifests/{name}.yaml", *stage.inputs],
                "outs": [path for path in stage.outputs if path not in numbers],
                "metrics": numbers,
            }
            stages[name] = {key: value for key, value in stages[name].items() if value}
        body = yaml.safe_dump({"stages": stages}, sort_keys=False, width=1000, allow_unicode=True)
        return f"{HEAD}params: [params.yaml]\n\n" + re.sub(r"(?<!:)\n  (?=\S)", "\n\n  ", body)

    def _declared(self, study: str) -> Iterator[tuple[str, list[str]]]:
        """(name, words) of the stages of one study."""
        from omegaconf import OmegaConf

        declared: Any = OmegaConf.to_container(self._file("study", study).stages, resolve=True)
        for name, lines in declared.items():
            for stage, (script, *overrides) in expand(f"{study}_{name}", lines):
                own = [f"study={study}"] if script in OF_A_STUDY else []
                yield stage, [script, *own, *overrides]

    def _report(self) -> Stage:
        studies = self.params["studies"]
        described = [name for name in studies if name in self._names("report")]
        plain = [name for name in studies if name not in described]
        words = [f"report=[{','.join(described)}]", *([f"plain=[{','.join(plain)}]"] if plain else [])]
        stage = self._stage("report", ["report", *words])
        stage.inputs += [f"results/{name}" for name in studies]
        return stage

    def _stage(self, name: str, words: list[str]) -> Stage:
        try:
            config = self.compose(words)
        except AtlasError as error:
            raise ConfigError(f"dvc.yaml: {name}: {error}") from None
        outputs = list(dict.fromkeys(paths_in(config["outputs"])))
        return Stage(name, words, config, inputs_of(config, outputs), outputs)

    def _data_stages(self, stages: Iterable[Stage]) -> list[Stage]:
        """The stages that make what `stages` read, as conf/data says."""
        read = {path for stage in stages for path in stage.inputs}
        # The files of a data set are named after it; composing the stages of all others would take long.
        used = [data for data in self._names("data") if any(data in path for path in read)]
        makers = [stage for data in used for stage in self._makers(data)]
        needed: list[Stage] = []
        waiting = list(stages)
        while waiting:
            reader = waiting.pop()
            found = [maker for maker in makers if maker not in needed and _reads(reader, maker)]
            needed += found
            waiting += found
        return [m for script in MADE_BY.values() for m in makers if m in needed and m.script == script]

    def _makers(self, data: str) -> Iterator[Stage]:
        config = self._file("data", data)
        for key, script in MADE_BY.items():
            if key in config:
                chosen = [f"{script}={config[key]}"] if isinstance(config[key], str) else []
                yield self._stage(f"{script}-{data}", [script, f"data={data}", *chosen])

    def _folders(self) -> list[Path]:
        """Where a group's files are, the profile's own first."""
        conf = self.root / "conf"
        return [conf / "profiles" / self.params["profile"], conf]

    def _names(self, group: str) -> list[str]:
        return sorted({path.stem for folder in self._folders() for path in folder.glob(f"{group}/*.yaml")})

    def _file(self, group: str, name: str) -> Any:
        """The content of conf/<group>/<name>.yaml, which can refer to its own values only."""
        import yaml
        from omegaconf import OmegaConf

        from attention_atlas.workflow import resolvers  # noqa: F401  (registers what conf/ uses

        paths = [folder / group / f"{name}.yaml" for folder in self._folders()]
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            known = did_you_mean(name, self._names(group))
            raise ConfigError(f"params.yaml: {paths[-1]}: no such file{known}")
        try:
            return OmegaConf.create({group: OmegaConf.load(found)})[group]
        except yaml.YAMLError as error:
            raise ConfigError(f"{' '.join(str(error).split())}; correct the YAML") from None


def inputs_of(
    config: Mapping[str, Any], outputs: Sequence[str] = (), exists: Callable[[str], bool] | None = None
) -> list[str]:
    """The files and folders that a configuration names for reading, sorted, none inside another or in
    `outputs`: paths below data/ or results/ and absolute ones. exists: also include any other string of the
    data set, the model and the features for which it is true, such as `data.root=images`, except "." and
    parents of the working directory."""
    from omegaconf import OmegaConf

    parts: dict[str, Any] = {key: value for key, value in config.items() if key not in NOT_READ}
    training = (config.get("model") or {}).get("training") or {}
    if "train" in parts:
        parts["train"] = OmegaConf.to_container(OmegaConf.merge(parts["train"], training))
    if training:
        parts["model"] = {key: value for key, value in config["model"].items() if key != "training"}
    read = [parts, (config.get("data") or {}).get("reader")]
    found = set(paths_in(read))
    if exists is not None:
        given = [read[1], parts.get("model"), parts.get("features")]
        texts = {text for text in _strings(given) if text and exists(text)}
        found |= {os.path.normpath(t) for t in texts if not Path.cwd().is_relative_to(os.path.abspath(t))}
    made = {path for path in found if path in outputs or any(path.startswith(f"{out}/") for out in outputs)}
    return sorted(p for p in found - made if not any(p.startswith(f"{other}/") for other in found))


def paths_in(value: Any) -> Iterator[str]:
    """Every string of a configuration that is a path below data/ or results/, or absolute."""
    for text in _strings(value):
        if text.startswith(("data/", "results/", "/")):
            yield text.rstrip("/")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)


def _reads(reader: Stage, writer: Stage) -> bool:
    return any(overlap(path, out) for path in reader.inputs for out in writer.outputs)


def overlap(a: str, b: str) -> bool:
    return a == b or a.startswith(f"{b}/") or b.startswith(f"{a}/")
