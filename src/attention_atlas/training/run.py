"""From a configuration to a run folder (model.safetensors, config.yaml, vocab.json, history.csv) and back."""

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
DESCRIPTION = ("name", "title", "task", "training")


def build_model(model: Mapping[str, Any], vocab: Vocabulary | None = None, **sizes: int) -> nn.Module:
    """The model of conf/model/<name>.yaml for the given sizes. Raises ConfigError for a wrong argument."""
    from hydra.errors import HydraException
    from hydra.utils import instantiate

    arguments = {k: v for k, v in model.items() if k not in DESCRIPTION}
    try:
        built = instantiate(arguments, **sizes)
    except HydraException as error:
        name = model.get("name", arguments.get("_target_"))
        raise ConfigError(f"conf/model: {name}: {str(error).splitlines()[0]}; correct the file") from None
    if vocab is not None and hasattr(built, "set_vocabulary"):
        built.set_vocabulary(vocab)
    return built


def train_captioner(
    cfg: DictConfig,
    corpus: Corpus,
    features: FeaturesFile,
    out: Path,
    work: Path,
    device: str = "cpu",
    on_metrics: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train `cfg.model` as `cfg.train` says (what stands under `cfg.model.training` wins) and write `out`.

    Goes on from `work` after a kill. Returns the metrics of the checkpoint that was kept.
    """
    import torch
    from hydra.utils import instantiate

    model_config, train_config, seed = run_config(cfg)
    task = instantiate(train_config["task"], seed=seed)
    task.prepare(corpus, features)
    settings = TrainSettings.read(train_config["loop"], "conf/train: loop")
    torch.manual_seed(seed)
    model = build_model(model_config, task.vocab, **task.model_sizes())
    weights, history = train(task, model, settings, Path(work), device, seed, on_metrics)
    config = {"model": model_config, "train": train_config, "seed": seed, "sizes": task.model_sizes()}
    save_run(Path(out), weights, task.vocab, config, history)
    metric, direction = task.best
    return (max if direction == "max" else min)(history, key=lambda row: row[metric])


def run_config(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Resolved model and train sections, the model's own training values merged in, and the seed."""
    from omegaconf import OmegaConf

    from attention_atlas import resolvers  # noqa: F401  (registers what conf/ uses)

    resolved: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    model, training = resolved["model"], resolved["train"]
    merged: Any = OmegaConf.to_container(OmegaConf.merge(training, model.get("training") or {}))
    return {k: v for k, v in model.items() if k != "training"}, merged, int(resolved["seed"])


def save_run(
    folder: Path,
    weights: dict[str, Any],
    vocab: Vocabulary,
    config: dict[str, Any],
    history: list[dict[str, float]],
) -> None:
    import csv

    import yaml
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(weights, temporary)
    vocab.save(folder / "vocab.json")
    with atomic_path(folder / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=True, allow_unicode=True), encoding="utf-8")
    with atomic_path(folder / "history.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in history)


def load_run(folder: str | Path, device: str = "cpu") -> tuple[nn.Module, Vocabulary, dict[str, Any]]:
    """(model in evaluation mode on `device`, vocabulary, configuration) of a run folder.

    Raises AtlasError for a missing or broken file, or weights that do not fit the configuration.
    """
    import yaml
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in ("config.yaml", "vocab.json", "model.safetensors"):
        if not (folder / name).exists():
            raise AtlasError(f"{folder / name}: no such file; train the model (dvc repro)")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    vocab = Vocabulary.load(folder / "vocab.json")
    if len(vocab) != config["sizes"].get("vocab_size", len(vocab)):
        raise AtlasError(
            f"{folder / 'vocab.json'}: has {len(vocab)} ids, config.yaml says otherwise; train anew"
        )
    model = build_model(config["model"], **config["sizes"])
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise AtlasError(f"{folder / 'model.safetensors'}: {first}; train the model anew") from None
    return model.to(device).eval(), vocab, config
