"""Coloured shapes in a row, as corpus and features.h5, with compositional questions, for tests of MAC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from attention_atlas.data.corpus import (
    Corpus,
    Example,
    Scene,
    SceneObject,
    read_corpus,
    write_examples,
    write_scenes,
)
from attention_atlas.regions.features_file import FeaturesFile, FeaturesWriter

COLOURS = {"red": (220, 30, 30), "blue": (30, 60, 200), "green": (20, 140, 60)}
SHAPES = ("cube", "ball", "cone")
SIDE = 60


def shapes(root: Path, count: int = 24, most: int = 5, seed: int = 0) -> tuple[Corpus, FeaturesFile]:
    """Images with 2 to `most` things from left to right, one question of each type per image."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    scenes, examples = [], []
    for n in range(count):
        image_id, pixels, objects = f"i{n:04d}", np.full((SIDE, SIDE, 3), 230, np.uint8), []
        number = int(rng.integers(2, most + 1))
        things = [(list(COLOURS)[rng.integers(3)], SHAPES[rng.integers(3)]) for _ in range(number)]
        width = SIDE // most
        for k, (colour, shape) in enumerate(things):
            y = int(rng.integers(SIDE - width))
            pixels[y : y + width, k * width : (k + 1) * width] = COLOURS[colour]
            box = (float(k * width), float(y), float((k + 1) * width), float(y + width))
            objects.append(SceneObject(k + 1, shape, [colour], box, width * width))
        Image.fromarray(pixels).save(root / "images" / f"{image_id}.png")
        split = "train" if n < count // 2 else "val" if n < 3 * count // 4 else "test"
        scenes.append(Scene(image_id, f"images/{image_id}.png", SIDE, SIDE, split, objects))
        examples += _questions(image_id, objects, rng)
    write_scenes(root / "scenes.jsonl", scenes)
    write_examples(root / "questions.jsonl", examples)
    corpus = read_corpus(root, "questions")
    return corpus, _features(root / "features.h5", corpus, most + 1)


def _questions(image_id: str, objects: list[SceneObject], rng: np.random.Generator) -> list[Example]:
    colour, shape = list(COLOURS)[rng.integers(3)], SHAPES[rng.integers(3)]
    coloured = [o.id for o in objects if colour in o.attributes]
    shaped = [o.id for o in objects if o.label == shape]
    first, second, last = objects[0], objects[1], objects[-1]
    rows = [
        ("Exist", f"Is there a {colour} thing?", "yes" if coloured else "no", coloured),
        ("Count", f"How many things are a {shape}?", str(len(shaped)), shaped),
        ("Query Attribute", "What color is the leftmost thing?", first.attributes[0], [first.id]),
        (
            "Compare Attribute",
            "Do the leftmost thing and its neighbor have the same color?",
            "yes" if first.attributes == second.attributes else "no",
            [first.id, second.id],
        ),
        (
            "Compare Integer",
            f"Are there more {colour} things than {shape} things?",
            "yes" if len(coloured) > len(shaped) else "no",
            sorted({*coloured, *shaped}),
        ),
        ("Query Attribute", "What shape is the rightmost thing?", last.label, [last.id]),
    ]
    return [
        Example(f"{image_id}_q{k}", image_id, text, answers=[answer], extra={"type": kind, "asked": asked})
        for k, (kind, text, answer, asked) in enumerate(rows)
    ]


def _features(path: Path, corpus: Corpus, regions: int) -> FeaturesFile:
    """One region per thing and one of the background (gold -1), features that tell colour and shape."""
    colours = list(COLOURS)
    with FeaturesWriter(
        path, dim=8, regions=regions, labels=list(SHAPES), attributes=colours, source="test", config_hash="0"
    ) as writer:
        for scene in corpus.scenes.values():
            things = scene.objects
            seen = np.zeros((len(things) + 1, 8), np.float16)
            for row, thing in enumerate(things):
                seen[row, colours.index(thing.attributes[0])] = 1
                seen[row, 3 + SHAPES.index(thing.label)] = 1
            seen[-1, 7] = 1
            label = [SHAPES.index(o.label) for o in things] + [0]
            attribute = [colours.index(o.attributes[0]) for o in things] + [-1]
            writer.add(
                scene.image_id,
                features=seen,
                boxes=np.array([*(o.box for o in things), (0, 0, SIDE, SIDE)], np.float32),
                size=(SIDE, SIDE),
                label=np.array(label),
                label_confidence=np.ones(len(label)),
                attribute=np.array(attribute),
                attribute_confidence=np.ones(len(label)),
                gold=np.array([*(o.id for o in things), -1]),
            )
    return FeaturesFile(path)
