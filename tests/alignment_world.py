"""A tiny model, task and evaluator of the alignment study: find the key that the query asks for.

Importable by worker processes. Queries and keys have length 1, so dot and cosine are one function here; the
attention is a softmax over keys, so a bias on the keys' side cancels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.alignments.build import build_alignment
from attention_atlas.studies.alignment.result import RunResult, Shown

KEYS, DIM, CLASSES = 6, 8, 6
ALIGNMENTS = ("dot", "scaled_dot", "cosine", "general_kq", "general_qk", "biased_general_qk")


class TinyModel(nn.Module):
    def __init__(self, classes: int, alignment: Any, blind: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(classes, DIM)
        self.alignment = build_alignment(alignment, DIM)
        self.out = nn.Linear(DIM, classes)
        self.blind = blind

    def attention(self, batch: dict[str, Tensor]) -> Tensor:
        keys = F.normalize(self.table(batch["keys_BK"]), dim=-1)
        query = F.normalize(self.table(batch["query_B1"]) + 0.3, dim=-1)
        return self.alignment.score(query, keys).softmax(-1)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        if self.blind:
            return self.out(torch.ones(len(batch["query_B1"]), DIM))
        values = self.table(batch["values_BK"])
        return self.out((self.attention(batch) @ values)[:, 0])


def make(count: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys = torch.stack([torch.randperm(CLASSES, generator=generator)[:KEYS] for _ in range(count)])
    values = torch.randint(CLASSES, (count, KEYS), generator=generator)
    place = torch.randint(KEYS, (count, 1), generator=generator)
    return {
        "keys_BK": keys,
        "values_BK": values,
        "query_B1": keys.gather(1, place),
        "place_B": place[:, 0],
        "answer_B": values.gather(1, place)[:, 0],
    }


class TinyTask:
    best = ("accuracy", "max")

    steps_left = 10**9  # a test kills the run after this many steps

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def prepare(self, corpus: Any, features: Any) -> None:
        self.train, self.test = make(256, 1), make(60, 2)

    def model_sizes(self) -> dict[str, Any]:
        return {"classes": CLASSES}

    def save(self, folder: Path) -> None:
        (folder / "task.txt").write_text("tiny")

    def steps_per_epoch(self) -> int:
        return 8

    def batches(self, epoch: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(1000 * self.seed + epoch)
        order = torch.randperm(256, generator=generator).reshape(8, 32)
        for rows in order[start:]:
            yield {k: v[rows] for k, v in self.train.items()}

    def losses(self, model: nn.Module, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        TinyTask.steps_left -= 1
        if TinyTask.steps_left < 0:
            raise KeyboardInterrupt
        yield "all", F.cross_entropy(model(batch), batch["answer_B"])

    def validate(self, model: nn.Module) -> dict[str, float]:
        right = model(self.test).argmax(-1) == self.test["answer_B"]
        return {"accuracy": float(right.float().mean())}


class TinyEvaluator:
    @torch.no_grad()
    def __call__(self, model: Any, task: Any, device: str) -> RunResult:
        test = task.test
        right = (model(test).argmax(-1) == test["answer_B"]).float()
        result = RunResult({"accuracy": 100 * float(right.double().mean()), "chance accuracy": 100 / CLASSES})
        for i, value in enumerate(right.tolist()):
            row = {"example": f"q{i:03d}", "metric": "accuracy", "value": value}
            result.examples.append({**row, "type": ["exist", "count"][i % 2], "image": f"i{i // 3:03d}"})
        if model.blind:
            return result
        attn = model.attention(test)[:, 0]
        mass = attn.gather(1, test["place_B"][:, None])[:, 0]
        top = (attn.argmax(-1) == test["place_B"]).int()
        for i in range(len(mass)):
            row = {"example": f"q{i:03d}", "word": "query", "mass": float(mass[i]), "chance": 1 / KEYS}
            result.grounding.append({**row, "top1": int(top[i])})
        for i in range(3):
            image = torch.randint(255, (24, 36, 3), generator=torch.Generator().manual_seed(i))
            result.shown.append(
                Shown(
                    example=f"q{i:03d}",
                    pixels=image.to(torch.uint8).numpy(),
                    size=(36, 24),
                    words=["query"],
                    attn_WN=attn[i : i + 1].numpy(),
                    grid=(2, 3),
                    text="which one?",
                )
            )
        return result


def configuration(root: Path, seeds: int = 1, **changes: Any) -> DictConfig:
    """What Hydra composes with trainer=every_alignment, with the tiny model."""
    files = {n: OmegaConf.load(root / "conf" / "alignment" / f"{n}.yaml") for n in ALIGNMENTS}
    made = {
        "profile": "smoke",
        "seed": 0,
        "alignment": None,
        "alignments": files,
        "study": {"name": "alignment", "reference": "dot"},
        "trainer": {"alignments": None, "seeds": {"default": seeds}},
        "data": {"name": "toy", "reader": {"_target_": "builtins.dict"}},
        "model": {
            "_target_": "alignment_world.TinyModel",
            "_recursive_": False,
            "name": "tiny",
            "alignment": "${alignment}",
            "evaluator": {"_target_": "alignment_world.TinyEvaluator"},
        },
        "train": {
            "task": {"_target_": "alignment_world.TinyTask"},
            "loop": {"epochs": 3, "lr": 0.02, "eps": 1.0e-8},
        },
    }
    return OmegaConf.merge(OmegaConf.create(made), OmegaConf.create(changes))  # type: ignore[return-value]
