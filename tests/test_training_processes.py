"""Several processes learn what one learns, to the byte; whichever fails, the user reads why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attention_atlas.errors import AtlasError
from attention_atlas.training.loop import train
from attention_atlas.training.processes import process_count, together
from attention_atlas.training.settings import TrainSettings

STEPS = 6


class Net(nn.Module):
    """Two layers with dropout, a convolution whose weights lie channels last in memory, one parameter that
    only odd batches use, and one that no batch uses."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 3, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.body = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))
        self.odd, self.never = nn.Parameter(torch.tensor(0.1)), nn.Parameter(torch.tensor(7.0))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        images = batch["x"][:, :, None, None].expand(-1, -1, 4, 4).cumsum(-1)
        y = self.body(self.see(images.contiguous(memory_format=torch.channels_last)).mean((2, 3)))
        return y + self.odd if int(batch["number"]) % 2 else y


class Sine:
    best = ("loss", "min")

    def steps_per_epoch(self) -> int:
        return int(os.environ.get("ATLAS_TEST_STEPS", STEPS))

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[dict[str, Tensor]]:
        for number in range(start, self.steps_per_epoch(), every):
            generator = torch.Generator().manual_seed(100 * epoch + number)
            yield {"x": torch.randn(5, 3, generator=generator), "number": torch.tensor(number)}

    def losses(self, model: nn.Module, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        fault = os.environ.get("ATLAS_TEST_FAULT", "").split()
        if fault and fault[0] == str(step):
            {"nan": lambda: None, "exit": lambda: os._exit(3)}[fault[1]]()
            yield "all", model(batch).mean() * float("nan")
        yield "all", ((model(batch) - batch["x"].sin().sum(1, keepdim=True)) ** 2).mean()

    def validate(self, model: nn.Module) -> dict[str, float]:
        batch = next(self.batches(99))
        return {"loss": float(((model(batch) - batch["x"].sin().sum(1, keepdim=True)) ** 2).mean())}


def learn(
    work: Path,
    join: Callable[[], None],
    accumulate: int = 2,
    early_fault: bool | str = False,
    apart: bool = False,
    stop_at: int | None = None,
    here: bool = False,
    precision: str = "no",
) -> Any:
    """`here`: only the first process gets it."""
    if early_fault == "exit" and not here:
        os._exit(3)
    if early_fault and not here:
        raise AtlasError("texts.csv: no row")
    if apart and not here:
        work = work.with_name("of another machine")
    torch.manual_seed(0)
    model = Net()
    if not here:
        for parameter in model.parameters():  # every process starts from the first one's weights
            parameter.data.add_(1.0)
    join()
    settings = TrainSettings(
        epochs=4,
        lr=0.02,
        accumulate=accumulate,
        threads=1,
        clip_norm=1.0,
        weight_decay=0.1,
        precision=precision,
        checkpoint_seconds=0,
    )

    def at(step: int, row: dict[str, float]) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    return train(Sine(), model, settings, work, seed=5, on_metrics=at)


def run(count: int, work: Path, **arguments: Any) -> Any:
    own = {"here": True, "stop_at": arguments.pop("stop_at", None)}
    return together(count, learn, {"work": work, **arguments}, own)


def same(a: Any, b: Any) -> bool:
    """The same weights to the bit; the mean losses to the order in which they are added."""
    rows = all(x == pytest.approx(y, rel=1e-12) for x, y in zip(a[1], b[1], strict=True))
    return rows and a[0].keys() == b[0].keys() and all(torch.equal(a[0][k], b[0][k]) for k in a[0])


def test_two_processes_learn_the_bytes_that_one_learns(tmp_path: Path) -> None:
    one, two = run(1, tmp_path / "1"), run(2, tmp_path / "2")
    assert same(one, two)
    assert one[1][-1]["train_loss"] < one[1][0]["train_loss"]  # and something was learned
    assert float(one[0]["never"]) == 7.0  # neither decayed nor moved
    assert float(one[0]["odd"]) != pytest.approx(0.1)
    assert not same(one, run(1, tmp_path / "3", accumulate=1))


def test_a_batch_that_fills_no_update_is_left_out_by_one_process_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(1, tmp_path / "whole")
    monkeypatch.setenv("ATLAS_TEST_STEPS", str(STEPS + 1))
    one = run(1, tmp_path / "1")
    assert same(one, run(2, tmp_path / "2")) and same(one, whole)
    monkeypatch.setenv("ATLAS_TEST_STEPS", "1")  # less than an update: it is one
    few = run(1, tmp_path / "few")
    assert same(few, run(2, tmp_path / "few2")) and not same(few, whole)


def test_more_processes_than_an_update_has_batches_make_the_update_larger(tmp_path: Path) -> None:
    # As under `accelerate launch`: every process has a batch of its own.
    assert same(run(1, tmp_path / "1", accumulate=2), run(2, tmp_path / "2", accumulate=1))


def test_stopped_processes_resume_to_the_same_bytes(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(2, tmp_path / "w", stop_at=2 * STEPS)
    assert (tmp_path / "w/checkpoint.pt").exists()
    assert same(run(2, tmp_path / "w"), run(1, tmp_path / "whole"))


def test_another_number_of_processes_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    whole = run(1, tmp_path / "whole")
    for first, then in ((1, 2), (2, 1)):
        work = tmp_path / f"{first}{then}"
        with pytest.raises(KeyboardInterrupt):
            run(first, work, stop_at=2 * STEPS)
        assert same(run(then, work), whole)


def test_mixed_precision_and_accumulation_are_kept(tmp_path: Path) -> None:
    """Two batches in each of two processes: the sum of four gradients in another order."""
    one, two, full = (
        run(count, tmp_path / name, accumulate=4, precision=precision)
        for count, name, precision in ((1, "1", "bf16"), (2, "2", "bf16"), (1, "full", "no"))
    )
    for name, value in one[0].items():
        assert torch.allclose(two[0][name], value, atol=1e-5), name
    assert any(not torch.allclose(full[0][name], value, atol=1e-4) for name, value in one[0].items())


def test_the_reason_of_a_further_process_is_the_reason_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AtlasError, match=r"texts.csv: no row"):
        run(2, tmp_path / "a", early_fault=True)
    with pytest.raises(AtlasError, match="a process ended with code 3; start again"):
        run(3, tmp_path / "a", early_fault="exit")
    monkeypatch.setenv("ATLAS_TEST_FAULT", "4 nan")  # a batch of the second process
    with pytest.raises(AtlasError, match="loss 'all' is nan at step 4"):
        run(2, tmp_path / "b")
    monkeypatch.setenv("ATLAS_TEST_FAULT", "4 exit")
    with pytest.raises(AtlasError, match="a process ended with code 3; start again"):
        run(2, tmp_path / "c")
    monkeypatch.delenv("ATLAS_TEST_FAULT")
    assert "RANK" not in os.environ  # nothing is left over
    assert same(run(2, tmp_path / "d"), run(1, tmp_path / "e"))


def test_processes_divide_an_update_and_do_not_outnumber_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert process_count(2, "cpu") == 2
    assert process_count(6, "cpu") == 3
    assert process_count(8, "cpu", workers=2) == 2
    assert process_count(2, "cpu", workers=1) == 1
    assert process_count(1, "cpu") == 1
    assert process_count(4, "cuda:0") == 1
    monkeypatch.setenv("ATLAS_CORES", "1")  # in parallel
    assert process_count(2, "cpu") == 1
    assert process_count(2, "cpu", workers=2) == 2


def test_processes_that_do_not_see_the_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(2, tmp_path / "w", stop_at=2 * STEPS)
    with pytest.raises(AtlasError, match=r"w/checkpoint.pt: the processes would begin at different batches"):
        run(2, tmp_path / "w", apart=True)
    damaged = tmp_path / "w/checkpoint.pt"
    damaged.write_bytes(damaged.read_bytes()[:500])
    with pytest.raises(AtlasError, match=r"w/checkpoint.pt: cannot be read .*; delete it to begin"):
        run(1, tmp_path / "w")
