"""Small coloured images with one block each, and questions about it, for tests of the layer-wise study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from attention_atlas.data.corpus import (
    Corpus,
    Example,
    Phrase,
    Scene,
    SceneObject,
    read_corpus,
    write_examples,
    write_scenes,
)

COLOURS = {"red": (220, 30, 30), "blue": (30, 60, 200), "green": (20, 140, 60)}


def blocks(root: Path, count: int = 24, size: tuple[int, int] = (48, 48)) -> Corpus:
    """Images with a block on the left or the right; three questions each."""
    rng = np.random.default_rng(0)
    width, height = size
    scenes, examples = [], []
    (root / "images").mkdir(parents=True)
    for n in range(count):
        colour = list(COLOURS)[n % 3]
        left = bool(rng.integers(2))
        x, y = (0 if left else width // 2), int(rng.integers(height // 2))
        pixels = np.full((height, width, 3), 230, dtype=np.uint8)
        pixels[y : y + height // 2, x : x + width // 2] = COLOURS[colour]
        image_id = f"i{n:02d}"
        Image.fromarray(pixels).save(root / "images" / f"{image_id}.png")
        box = (float(x), float(y), float(x + width // 2), float(y + height // 2))
        split = "train" if n < count // 2 else "val" if n < 3 * count // 4 else "test"
        item = SceneObject(0, "block", [colour], box, width * height // 4)
        scenes.append(Scene(image_id, f"images/{image_id}.png", width, height, split, [item]))
        for k, (text, answer) in enumerate(
            (
                ("What color is the block?", colour),
                ("Where is the block?", "left" if left else "right"),
                ("Is the block red?", "yes" if colour == "red" else "no"),
            )
        ):
            start = text.index("the block")
            phrase = Phrase(start, start + 9, [0])
            people = [answer] * 8 + ["a block", "2"]
            examples.append(Example(f"{image_id}_q{k}", image_id, text, [phrase], [], people))
    write_scenes(root / "scenes.jsonl", scenes)
    write_examples(root / "questions.jsonl", examples)
    return read_corpus(root, "questions")
