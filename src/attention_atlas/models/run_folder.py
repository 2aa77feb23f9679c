"""A run folder: model.safetensors, config.yaml, history.csv and the task's own files, such as vocab.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError, ConfigError, first_line
from attention_atlas.files import atomic_path
from attention_atlas.language.subwords import Subwords
from attention_atlas.language.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import nn

# Keys of conf/model/<name>.yaml that are not arguments of the model's class.
DESCRIPTION = ("name", "title", "task", "training", "evaluator", "run_folder")


def instantiated(arguments: Mapping[str, Any], where: str, **more: Any) -> Any:
    """Hydra's instantiate with one-line errors. `where` names the arguments in a ConfigError."""
    from hydra.errors import HydraException
    from hydra.utils import instantiate

    try:
        return instantiate(arguments, **more)
    except HydraException as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, ConfigError) and not str(cause).startswith(("conf/", "model: ", "train: ")):
            raise ConfigError(f"{where}: {cause}") from None
        if isinstance(cause, AtlasError):
            raise cause from None
        raise ConfigError(f"{where}: {first_line(cause)}; correct the file") from None


def arguments_of(model: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in model.items() if k not in DESCRIPTION}


def build_model(model: Mapping[str, Any], vocab: Vocabulary | None = None, **sizes: Any) -> nn.Module:
    """Build the model of conf/model/<name>.yaml. Raises ConfigError for a wrong argument."""
    arguments = arguments_of(model)
    built = instantiated(arguments, f"model: {model.get('name', arguments.get('_target_'))}", **sizes)
    if vocab is not None and hasattr(built, "set_vocabulary"):
        built.set_vocabulary(vocab)
    return built


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
        text = yaml.safe_dump(config, sort_keys=True, allow_unicode=True, explicit_end=True)
        temporary.write_text(text, encoding="utf-8")
    with atomic_path(folder / "history.csv") as temporary, temporary.open("w", newline="") as file:
        # A row validated before the first update has no training loss.
        columns = dict.fromkeys(name for row in reversed(history) for name in row)
        writer = csv.DictWriter(file, list(columns), restval="nan", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in history)


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.yaml of a run folder. Raises AtlasError for a file that is missing, broken or cut off."""
    import yaml

    path = Path(folder) / "config.yaml"
    if not path.exists():
        raise AtlasError(f"{path}: no such file; train the model (dvc repro)")
    try:
        text = path.read_text(encoding="utf-8")
        config = yaml.safe_load(text)
        known = {"model", "sizes"} <= config.keys()
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError):
        known = False
    # The first half of a YAML file is often valid YAML, hence the mark at the end.
    if not known or not text.endswith("\n...\n"):
        raise AtlasError(f"{path}: is not the configuration of a run, or cut off; retrain the model")
    return dict(config)


def read_history(folder: str | Path) -> list[dict[str, float]]:
    """history.csv of a run folder, one dict per validation."""
    import csv

    with (Path(folder) / "history.csv").open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def load_run(folder: str | Path, device: str = "cpu") -> tuple[nn.Module, Any, dict[str, Any]]:
    """(model in evaluation mode on `device`, Vocabulary, Subwords or None, configuration) of a run folder.

    Raises AtlasError for a missing or broken file, or for weights that do not match the configuration.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    config = read_config(folder)
    sizes = config["sizes"]
    if not (folder / "model.safetensors").exists():
        raise AtlasError(f"{folder / 'model.safetensors'}: no such file; train the model (dvc repro)")
    vocab: Vocabulary | Subwords | None = None
    expected = sizes.get("vocab_size")
    if expected is not None:
        vocab = Vocabulary.load(folder / (name := "vocab.json"))
    elif (folder / "subwords.json").exists():
        vocab, expected = Subwords.load(folder / (name := "subwords.json")), sizes.get("pieces")
    if vocab is not None and len(vocab) != expected:
        raise AtlasError(
            f"{folder / name}: has {len(vocab)} ids, config.yaml expects {expected}; retrain the model"
        )
    model = build_model(config["model"], **sizes)
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (SafetensorError, RuntimeError) as error:
        first = " ".join(str(error).split())[:200]
        raise AtlasError(f"{folder / 'model.safetensors'}: {first}; retrain the model") from None
    return model.to(device).eval(), vocab, config
