"""Which alignments are the same function in a model, found by comparing predictions, not by algebra.

For each pair (A, B) where B has all parameters of A: a model with B gets the trained weights of A and random
values for its other parameters, and the loss on a fixed batch is compared. If it agrees, the results of the
evaluator must agree too. Then the additional parameters have no effect: a bias that cancels in the softmax,
or a factor of the score that a normalisation removes. B's square matrices are also tried transposed, which
finds the same family of functions under another name.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.files import read_json, write_json
from attention_atlas.studies.alignment.result import RunResult

if TYPE_CHECKING:
    from torch import nn

    from attention_atlas.studies.alignment.run import TrainingRun

LOSS_TOLERANCE = 1e-4  # relative; float32 sums in another order differ by 1e-6
ATTENTION_TOLERANCE = 1e-3
VALUE_TOLERANCE = 0.01  # share of examples whose result may differ because of ties in a ranking or an argmax
BATCHES = 1


def transplant(source: nn.Module, target: nn.Module, transpose: bool, seed: int = 0) -> bool:
    """Copy the weights of `source` to `target` where name and shape agree; parameters that only the target
    has become random. False if the target lacks a parameter of the source, or, with `transpose`, if no matrix
    of an alignment can be transposed."""
    import torch

    from attention_atlas.alignments.base import Alignment

    own = {name for name, module in target.named_modules() if isinstance(module, Alignment)}
    given, wanted = source.state_dict(), target.state_dict()
    if any(name not in wanted or wanted[name].shape != value.shape for name, value in given.items()):
        return False
    generator = torch.Generator().manual_seed(seed)
    state, turned = {}, 0
    for name, value in wanted.items():
        inside = any(name.startswith(f"{module}.") for module in own)
        if name not in given:
            drawn = torch.randn(value.shape, generator=generator).to(value)
            state[name] = drawn if value.is_floating_point() else value
        elif transpose and inside and value.ndim == 2 and value.shape[0] == value.shape[1]:
            state[name], turned = given[name].T.clone(), turned + 1
        else:
            state[name] = given[name]
    target.load_state_dict(state)
    return turned > 0 or not transpose


def losses(task: Any, model: nn.Module) -> np.ndarray:
    """The task's losses on the first batch of epoch 0, in evaluation mode."""
    import torch

    from attention_atlas.training.batches import to_device

    device = next(model.parameters()).device
    found: list[float] = []

    with torch.no_grad():
        for i, batch in zip(range(BATCHES), task.batches(0)):
            torch.manual_seed(i)
            found += [float(loss) for _, loss in task.losses(model, to_device(batch, device), i + 1)]
    return np.array(found)


def distance(a: RunResult, b: RunResult) -> dict[str, float]:
    """Difference of two evaluations of the same examples: the share of example values that differ, and the
    largest difference of shown attention."""
    values = {_key(row): row["value"] for row in b.examples}
    differ = [abs(values.get(_key(row), np.inf) - row["value"]) > 1e-4 for row in a.examples]
    attention = [
        float(np.abs(x.attn_WN - y.attn_WN).max())
        if x.attn_WN.shape == y.attn_WN.shape and x.example == y.example
        else np.inf
        for x, y in zip(a.shown, b.shown, strict=True)
    ]
    return {"values": float(np.mean(differ or [0.0])), "attention": max(attention, default=0.0)}


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted((k, v) for k, v in row.items() if k != "value"))


def compare_functions(
    values: Mapping[str, Any], runs: Sequence[TrainingRun], done: Path, device: str
) -> None:
    """Compare all alignments of the finished `runs` (one seed) and write `done`/same.json: a list of
    {"a", "b", "how": "same weights" | "matrix transposed", "loss", "values", "attention"}."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from attention_atlas.models.run_folder import build_model, load_run
    from attention_atlas.studies.alignment.run import MODEL, config_of, prepared_task

    found: list[dict[str, Any]] = []
    tried: set[tuple[frozenset[str], bool]] = set()
    cfg = OmegaConf.create(dict(values))
    configs = {run.alignment: config_of(cfg, run, device) for run in runs}
    for a in runs:
        task = prepared_task(configs[a.alignment])
        task.seed = a.seed
        source, vocab, run = load_run(done / a.folder / MODEL, device)
        expected = losses(task, source)
        evaluator = instantiate(configs[a.alignment].model.evaluator)
        base = RunResult.load(done / a.folder)
        for b in runs:
            for transpose in (False, True):
                # Equality is symmetric and transitive: compare only with the first member of a group.
                if a == b or _known(found, a.alignment, b.alignment, transpose):
                    continue
                config: Any = OmegaConf.to_container(configs[b.alignment].model, resolve=True)
                target = build_model(config, vocab, **run["sizes"]).to(device).eval()
                both = (frozenset((a.alignment, b.alignment)), transpose)
                if both in tried or not transplant(source, target, transpose):
                    continue
                tried.add(both)
                gap = _relative(losses(task, target), expected)
                if gap > LOSS_TOLERANCE:
                    continue
                with contextlib.redirect_stderr(io.StringIO()):
                    apart = distance(base, evaluator(target, task, device))
                if apart["values"] <= VALUE_TOLERANCE and apart["attention"] <= ATTENTION_TOLERANCE:
                    how = "matrix transposed" if transpose else "same weights"
                    found.append({"a": a.alignment, "b": b.alignment, "how": how, "loss": gap, **apart})
    rounded = [{k: float(f"{v:.1e}") if isinstance(v, float) else v for k, v in f.items()} for f in found]
    write_json(done / "same.json", rounded)


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1e-6)))


def _known(found: list[dict[str, Any]], a: str, b: str, transpose: bool) -> bool:
    hows = ("same weights", "matrix transposed") if transpose else ("same weights",)
    return any({a, b} <= group for group in groups(found, hows))


def groups(pairs: list[dict[str, Any]], how: Sequence[str] = ("same weights",)) -> list[set[str]]:
    """Groups of alignments connected by the pairs, directly or indirectly."""
    joined: list[set[str]] = []
    for pair in pairs:
        if pair["how"] not in how:
            continue
        touching = [g for g in joined if g & {pair["a"], pair["b"]}]
        joined = [g for g in joined if g not in touching]
        joined.append(set().union({pair["a"], pair["b"]}, *touching))
    return joined


def read_same(folder: Path) -> list[dict[str, Any]]:
    """same.json of a folder of runs; empty for a model without alignments."""
    path = folder / "same.json"
    return read_json(path) if path.exists() else []
