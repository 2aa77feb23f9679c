"""The training loop. A Task defines what is learned; the loop decides when to step, validate, save and
resume.

Each batch has its own random seed (seed, batch), so a run that was killed and resumed gives the same bytes as
an uninterrupted one, without any generator state on disk. For the same reason several processes
(training/processes.py) that share the `accumulate` batches of an update learn the same as one process.
Gradients are averaged here, once per update: torch's own wrapper relies on the model's `forward`, which not
every task calls.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.training import sharding, shared
from attention_atlas.training.batches import to_device
from attention_atlas.training.optimizers import average, optimizers_of
from attention_atlas.training.rates import LearningRates
from attention_atlas.training.settings import TrainSettings

Metrics = dict[str, float]


class Task(Protocol):
    """A training task. `best` is (metric of `validate`, 'max' or 'min').

    Optional: `optimizers(model, settings) -> {name: optimiser}` for several optimisers; `continues`, True
    when the initial weights already solve the task (fine-tuning). They are then validated before the first
    update, and kept if no later validation is better.
    """

    best: tuple[str, str]

    def steps_per_epoch(self) -> int:
        """Number of batches that `batches` yields."""
        ...

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[Any]:
        """Batches start, start + every, ... of an epoch; the order depends only on seed and epoch."""
        ...

    def losses(self, model: nn.Module, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        """Yield (optimiser name, loss); backward and that optimiser's step follow each pair.

        A model with one optimiser yields ("all", loss); an adversarial one yields one loss per player.
        """
        ...

    def validate(self, model: nn.Module) -> Metrics: ...


def train(
    task: Task,
    model: nn.Module,
    settings: TrainSettings,
    work: Path,
    device: str = "cpu",
    seed: int = 0,
    on_metrics: Callable[[int, Metrics], None] | None = None,
) -> tuple[dict[str, Tensor], list[Metrics]]:
    """Train and return the best state dict (on the CPU) and the history, one row per validation.

    `work` keeps checkpoint.pt and best.safetensors; if they exist, the run resumes from them.
    Raises AtlasError when a loss is not finite or the checkpoint belongs to another run.
    """
    from safetensors.torch import load_file

    run = _Run(task, model, settings, work, device, seed, on_metrics)
    run.resume()
    run.epochs()
    return load_file(run.best_path), run.history


class _Run:
    def __init__(
        self,
        task: Task,
        model: nn.Module,
        settings: TrainSettings,
        work: Path,
        device: str,
        seed: int,
        on_metrics: Callable[[int, Metrics], None] | None,
    ) -> None:
        self.task, self.settings, self.seed, self.on_metrics = task, settings, seed, on_metrics
        if settings.threads and device == "cpu":
            torch.set_num_threads(settings.threads)
        self.accelerator = shared.accelerator_on(device, settings.precision)
        self.trained: dict[str, list[bool]] = {}
        self.sharded = settings.shard and self.accelerator.num_processes > 1
        self.takes_part = self.sharded or self.accelerator.is_main_process  # in writing files
        if self.sharded:
            sharding.shard_layers(model, self.accelerator)
        base = optimizers_of(task, model, settings)
        self.bare = model
        # evaluation_mode sets device and precision but adds no wrapper; see the top of this file.
        self.model = self.accelerator.prepare_model(model, evaluation_mode=True)
        self.optimizers = {name: self.accelerator.prepare(o) for name, o in base.items()}
        self.count, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        if task.steps_per_epoch() < self.count:
            self.count, self.rank = 1, 0  # too few batches to share: every process runs all of them
        if self.count > 1:
            sharding.same_start(model)
        prefix = settings.clip_prefix
        self.clipped = {id(p) for name, p in model.named_parameters() if name.startswith(prefix)}
        if not self.clipped:
            raise ConfigError(f"clip_prefix: no parameter's name begins with '{prefix}'")
        self.average = average(self.bare, settings.average)
        self.judged = self.bare if self.average is None else self.average.module  # validated and kept
        work.mkdir(parents=True, exist_ok=True)
        self.checkpoint_path, self.best_path = work / "checkpoint.pt", work / "best.safetensors"
        # Each process takes every n-th batch.
        self.group = max(1, settings.accumulate // self.count) * self.count  # batches of an update
        # Batches left over at the end of an epoch are dropped, also with one process, so that the number of
        # processes does not change the result.
        whole = self.group if self.group <= task.steps_per_epoch() else self.count
        self.per_epoch = task.steps_per_epoch() // whole * whole
        total = settings.epochs * self.per_epoch
        if total < 1:
            raise AtlasError("training: the training split gives no batch; check the data and split names")
        if settings.max_steps:
            total = min(total, -(-settings.max_steps // whole) * whole)
        self.total = total
        epochs, rest = divmod(self.total, self.per_epoch)
        of_epoch = -(-self.per_epoch // self.group)
        updates = epochs * of_epoch + -(-rest // self.group)
        self.rates = LearningRates(settings.schedule, self.optimizers, updates, of_epoch, task.best[1])
        self.batch = 0  # batches done, over all epochs and processes
        self.update = 0  # optimiser updates done
        self.sums: dict[str, float] = {}
        self.summed = 0
        self.pending: dict[str, float] = {}  # this process's losses since the last update
        self.best: float | None = None
        self.history: list[Metrics] = []
        self.saved_at = time.monotonic()

    def fingerprint(self) -> str:
        shapes = {name: list(p.shape) for name, p in self.bare.state_dict().items()}
        return json.dumps([str(self.settings), self.seed, self.per_epoch, shapes], sort_keys=True)

    def resume(self) -> None:
        if self.checkpoint_path.exists():
            self.load()
        shared.same_batch(self.batch, self.accelerator, self.checkpoint_path)

    def load(self) -> None:
        saved = shared.read_checkpoint(self.checkpoint_path, self.accelerator.device, self.sharded)
        if saved["fingerprint"] != self.fingerprint():
            raise AtlasError(f"{self.checkpoint_path}: belongs to another run; delete the folder and restart")
        if self.sharded:
            saved = sharding.split(saved, self.bare, self.optimizers)
        self.bare.load_state_dict(saved["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
        self.rates.load_state_dict(saved["rates"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        for name in ("batch", "update", "sums", "summed", "best", "history"):
            setattr(self, name, saved[name])

    def save(self) -> None:
        self.saved_at = time.monotonic()
        if not self.takes_part:
            return
        state = {
            name: getattr(self, name) for name in ("batch", "update", "sums", "summed", "best", "history")
        }
        state["fingerprint"] = self.fingerprint()
        state["model"] = self.bare.state_dict()
        state["rates"] = self.rates.state_dict()
        if self.average is not None:
            state["average"] = self.average.state_dict()
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        state["optimizers"] = {name: o.state_dict() for name, o in self.optimizers.items()}
        shared.write_checkpoint(self.checkpoint_path, state, self.accelerator, self.sharded)

    def epochs(self) -> None:
        from tqdm import tqdm

        if getattr(self.task, "continues", False) and not self.history:
            self.validate(0)
            self.save()
        show = self.accelerator.is_main_process
        bar = tqdm(total=self.total, initial=self.batch, desc="train", disable=None if show else True)
        while self.batch < self.total:
            epoch, start = divmod(self.batch, self.per_epoch)
            self.model.train()
            for batch in self.own_batches(epoch, start):
                self.step(batch)
                bar.update(self.count)
                if self.batch >= self.total:
                    break
                # Not at the end of an epoch, which is handled below, and not with partly accumulated
                # gradients.
                if not self.batch % self.per_epoch or not self.closes():
                    continue
                last = self.history[-1]["step"] if self.history else 0
                if 0 < self.settings.validate_steps <= self.batch - last:
                    self.validate(epoch + 1)
                    self.model.train()
                    self.save()
                elif self.agreed(time.monotonic() - self.saved_at) > self.settings.checkpoint_seconds:
                    self.save()
            done = self.batch >= self.total
            if done or (epoch + 1) % self.settings.validate_every == 0:
                self.validate(epoch + 1)
                self.save()
                bar.set_postfix(self.history[-1])
        bar.close()

    def agreed(self, value: float) -> float:
        """The first process's value, for a decision that must be the same in all when they share a model."""
        return shared.of_the_first(value, self.accelerator) if self.sharded else value

    def own_batches(self, epoch: int, start: int) -> Iterator[Any]:
        share = (start + self.rank, self.count) if self.count > 1 else (start,)
        return itertools.islice(self.task.batches(epoch, *share), (self.per_epoch - start) // self.count)

    def step(self, batch: Any) -> None:
        number = self.batch + self.rank
        torch.manual_seed((self.seed << 32) + number)
        self.batch += self.count
        closing = self.closes()
        if closing:
            self.update += 1
        batch = to_device(batch, self.accelerator.device)
        for name, loss in self.task.losses(self.model, batch, number + 1):
            if not torch.isfinite(loss):
                raise AtlasError(
                    f"training: loss '{name}' is {loss.item()} at step {number + 1}; "
                    "lower the learning rate (lr) or clip more (clip_norm)"
                )
            # With several players a loss must reach its own player's parameters only.
            own = {"inputs": self.parameters(name)} if len(self.optimizers) > 1 else {}
            self.accelerator.backward(loss * self.count / self.group, **own)
            self.pending[name] = self.pending.get(name, 0.0) + loss.item()
            if closing:
                self.apply(name)
        if closing and self.average is not None:
            self.average.update_parameters(self.bare)
        self.summed += self.count

    def closes(self) -> bool:
        """Whether the batch just done ends a group of `accumulate`; no group spans two epochs."""
        within = (self.batch - 1) % self.per_epoch + 1
        return within % self.group == 0 or within == self.per_epoch or self.batch == self.total

    def parameters(self, name: str) -> list[Tensor]:
        return [p for group in self.optimizers[name].param_groups for p in group["params"]]

    def apply(self, name: str) -> None:
        optimizer, parameters = self.optimizers[name], self.parameters(name)
        loss = self.pending.pop(name)
        if self.count > 1:
            loss = shared.summed_loss(loss, self.accelerator)
            shared.average_gradients(parameters, self.accelerator)
        self.sums[name] = self.sums.get(name, 0.0) + loss
        self.trained[name] = sharding.same_trained(parameters, self.trained.get(name))
        shared.clip([p for p in parameters if id(p) in self.clipped], self.settings, self.accelerator)
        self.rates.set(name, self.update)
        optimizer.step()
        optimizer.zero_grad()

    def validate(self, epoch: int) -> None:
        losses = {f"train_loss_{k}" if k != "all" else "train_loss": v for k, v in self.sums.items()}
        row: Metrics = {"epoch": epoch, "step": self.batch}
        row |= {k: v / max(self.summed, 1) for k, v in losses.items()}
        if self.update:
            row["lr"] = next(iter(self.optimizers.values())).param_groups[0]["lr"]
        self.sums, self.summed = {}, 0
        self.judged.eval()
        torch.manual_seed((self.seed << 32) + self.batch)
        with torch.no_grad():
            row |= self.task.validate(self.judged)
        metric, direction = self.task.best
        if metric not in row:
            raise AtlasError(f"training: select_on: the task reports no '{metric}'; it reports {sorted(row)}")
        value = self.agreed(row[metric])
        self.rates.validated(value)
        better = self.best is None or (value > self.best if direction == "max" else value < self.best)
        if better:
            self.best = value
        if better and self.takes_part:
            shared.write_weights(self.best_path, self.judged, self.accelerator)
        self.history.append(row)
        if self.on_metrics is not None and self.accelerator.is_main_process:
            self.on_metrics(self.batch, {k: v for k, v in row.items() if k != "step"})
        self.accelerator.wait_for_everyone()
