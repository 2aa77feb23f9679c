"""Two texts over two images with labelled regions, and a GloVe file of six words, for the linker tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import Corpus, Example, Phrase, Scene, SceneObject
from attention_atlas.regions.features_file import FeaturesWriter

LABELS = ["chair", "lamp,light", "table", "wall"]
ATTRIBUTES = ["red", "round"]
TEXT_A = "Two red chairs stand near the round table. It has a lamp."
TEXT_B = "There is a lamp and a chair in the room."


def span(text: str, words: str) -> tuple[int, int]:
    return text.index(words), text.index(words) + len(words)


def phrase(text: str, words: str, objects: list[int], kind: str = "object") -> Phrase:
    return Phrase(*span(text, words), objects, kind)


def corpus(gold: bool = True) -> Corpus:
    objects = [SceneObject(i, "thing", [], (0.0, 0.0, 9.0, 9.0), 81) for i in range(4)]
    scenes = {i: Scene(i, f"images/{i}.png", 20, 10, "test", objects) for i in ("a", "b")}
    examples = [
        Example(
            "ta",
            "a",
            TEXT_A,
            [
                phrase(TEXT_A, "Two red chairs", [0, 1], "group"),
                phrase(TEXT_A, "the round table", [2]),
                phrase(TEXT_A, "It", [2], "pronoun"),
                phrase(TEXT_A, "a lamp", [3]),
            ],
        ),
        Example(
            "tb",
            "b",
            TEXT_B,
            [
                phrase(TEXT_B, "a lamp", [3]),
                phrase(TEXT_B, "a chair", [0]),
                phrase(TEXT_B, "the room", [], "abstract"),
            ],
        ),
    ]
    if not gold:
        for example in examples:
            example.phrases = []
    return Corpus(Path("."), scenes, examples, "tiny")


def write_features(path: Path) -> Path:
    """Image a: red chair (object 0), red chair (1), table (2), lamp (nothing); b: lamp (3), chair (0)."""
    with FeaturesWriter(
        path, dim=3, regions=5, labels=LABELS, attributes=ATTRIBUTES, source="test"
    ) as writer:
        for image_id, label, attribute, gold in (
            ("a", [0, 0, 2, 1], [0, 0, -1, 1], [0, 1, 2, -1]),
            ("b", [1, 0], [-1, -1], [3, 0]),
        ):
            n = len(label)
            writer.add(
                image_id,
                features=np.ones((n, 3)),
                boxes=[[i, 1, i + 3, 9] for i in range(n)],
                size=(20, 10),
                label=label,
                label_confidence=np.full(n, 0.9),
                attribute=attribute,
                attribute_confidence=[0.5, 0.5, 0.0, 0.05][:n],
                gold=gold,
            )
    return path


GLOVE = {
    "red": (1.0, 2.0, 0.0),
    "chair": (3.0, 1.0, 1.0),
    "chairs": (3.0, 2.0, 1.0),
    "lamp": (0.0, 1.0, 4.0),
    "table": (1.0, -1.0, 2.0),
    "round": (0.5, -1.0, 3.0),
}


def write_glove(path: Path) -> Path:
    lines = [f"{word} {' '.join(map(str, vector))}" for word, vector in GLOVE.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
