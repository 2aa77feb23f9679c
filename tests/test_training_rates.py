"""Learning-rate schedules and the moving average of weights: worked by hand, against torch, after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attention_atlas.errors import ConfigError
from attention_atlas.training.loop import train
from attention_atlas.training.settings import Schedule, TrainSettings


class Slope:
    """Fit y = 2x with plain gradient descent; validation reports what `values` says, one per epoch."""

    best = ("score", "max")

    def __init__(self, values: list[float] | None = None, batches: int = 2, die_at: int = 0) -> None:
        self.values, self.count, self.die_at = values, batches, die_at

    def optimizers(self, model: nn.Module, settings: TrainSettings) -> dict[str, Any]:
        return {"all": torch.optim.SGD(model.parameters(), lr=settings.lr, momentum=0.5)}

    def steps_per_epoch(self) -> int:
        return self.count

    def batches(self, epoch: int, start: int = 0) -> Iterator[int]:
        self.epoch = epoch
        yield from range(start, self.count)

    def losses(self, model: nn.Module, batch: int, step: int) -> Iterator[tuple[str, Tensor]]:
        if step == self.die_at:
            raise KeyboardInterrupt
        x = torch.tensor([[1.0 + batch]])
        yield "all", ((model(x) - 2 * x) ** 2).mean()

    def validate(self, model: Any) -> dict[str, float]:
        self.seen = [*getattr(self, "seen", []), float(model.weight)]
        return {"score": self.values[self.epoch] if self.values else float(model.weight)}


def line() -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def rates(schedule: Schedule, updates: int, epoch: int = 1) -> list[float]:
    return [schedule.scale(step, updates, epoch) for step in range(1, updates + 1)]


def test_steps_with_warm_up_are_those_of_torch() -> None:
    """M4C's schedule: a rise from a fifth, then a tenth of the rate at two updates."""
    schedule = Schedule("steps", warmup=4, warmup_from=0.2, factor=0.1, milestones=(8, 11))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.2, total_iters=4)
    down = torch.optim.lr_scheduler.MultiStepLR(optimizer, [8, 11], 0.1)
    expected = []
    for _ in range(14):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        warm.step()
        down.step()
    assert rates(schedule, 14) == pytest.approx(expected, rel=1e-12)
    assert rates(schedule, 14)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates(schedule, 14)[7:9] == pytest.approx([1.0, 0.1])


def test_steps_may_count_epochs() -> None:
    """SCAN on Flickr30k: 30 epochs, a tenth of the rate from the sixteenth on."""
    schedule = Schedule("steps", factor=0.1, milestones=(15,), unit="epoch")
    found = rates(schedule, 30 * 7, epoch=7)
    assert found == pytest.approx([1.0] * 15 * 7 + [0.1] * 15 * 7)


def test_steps_may_come_regularly_and_end_at_a_least_rate() -> None:
    """DAMSM: times 0.98 after each epoch until the rate is at most a tenth."""
    schedule = Schedule("steps", factor=0.98, every=1, unit="epoch", least=0.1)
    rate, expected = 1.0, []
    for _ in range(200):
        expected += [rate] * 3
        if rate > 0.1:
            rate *= 0.98
    assert rates(schedule, 600, epoch=3) == pytest.approx(expected)
    every_third = Schedule("steps", factor=0.8, every=3, unit="epoch")
    assert rates(every_third, 7) == pytest.approx([1, 1, 1, 0.8, 0.8, 0.8, 0.64])


def test_plateau_reduces_after_a_validation_that_is_no_better(tmp_path: Path) -> None:
    values = [1.0, 2.0, 2.0, 1.5, 3.0, 3.0]
    settings = TrainSettings(epochs=6, lr=0.4, schedule=Schedule("plateau", factor=0.5))
    _, history = train(Slope(values), line(), settings, tmp_path)
    # Epochs 3, 4 and 6 are no better than the best so far, so the epochs after 3 and 4 are slower.
    assert [row["lr"] for row in history] == pytest.approx([0.4, 0.4, 0.4, 0.2, 0.1, 0.1])
    settings.schedule.patience = 1
    _, history = train(Slope(values), line(), settings, tmp_path / "patient")
    assert [row["lr"] for row in history] == pytest.approx([0.4, 0.4, 0.4, 0.4, 0.2, 0.2])


def test_plateau_knows_when_less_is_better(tmp_path: Path) -> None:
    class Loss(Slope):
        best = ("score", "min")

    settings = TrainSettings(epochs=3, lr=0.4, schedule=Schedule("plateau", factor=0.5))
    _, history = train(Loss([3.0, 2.0, 1.0]), line(), settings, tmp_path)
    assert [row["lr"] for row in history] == pytest.approx([0.4, 0.4, 0.4])


def test_the_average_is_what_is_validated_and_kept(tmp_path: Path) -> None:
    task = Slope(batches=1)
    settings = TrainSettings(epochs=3, lr=0.1, average=0.9)
    task.optimizers = lambda model, _: {"all": torch.optim.SGD(model.parameters(), lr=0.1)}  # type: ignore[method-assign]
    weights, _ = train(task, line(), settings, tmp_path)
    # One batch with x = 1: w <- w - 0.1 · 2 (w - 2), from 0; the average begins there too.
    w, average, expected = 0.0, 0.0, []
    for _ in range(3):
        w -= 0.2 * (w - 2)
        average = 0.9 * average + 0.1 * w
        expected.append(average)
    assert task.seen == pytest.approx(expected)
    assert float(weights["weight"]) == pytest.approx(expected[-1])
    assert float(weights["weight"]) < w / 2


def test_buffers_follow_the_model(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        def __init__(self) -> None:
            super().__init__(1, 1, bias=False)
            self.register_buffer("calls", torch.zeros((), dtype=torch.long))
            nn.init.zeros_(self.weight)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x)

    weights, _ = train(Slope(), Counting(), TrainSettings(epochs=2, lr=0.1, average=0.99), tmp_path)
    assert int(weights["calls"]) == 4


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule("plateau", factor=0.5),
        Schedule("steps", warmup=2, warmup_from=0.2, factor=0.1, milestones=(3,), unit="epoch"),
    ],
    ids=["plateau", "steps"],
)
@pytest.mark.parametrize("die_at", range(2, 16))
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, schedule: Schedule, die_at: int) -> None:
    values = [1.0, 2.0, 2.0, 1.5, 2.5]
    settings = TrainSettings(epochs=5, lr=0.05, average=0.8, schedule=schedule, checkpoint_seconds=0.0)
    whole, rows = train(Slope(values, 3), line(), settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Slope(values, 3, die_at), line(), settings, tmp_path / "cut")
    again, history = train(Slope(values, 3), line(), settings, tmp_path / "cut")
    assert torch.equal(whole["weight"], again["weight"])
    assert [r["lr"] for r in rows] == [r["lr"] for r in history]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": {"name": "step"}}, "name: 'step' is unknown; did you mean 'steps'"),
        ({"schedule": {"name": "steps", "factor": 0.1}}, "milestones: steps needs"),
        ({"schedule": {"name": "steps", "milestones": [3]}}, "factor: steps needs a number between 0 and 1"),
        ({"schedule": {"name": "plateau", "factor": 0.5, "warmup": 3}}, "plateau has no warmup"),
        ({"schedule": {"unit": "epochs"}}, "unit: 'epochs' is unknown; did you mean 'epoch'"),
        ({"average": 1.0}, "average: must be at least 0 and below 1"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainSettings.read(values)
