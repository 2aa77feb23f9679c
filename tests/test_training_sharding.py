"""A model split over processes (FSDP) learns what a whole one learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attention_atlas.errors import ConfigError
from attention_atlas.training.loop import train
from attention_atlas.training.processes import together
from attention_atlas.training.settings import TrainSettings

STEPS, WORDS = 6, 37


def language_model(tied: bool = False) -> Any:
    """Odd sizes, which no number of processes divides; the first layer's norm is frozen."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=20,
        intermediate_size=27,
        num_hidden_layers=3,
        num_attention_heads=5,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config)
    model.model.layers[0].input_layernorm.requires_grad_(False)
    return model


class NextWord:
    """Counting modulo WORDS. It calls parts of the model, as the captioners and vision LLMs do."""

    best = ("loss", "min")

    def __init__(self, thaw_after: int = 0) -> None:
        self.thaw_after = thaw_after

    def steps_per_epoch(self) -> int:
        return STEPS

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[Tensor]:
        for number in range(start, STEPS, every):
            first = torch.arange(3)[:, None] * 5 + 7 * number + epoch
            yield (first + torch.arange(9)) % WORDS

    def losses(self, model: Any, batch: Tensor, step: int) -> Iterator[tuple[str, Tensor]]:
        if self.thaw_after:
            model.model.layers.requires_grad_(step > self.thaw_after)
        yield "all", self.loss(model, batch)

    def loss(self, model: Any, batch: Tensor) -> Tensor:
        embedded = model.model.embed_tokens(batch[:, :-1])
        logits = model.lm_head(model.model(inputs_embeds=embedded).last_hidden_state)
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def validate(self, model: Any) -> dict[str, float]:
        weight = model.model.layers[1].mlp.up_proj.weight
        held = getattr(weight, "to_local", lambda: weight)().numel() / weight.numel()
        return {"loss": float(self.loss(model, next(self.batches(50)))), "held": held}


def learn(
    work: Path,
    join: Callable[[], None],
    here: bool = False,
    stop_at: int | None = None,
    apart: bool = False,
    thaw_after: int = 0,
    tied: bool = False,
    plain: bool = False,
    **settings: Any,
) -> Any:
    """`apart`: the other processes begin with other weights. `plain`: with a model that has no layers."""
    model = nn.Linear(2, 2) if plain else language_model(tied)
    if apart and not here:
        for parameter in model.parameters():
            parameter.data.add_(1.0)
    join()
    given: dict[str, Any] = dict(epochs=4, lr=0.01, accumulate=6, threads=1, clip_norm=0.3, weight_decay=0.1)

    def at(step: int, row: dict[str, float]) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    return train(NextWord(thaw_after), model, TrainSettings(**given | settings), work, seed=5, on_metrics=at)


def run(count: int, work: Path, **arguments: Any) -> Any:
    own = {"here": True, "stop_at": arguments.pop("stop_at", None)}
    return together(count, learn, {"work": work, **arguments}, own)


def assert_close(a: Any, b: Any) -> None:
    assert a[0].keys() == b[0].keys()
    for name in a[0]:
        torch.testing.assert_close(a[0][name], b[0][name], atol=2e-5, rtol=2e-4, msg=name)
    for one, other in zip(a[1], b[1], strict=True):
        assert one == pytest.approx(other | {"held": one["held"]}, rel=1e-4)


@pytest.mark.slow
def test_a_split_model_learns_what_a_whole_one_learns(tmp_path: Path) -> None:
    one = run(1, tmp_path / "1")
    assert one[1][-1]["loss"] < one[1][0]["loss"]
    three = run(3, tmp_path / "3", shard=True, apart=True)
    assert_close(one, three)
    assert one[1][-1]["held"] == 1 and three[1][-1]["held"] == pytest.approx(1 / 3, abs=0.01)
    assert all(tensor.shape == one[0][name].shape for name, tensor in three[0].items())


@pytest.mark.slow
def test_tied_embeddings_and_limits_of_the_elements(tmp_path: Path) -> None:
    given = dict(tied=True, accumulate=2, clip_norm=0.0, clip_value=0.001, lr_scales={"model.norm": 0.5})
    assert_close(run(1, tmp_path / "1", **given), run(2, tmp_path / "2", shard=True, **given))


@pytest.mark.slow
def test_a_split_run_resumes_with_another_number_of_processes(tmp_path: Path) -> None:
    one = run(1, tmp_path / "1", shard=True)
    for first, then in ((3, 1), (1, 2)):
        work = tmp_path / f"{first} {then}"
        with pytest.raises(KeyboardInterrupt):
            run(first, work, shard=True, stop_at=2 * STEPS)
        assert_close(one, run(then, work, shard=True))


@pytest.mark.slow
def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shard: Linear has no layers of transformers to split"):
        run(2, tmp_path / "plain", shard=True, plain=True)
    with pytest.raises(ConfigError, match="layers were frozen or unfrozen during the training"):
        run(2, tmp_path / "thaw", shard=True, thaw_after=6)


def test_settings_that_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="average: does not work with shard"):
        TrainSettings.read({"shard": True, "average": 0.99})
    with pytest.raises(ConfigError, match="fp16 does not work with shard"):
        TrainSettings.read({"shard": True, "precision": "fp16"})
