"""From a configuration to a run folder (model.safetensors, config.yaml, history.csv and the task's own files,
as vocab.json) and back.

A task that a stage can train (conf/train/<name>.yaml, `task._target_`) is a `loop.Task` that also has
`prepare(corpus, features)`, `model_sizes() -> dict` (what the model's constructor needs of the data) and
`save(folder)`. It may have `uses_features` (False: `prepare` gets None), `inputs` (paths it reads besides, as
the run it starts from), `start(model)` (called once on the fresh model, e.g. to load weights) and `vocab`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import atomic_path
from attention_atlas.training.loop import train
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.vocab import Vocabulary

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import nn

    from attention_atlas.corpus import Corpus
    from attention_atlas.vision.features_file import FeaturesFile

# Keys of conf/model/<name>.yaml that describe the model instead of being given to its class.
DESCRIPTION = ("name", "title", "task", "training", "evaluator")

OnMetrics = Callable[[int, dict[str, float]], None]


def _instantiate(arguments: Mapping[str, Any], where: str, **more: Any) -> Any:
    """Hydra's instantiate, whose several lines of error become one."""
    from hydra.errors import HydraException
    from hydra.utils import instantiate

    try:
        return instantiate(arguments, **more)
    except HydraException as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, AtlasError):
            raise cause from None
        raise ConfigError(f"{where}: {str(cause).splitlines()[0]}; correct the file") from None


def build_model(model: Mapping[str, Any], vocab: Vocabulary | None = None, **sizes: Any) -> nn.Module:
    """The model of conf/model/<name>.yaml for the given sizes. Raises ConfigError for a wrong argument."""
    arguments = {k: v for k, v in model.items() if k not in DESCRIPTION}
    built = _instantiate(arguments, f"conf/model: {model.get('name', arguments.get('_target_'))}", **sizes)
    if vocab is not None and hasattr(built, "set_vocabulary"):
        built.set_vocabulary(vocab)
    return built


def build_task(cfg: DictConfig) -> Any:
    """The task of `cfg.train`, what stands under `cfg.model.training` merged over it."""
    _, training, seed = run_config(cfg)
    return _instantiate(training["task"], "conf/train: task", seed=seed)


def prepare_and_train(
    cfg: DictConfig,
    work: Path,
    device: str,
    join: Callable[[], None],
    task: Any = None,
    corpus: Corpus | None = None,
    out: Path | None = None,
    on_metrics: OnMetrics | None = None,
) -> dict[str, float]:
    """From `cfg` alone to a trained model, in one of several processes (training/processes.py)."""
    from contextlib import nullcontext

    from hydra.utils import instantiate

    from attention_atlas import resolvers  # noqa: F401  (registers what conf/ uses)
    from attention_atlas.paths import features_path
    from attention_atlas.stage import seed_everything
    from attention_atlas.vision.features_file import FeaturesFile, with_regions

    seed_everything(int(cfg.seed))
    task = task or build_task(cfg)
    corpus = corpus or instantiate(cfg.data.reader)
    wants_features = getattr(task, "uses_features", True)
    with FeaturesFile(features_path(cfg)) if wants_features else nullcontext() as features:
        task.prepare(corpus if features is None else with_regions(corpus, features), features)
        join()
        return train_task(cfg, task, out, work, device, on_metrics)


def train_task(
    cfg: DictConfig,
    task: Any,
    out: Path | None,
    work: Path,
    device: str = "cpu",
    on_metrics: OnMetrics | None = None,
) -> dict[str, float]:
    """Train `cfg.model` on a prepared task as `cfg.train` says and write the run folder `out` (None: another
    process writes it).

    Goes on from `work` after a kill. Returns the metrics of the checkpoint that was kept.
    """
    import torch

    model_config, training, seed = run_config(cfg)
    settings = TrainSettings.read(training["loop"], "conf/train: loop")
    sizes = task.model_sizes()
    torch.manual_seed(seed)
    model = build_model(model_config, getattr(task, "vocab", None), **sizes)
    if hasattr(task, "start"):
        task.start(model)
    weights, history = train(task, model, settings, Path(work), device, seed, on_metrics)
    config = {"model": model_config, "train": training, "seed": seed, "sizes": sizes}
    if out is not None:
        save_run(Path(out), weights, config, history)
        task.save(Path(out))
    metric, direction = task.best
    return (max if direction == "max" else min)(history, key=lambda row: row[metric])


def train_captioner(
    cfg: DictConfig,
    corpus: Corpus,
    features: FeaturesFile,
    out: Path,
    work: Path,
    device: str = "cpu",
    on_metrics: OnMetrics | None = None,
) -> dict[str, float]:
    """build_task, prepare and train_task in one call."""
    task = build_task(cfg)
    task.prepare(corpus, features)
    return train_task(cfg, task, out, work, device, on_metrics)


def run_config(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Resolved model and train sections, the model's own training values merged in, and the seed."""
    from omegaconf import OmegaConf

    from attention_atlas import resolvers  # noqa: F401  (registers what conf/ uses)

    resolved: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    model, training = resolved["model"], resolved["train"]
    merged: Any = OmegaConf.to_container(OmegaConf.merge(training, model.get("training") or {}))
    return {k: v for k, v in model.items() if k != "training"}, merged, int(resolved["seed"])


def save_run(
    folder: Path, weights: dict[str, Any], config: dict[str, Any], history: list[dict[str, float]]
) -> None:
    import csv

    import yaml
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(weights, temporary)
    with atomic_path(folder / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=True, allow_unicode=True), encoding="utf-8")
    with atomic_path(folder / "history.csv") as temporary, temporary.open("w", newline="") as file:
        # Weights that are validated before the first update have no training loss yet.
        columns = dict.fromkeys(name for row in reversed(history) for name in row)
        writer = csv.DictWriter(file, list(columns), restval="nan", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in history)


def load_run(folder: str | Path, device: str = "cpu") -> tuple[nn.Module, Any, dict[str, Any]]:
    """(model in evaluation mode on `device`, its Vocabulary or None, configuration) of a run folder.

    Raises AtlasError for a missing or broken file, or weights that do not fit the configuration.
    """
    import yaml
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in ("config.yaml", "model.safetensors"):
        if not (folder / name).exists():
            raise AtlasError(f"{folder / name}: no such file; train the model (dvc repro)")
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        sizes = config["sizes"]
    except (yaml.YAMLError, KeyError, TypeError):
        raise AtlasError(
            f"{folder / 'config.yaml'}: not the configuration of a run; train the model anew"
        ) from None
    vocab = None
    if "vocab_size" in sizes:
        vocab = Vocabulary.load(folder / "vocab.json")
        if len(vocab) != sizes["vocab_size"]:
            raise AtlasError(
                f"{folder / 'vocab.json'}: has {len(vocab)} ids, config.yaml says {sizes['vocab_size']}; "
                "train the model anew"
            )
    model = build_model(config["model"], **sizes)
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (SafetensorError, RuntimeError) as error:
        first = " ".join(str(error).split())[:200]
        raise AtlasError(f"{folder / 'model.safetensors'}: {first}; train the model anew") from None
    return model.to(device).eval(), vocab, config
