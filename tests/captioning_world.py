"""A hand-made captioning corpus: an image has two things, its features say which, its text names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from attention_atlas.data.corpus import Corpus, Example, Scene
from attention_atlas.regions.features_file import FeaturesWriter
from attention_atlas.training.run import build_task, train_task

THINGS = ["lamp", "sofa", "desk", "rug", "plant", "mirror"]


def corpus(train: int = 24, held: int = 6) -> Corpus:
    scenes, examples = {}, []
    splits = ["train"] * train + ["val"] * held + ["test"] * held
    for i, split in enumerate(splits):
        first, second = things(i)
        name = f"room{i:03d}"
        scenes[name] = Scene(name, f"images/{name}.png", 100, 80, split)
        text = f"This room has a {first}. Next to it is the {second}."
        text += " It is nice." if i % 3 == 0 else ""
        examples.append(Example(f"{name}#0", name, text))
    return Corpus(Path("corpus"), scenes, examples, "tiny")


def things(i: int) -> tuple[str, str]:
    return THINGS[i % 6], THINGS[(i * 5 + i // 6) % 6]


def write_features(path: Path, of: Corpus) -> Path:
    rng = np.random.default_rng(0)
    with FeaturesWriter(path, dim=8, regions=3, labels=THINGS, source="by hand") as writer:
        for i, scene in enumerate(of.scenes.values()):
            features = 0.1 * rng.normal(size=(2, 8))
            for row, thing in enumerate(things(i)):
                features[row, THINGS.index(thing)] += 2.0
            boxes = [[5 + 40 * row, 10, 40 + 40 * row, 60] for row in range(2)]
            writer.add(scene.image_id, features=features, boxes=boxes, size=(100, 80), label=[0, 1])
    return path


def config(model: str = "object_relation", **loop: Any) -> Any:
    """Like the composed configuration of a training stage, small."""
    models = {
        "object_relation": {
            "_target_": "attention_atlas.models.object_relation.ObjectRelationTransformer",
            "layers": 1,
            "heads": 2,
            "dim": 16,
            "inner": 32,
        },
        "lstm": {"_target_": "attention_atlas.models.lstm.HierarchicalLSTM", "pooled": 16, "hidden": 16},
        "blind": {
            "_target_": "attention_atlas.models.object_relation.ObjectRelationTransformer",
            "layers": 1,
            "heads": 2,
            "dim": 16,
            "inner": 32,
            "blind": True,
        },
    }
    settings = {"epochs": 2, "lr": 0.01, "betas": [0.9, 0.98], "schedule": {"name": "constant"}, **loop}
    return OmegaConf.create(
        {
            "seed": 0,
            "data": {"name": "made_up"},
            "model": {"name": model, "title": model, "task": "captioning", **models[model]},
            "train": {
                "task": {
                    "_target_": "attention_atlas.training.tasks.captioning.CaptioningTask",
                    "min_count": 1,
                    "max_words": 20,
                    "batch_size": 5,
                },
                "loop": settings,
            },
        }
    )


def train_captioner(
    cfg: Any, corpus: Corpus, features: Any, out: Path, work: Path, on_metrics: Any = None
) -> dict[str, float]:
    task = build_task(cfg)
    task.prepare(corpus, features)
    return train_task(cfg, task, out, work, "cpu", on_metrics)
