"""Fine-tuning of published checkpoints: model=fine_tuned train=fine_tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import look_tiny
import pytest
import torch
from conftest import ROOT
from test_own_phases import own_data
from tiny_checkpoints import FAMILIES

from attention_atlas.data.folder import read_folder
from attention_atlas.errors import ConfigError
from attention_atlas.look.load import load
from attention_atlas.models.vlm.loaded import LoadedVlm
from attention_atlas.models.vlm.processors import load_processor
from attention_atlas.models.vlm.samples import Sample, samples_of
from attention_atlas.studies.vlm_phases.any_model import load_any
from attention_atlas.studies.vlm_phases.fine_tuning import FineTuningTask, pretrained
from attention_atlas.training.processes import together
from attention_atlas.training.run import prepare_and_train
from attention_atlas.workflow.compose import compose
from attention_atlas.workflow.stage import resolved

FAST = [
    "train.loop.lr=0.01",
    "train.loop.epochs=8",
    "train.loop.accumulate=2",
    "train.loop.schedule.warmup=0",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = own_data(tmp_path_factory.mktemp("own") / "data")
    header, *rows = (folder / "texts.csv").read_text().splitlines()
    splits = ["train"] * 4 + ["val"] * 2
    lines = [f"{row},{split}" for row, split in zip(rows, splits, strict=True)]
    (folder / "texts.csv").write_text("\n".join([f"{header},split", *lines]) + "\n")
    return folder


def config(model: Path, data: Path, *words: str) -> Any:
    """python -m pipeline.train study=vlm_phases data=folder model=fine_tuned train=fine_tuning ..."""
    own = [f"model.path={model}", f"data.root={data}", "workers=1", *FAST, *words]
    chosen = ["study=vlm_phases", "data=folder", "model=fine_tuned", "train=fine_tuning"]
    return resolved(compose(ROOT, "train", [*chosen, *own]))[0]


def tuned(cfg: Any, folder: Path, processes: int = 1) -> dict[str, float]:
    given = {"cfg": cfg, "work": folder / "work", "device": "cpu"}
    found: dict[str, float] = together(processes, prepare_and_train, given, {"out": folder / "out"})
    return found


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "internvl"])
def test_a_checkpoint_learns_its_texts_and_stays_a_checkpoint(
    family: str, data: Path, tmp_path: Path
) -> None:
    before = FAMILIES[family](tmp_path / "before")
    row = tuned(config(before, data), tmp_path)
    model, _ = load(str(tmp_path / "out"), "cpu", "float32")
    first, _ = load(str(before), "cpu", "float32")
    changed = {
        name.split(".")[1]
        for (name, old), new in zip(first.state_dict().items(), model.state_dict().values(), strict=True)
        if not torch.equal(old, new)
    }
    assert "language_model" in changed and not changed & {"vision_tower", "visual"}
    assert row["loss"] < 0.9 * validation_loss(before, data)
    # What the run reports is what the saved checkpoint does, read as model=hub reads it.
    assert row["loss"] == pytest.approx(validation_loss(tmp_path / "out", data), rel=1e-5)


def validation_loss(path: Path, data: Path) -> float:
    """The validation loss by `log_prob` of the model that model=hub loads."""
    model, inputs, _ = load_any(str(path), "float32")
    corpus = read_folder(data / "images", data / "texts.csv", name="folder")
    found = LoadedVlm("x", model, inputs).log_prob(samples_of(corpus, corpus.split("val")))
    return -sum(value for value, _ in found) / sum(number for _, number in found)


def test_no_better_weights_are_kept(data: Path, tmp_path: Path) -> None:
    """A rate that destroys the model: the start is what is kept."""
    before = look_tiny.llava(tmp_path / "before")
    row = tuned(config(before, data, "train.loop.lr=5", "train.loop.epochs=2"), tmp_path)
    assert row["epoch"] == 0 and row["loss"] == pytest.approx(validation_loss(before, data), rel=1e-5)


@pytest.mark.slow
def test_layers_split_over_two_processes(data: Path, tmp_path: Path) -> None:
    before = look_tiny.llava(tmp_path / "before")
    words = ["train.loop.epochs=2", "train.loop.shard=true"]
    one = tuned(config(before, data, *words), tmp_path / "1")
    two = tuned(config(before, data, *words), tmp_path / "2", processes=2)
    assert two == pytest.approx(one, rel=1e-4)
    assert validation_loss(tmp_path / "2/out", data) == pytest.approx(two["loss"], rel=1e-4)


def test_the_loss_is_that_of_the_text_alone(data: Path, tmp_path: Path) -> None:
    """Against transformers' own loss with the prompt's labels masked."""
    path = look_tiny.llava(tmp_path / "model")
    model, task = pretrained(str(path)), FineTuningTask(str(path))
    task.processor = load_processor(str(path))
    task.start(model)
    sample = Sample("a", "a", data / "images/0.png", look_tiny.PROMPT, look_tiny.ANSWER)
    inputs = task.inputs.batch([sample], end=True)
    ((start, stop),) = task.inputs.spans([sample], end=True)
    assert inputs["input_ids"][0, stop - 1] == task.inputs.tokenizer.eos_token_id
    assert stop == inputs["input_ids"].shape[1]
    labels = inputs["input_ids"].clone()
    labels[:, :start] = -100
    loss, number = task._loss(model, sample)
    torch.testing.assert_close(loss, model(**inputs, labels=labels).loss)
    assert number == stop - start
    assert not any(p.requires_grad for p in model.model.vision_tower.parameters())


@pytest.mark.parametrize("frozen", [["*tower_of*"], ["*"]])
def test_globs_that_freeze_nothing_or_everything(frozen: list[str], tmp_path: Path) -> None:
    path = look_tiny.llava(tmp_path / "model")
    task = FineTuningTask(str(path), frozen=frozen)
    task.processor = load(str(path), "cpu", "float32")[1]
    with pytest.raises(ConfigError, match=r"frozen: \[.*\] matches (no|every) parameter"):
        task.start(pretrained(str(path)))


def test_no_path() -> None:
    with pytest.raises(ConfigError, match=r"model.path: is empty"):
        pretrained("")


def test_the_command_of_the_docs_composes() -> None:
    page = (ROOT / "docs/howto/cluster.md").read_text(encoding="utf-8")
    start = page.index("python -m pipeline.train study=vlm_phases data=folder model=fine_tuned")
    words = page[start:].split("\n\n")[0].replace("\\\n", " ").split()[3:]
    assert "train.loop.shard=true" in words
    loop = compose(ROOT, "train", words).train.loop
    assert loop.shard is True and loop.precision == "bf16"
