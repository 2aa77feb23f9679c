"""The loop: learns, resumes to the same bytes, keeps the best, serves several optimisers."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from captioning_world import config, corpus, train_captioner, write_features
from torch import Tensor, nn

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import sha256
from attention_atlas.models.run_folder import load_run, save_run
from attention_atlas.regions.features_file import FeaturesFile
from attention_atlas.training.loop import train
from attention_atlas.training.optimizers import adam
from attention_atlas.training.run import build_task, run_config
from attention_atlas.training.settings import Schedule, TrainSettings

FILES = ("model.safetensors", "config.yaml", "vocab.json", "history.csv")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeaturesFile:
    return FeaturesFile(write_features(tmp_path_factory.mktemp("f") / "f.h5", corpus()))


def digests(folder: Path) -> dict[str, str]:
    return {name: sha256(folder / name) for name in FILES}


class Killed(Exception):
    pass


# --- a line to fit: small enough to know the answer -----------------------------------------------------


class Line:
    """Fit y = 2x; 'loss' is the distance of the slope from 2."""

    best = ("loss", "min")

    def __init__(self, n: int = 8) -> None:
        self.n = n

    def steps_per_epoch(self) -> int:
        return self.n

    def batches(self, epoch: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        for i in range(start, self.n):
            x = torch.tensor([[1.0 + (i * 7 + epoch) % 5]])
            yield {"x": x, "y": 2 * x}

    def losses(self, model: nn.Module, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        yield "all", ((model(batch["x"]) - batch["y"]) ** 2).mean()

    def validate(self, model: Any) -> dict[str, float]:
        return {"loss": abs(float(model.weight) - 2)}


def slope() -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def test_it_fits_a_line_and_reports_it(tmp_path: Path) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    settings = TrainSettings(epochs=12, lr=0.1)
    log = lambda step, row: logged.append((step, row))  # noqa: E731
    weights, history = train(Line(), slope(), settings, tmp_path, on_metrics=log)
    assert abs(float(weights["weight"]) - 2) < 0.1
    assert [row["step"] for row in history] == [8 * e for e in range(1, 13)]
    assert [s for s, _ in logged] == [8 * e for e in range(1, 13)]
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 10


def test_the_best_checkpoint_is_kept_not_the_last(tmp_path: Path) -> None:
    class Worsening(Line):
        calls = 0

        def validate(self, model: Any) -> dict[str, float]:
            self.calls += 1
            self.slopes = [*getattr(self, "slopes", []), float(model.weight)]
            return {"loss": [3.0, 1.0, 2.0][self.calls - 1]}

    task = Worsening()
    weights, _ = train(task, slope(), TrainSettings(epochs=3, lr=0.01), tmp_path)
    assert float(weights["weight"]) == task.slopes[1] != task.slopes[2]


def test_validation_within_epochs_changes_only_what_is_recorded(tmp_path: Path) -> None:
    class Last(Line):
        def validate(self, model: Any) -> dict[str, float]:
            assert not model.training
            torch.rand(7)
            self.count = getattr(self, "count", 0) + 1
            return {"loss": -float(self.count)}

        def losses(self, model: nn.Module, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
            assert model.training
            noise = torch.rand(()) / 10
            yield "all", ((model(batch["x"]) - batch["y"] - noise) ** 2).mean()

    found = {}
    for steps in (0, 3):
        settings = TrainSettings(epochs=3, max_steps=18, validate_every=2, validate_steps=steps, lr=0.1)
        found[steps] = train(Last(7), slope(), settings, tmp_path / str(steps))
    assert [row["step"] for row in found[0][1]] == [14, 18]
    # 3 batches after the last one, at the end of every second epoch, and at the end.
    assert [row["step"] for row in found[3][1]] == [3, 6, 9, 12, 14, 17, 18]
    assert found[0][0]["weight"] == found[3][0]["weight"]


@pytest.mark.parametrize("good", [0.0, 2.0])
def test_fine_tuning_that_makes_things_worse_keeps_the_starting_weights(tmp_path: Path, good: float) -> None:
    class Tuned(Line):
        continues = True

        def validate(self, model: Any) -> dict[str, float]:
            return {"loss": abs(float(model.weight) - good)}

    settings = TrainSettings(epochs=2, lr=0.05)
    weights, history = train(Tuned(), slope(), settings, tmp_path / "work")  # learns to go from 0 to 2
    assert [row["step"] for row in history] == [0, 8, 16] and "train_loss" not in history[0]
    assert (float(weights["weight"]) == 0.0) == (good == 0.0)
    # A run resumed from its checkpoint does not validate the initial weights again.
    assert train(Tuned(), slope(), settings, tmp_path / "work")[1] == history
    save_run(tmp_path / "run", weights, {"sizes": {}}, history)
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["train_loss"] == "nan" and float(rows[2]["train_loss"]) >= 0


def test_one_step_of_adam_is_the_schedule_s_rate(tmp_path: Path) -> None:
    # Adam's first step is lr in the direction of the sign, for any gradient.
    settings = TrainSettings(epochs=1, max_steps=1, lr=1.0, schedule=Schedule("noam", 4, 0.5, 16))
    weights, history = train(Line(), slope(), settings, tmp_path)
    rate = 0.5 * 16**-0.5 * 1 * 4**-1.5
    assert float(weights["weight"]) == pytest.approx(rate, rel=1e-4)
    assert history[0]["lr"] == pytest.approx(rate)


def test_accumulation_is_one_step_over_the_mean_gradient(tmp_path: Path) -> None:
    model = slope()
    settings = TrainSettings(epochs=1, lr=0.1, accumulate=3, max_steps=3)

    class Sgd(Line):
        def optimizers(self, model: nn.Module, settings: TrainSettings) -> dict[str, Any]:
            return {"all": torch.optim.SGD(model.parameters(), lr=0.01)}

    weights, _ = train(Sgd(), model, settings, tmp_path)
    xs = [float(b["x"]) for b in list(Line().batches(0))[:3]]
    gradient = sum(-2 * x * 2 * x for x in xs) / 3  # d/dw (wx − 2x)² at w = 0
    assert float(weights["weight"]) == pytest.approx(-0.01 * gradient, rel=1e-5)


@pytest.mark.parametrize(("clip", "want"), [({"clip_value": 0.1}, 0.1), ({"clip_norm": 0.5}, 0.5)])
def test_clipping_bounds_the_step(tmp_path: Path, clip: dict[str, float], want: float) -> None:
    class Sgd(Line):
        def optimizers(self, model: nn.Module, settings: TrainSettings) -> dict[str, Any]:
            return {"all": torch.optim.SGD(model.parameters(), lr=1.0)}

    weights, _ = train(Sgd(), slope(), TrainSettings(max_steps=1, **clip), tmp_path)  # type: ignore[arg-type]
    assert float(weights["weight"]) == pytest.approx(want, rel=1e-4)


def test_a_prefix_selects_what_is_clipped(tmp_path: Path) -> None:
    model = nn.ModuleDict({"text": nn.Linear(1, 1, bias=False), "image": nn.Linear(1, 1, bias=False)})
    for parameter in model.parameters():
        nn.init.zeros_(parameter)

    class Both(Line):
        def optimizers(self, model: nn.Module, settings: TrainSettings) -> dict[str, Any]:
            return {"all": torch.optim.SGD(model.parameters(), lr=1.0)}

        def losses(self, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
            yield "all", -(model["text"](batch["x"]) + 2 * model["image"](batch["x"])).mean()

        def validate(self, model: Any) -> dict[str, float]:
            return {"loss": 0.0}

    settings = TrainSettings(max_steps=1, clip_norm=0.25, clip_prefix="text.")
    weights, _ = train(Both(), model, settings, tmp_path)
    x = float(next(iter(Line().batches(0)))["x"])
    assert float(weights["text.weight"]) == pytest.approx(0.25, rel=1e-4)
    assert float(weights["image.weight"]) == pytest.approx(2 * x)
    with pytest.raises(ConfigError, match="clip_prefix: no parameter's name begins with 'words'"):
        train(Both(), model, TrainSettings(clip_norm=1.0, clip_prefix="words"), tmp_path / "x")


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    class Bad(Line):
        def losses(self, model: nn.Module, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
            yield "all", model(batch["x"]).mean() * (float("nan") if step == 3 else 1.0)

    with pytest.raises(AtlasError, match="loss 'all' is nan at step 3"):
        train(Bad(), slope(), TrainSettings(), tmp_path)


# --- two players ----------------------------------------------------------------------------------------


class Players(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.tensor(0.0))
        self.d = nn.Parameter(torch.tensor(0.0))


class Game:
    """d learns to be g + 1, then g learns to be d: each loss holds both parameters."""

    best = ("loss", "min")

    def steps_per_epoch(self) -> int:
        return 4

    def batches(self, epoch: int, start: int = 0) -> Iterator[int]:
        yield from range(start, 4)

    def optimizers(self, model: Any, settings: TrainSettings) -> dict[str, Any]:
        return {"d": torch.optim.SGD([model.d], lr=0.5), "g": torch.optim.SGD([model.g], lr=0.5)}

    def losses(self, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        yield "d", (model.d - model.g - 1) ** 2
        yield "g", (model.g - model.d) ** 2

    def validate(self, model: Any) -> dict[str, float]:
        return {"loss": float(-model.g)}


def test_each_loss_moves_its_own_player_and_the_second_sees_the_first_s_step(tmp_path: Path) -> None:
    weights, history = train(Game(), Players(), TrainSettings(epochs=1, max_steps=2), tmp_path)
    # SGD at 0.5 on a square goes straight to its minimum: d = g + 1, then g = d; twice.
    assert (float(weights["d"]), float(weights["g"])) == (2.0, 2.0)
    assert {"train_loss_d", "train_loss_g"} <= set(history[0])


# --- captioning, end to end -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["object_relation", "lstm", "blind"])
def test_a_killed_run_resumes_to_the_same_bytes(name: str, tmp_path: Path, features: FeaturesFile) -> None:
    """Killed in the middle of an epoch, between validation and checkpoint, and again after it."""
    cfg = config(
        name, epochs=3, validate_steps=2, checkpoint_seconds=0.0, schedule={"name": "linear", "warmup": 3}
    )
    train_captioner(cfg, corpus(), features, tmp_path / "whole", tmp_path / "w1")

    def die_at_validation(step: int, metrics: dict[str, float]) -> None:
        raise Killed

    with pytest.raises(Killed):
        train_captioner(
            cfg, corpus(), features, tmp_path / "cut", tmp_path / "w2", on_metrics=die_at_validation
        )

    from attention_atlas.training.tasks.captioning import CaptioningTask

    original = CaptioningTask.losses

    def die_at_eight(self: Any, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        if step == 8:
            raise Killed
        yield from original(self, model, batch, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CaptioningTask, "losses", die_at_eight)
        with pytest.raises(Killed):
            train_captioner(cfg, corpus(), features, tmp_path / "cut", tmp_path / "w2")
    assert not (tmp_path / "cut").exists()
    torch.manual_seed(99)  # whatever happened in between
    train_captioner(cfg, corpus(), features, tmp_path / "cut", tmp_path / "w2")
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


def test_resuming_does_not_start_over(tmp_path: Path, features: FeaturesFile) -> None:
    from attention_atlas.training.tasks.captioning import CaptioningTask

    cfg = config("blind", epochs=3)
    seen: list[int] = []
    original = CaptioningTask.losses

    def count(self: Any, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        seen.append(step)
        if step == 12 and seen.count(12) == 1:
            raise Killed
        yield from original(self, model, batch, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CaptioningTask, "losses", count)
        with pytest.raises(Killed):
            train_captioner(cfg, corpus(), features, tmp_path / "o", tmp_path / "w")
        train_captioner(cfg, corpus(), features, tmp_path / "o", tmp_path / "w")
    # 5 batches per epoch: the second start resumes after the second validation, at step 11.
    assert seen == [*range(1, 13), *range(11, 16)]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, features: FeaturesFile) -> None:
    train_captioner(config("blind"), corpus(), features, tmp_path / "a", tmp_path / "w")
    with pytest.raises(AtlasError, match=r"checkpoint.pt: belongs to another run"):
        train_captioner(config("blind", lr=0.02), corpus(), features, tmp_path / "a", tmp_path / "w")


def test_the_captioner_learns_from_the_image_and_the_blind_one_cannot(
    tmp_path: Path, features: FeaturesFile
) -> None:
    best = {}
    for name in ("object_relation", "blind"):
        cfg = config(name, epochs=40, validate_every=10)
        best[name] = train_captioner(cfg, corpus(), features, tmp_path / name, tmp_path / f"{name}.w")
    assert best["object_relation"]["loss"] < best["blind"]["loss"] - 0.05
    assert best["object_relation"]["cider"] > best["blind"]["cider"]


def test_a_run_folder_loads_back(tmp_path: Path, features: FeaturesFile) -> None:
    cfg = config("lstm")
    best = train_captioner(cfg, corpus(), features, tmp_path / "run", tmp_path / "w")
    model, vocab, saved = load_run(tmp_path / "run")
    assert not model.training
    assert saved["sizes"] == {"vocab_size": len(vocab), "feature_dim": 8}
    task = build_task(cfg)
    task.prepare(corpus(), features, vocab)
    assert task.validate(model)["loss"] == pytest.approx(best["loss"], abs=1e-5)
    with (tmp_path / "run/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["epoch"]) for r in rows] == [1, 2]
    assert set(rows[0]) == {"epoch", "step", "train_loss", "lr", "loss", "cider"}


def test_bad_run_folders_are_named(tmp_path: Path, features: FeaturesFile) -> None:
    with pytest.raises(AtlasError, match=r"config.yaml: no such file"):
        load_run(tmp_path / "none")
    folder = tmp_path / "run"
    train_captioner(config("blind", epochs=1), corpus(), features, folder, tmp_path / "w")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(AtlasError, match=r"model.safetensors: .*retrain the model"):
        load_run(folder)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "vocab.json").write_text('{"schema": "atlas.vocab/1", "words": ["a"]}')
    with pytest.raises(AtlasError, match=r"vocab.json: has 5 ids, config.yaml expects"):
        load_run(folder)
    text = (folder / "config.yaml").read_text()
    whole = text.splitlines(keepends=True)
    # Also where what is left is valid YAML: without its last line, and without the end of a nested part.
    for broken in ("just text", "", "\xff", "".join(whole[:-1]), "".join(whole[:-2]), text[:-4]):
        (folder / "config.yaml").write_text(broken, encoding="latin-1")
        with pytest.raises(AtlasError, match=r"config.yaml: is not the configuration of a run, or cut off"):
            load_run(folder)
    (folder / "config.yaml").write_text("just text")
    with pytest.raises(AtlasError, match=r"config.yaml: is not the configuration of a run"):
        load_run(folder)


def test_a_model_s_own_training_values_win(features: FeaturesFile) -> None:
    cfg = config("lstm")
    cfg.model.training = {"loop": {"lr": 0.5}, "task": {"batch_size": 2}}
    model, training, _ = run_config(cfg)
    assert "training" not in model
    assert (training["loop"]["lr"], training["task"]["batch_size"]) == (0.5, 2)
    assert training["loop"]["epochs"] == 2


def test_wrong_model_arguments_are_one_line(tmp_path: Path, features: FeaturesFile) -> None:
    cfg = config("blind")
    cfg.model.layer = 3
    with pytest.raises(ConfigError, match=r"^model: blind: .*unexpected keyword argument 'layer'"):
        train_captioner(cfg, corpus(), features, tmp_path / "o", tmp_path / "w")
    cfg = config("blind")
    cfg.model.heads = 3
    with pytest.raises(ConfigError, match=r"dim: 16 is not a multiple of heads 3"):
        train_captioner(cfg, corpus(), features, tmp_path / "o", tmp_path / "w")


def test_an_absent_split_is_named(tmp_path: Path, features: FeaturesFile) -> None:
    cfg = config("blind")
    cfg.train.task.split = "extra"
    with pytest.raises(AtlasError, match="split 'extra' has no example"):
        train_captioner(cfg, corpus(), features, tmp_path / "o", tmp_path / "w")
    with pytest.raises(ConfigError, match="select_on: must be val or test"):
        cfg.train.task.select_on = "train"
        build_task(cfg)


def test_weight_decay_chooses_adamw() -> None:
    parameters = [nn.Parameter(torch.zeros(1))]
    assert type(adam(parameters, TrainSettings(weight_decay=0.1))) is torch.optim.AdamW
    assert type(adam(parameters, TrainSettings())) is torch.optim.Adam


def test_learning_rates_scale_by_the_longest_prefix(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "ab": nn.Linear(1, 1, bias=False)})
    for parameter in model.parameters():
        nn.init.zeros_(parameter)

    class Both(Line):
        def losses(self, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
            yield "all", sum(((layer(batch["x"]) - 1) ** 2).mean() for layer in model.values())

        def validate(self, model: Any) -> dict[str, float]:
            return {"loss": 0.0}

    settings = TrainSettings(max_steps=1, lr=0.1, lr_scales={"a": 0.5, "ab": 0.25})
    weights, _ = train(Both(), model, settings, tmp_path)
    # Adam's first step is the rate itself.
    assert float(weights["a.weight"]) == pytest.approx(0.05, rel=1e-4)
    assert float(weights["ab.weight"]) == pytest.approx(0.025, rel=1e-4)
    with pytest.raises(ConfigError, match="lr_scales: no parameter's name begins with 'encoder'"):
        train(Both(), model, TrainSettings(lr_scales={"encoder": 0.1}), tmp_path / "x")
