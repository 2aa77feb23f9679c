"""A drawn world for the vision tests: coloured shapes on grey, with exact boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from attention_atlas.data.corpus import Corpus, Scene, SceneObject

COLOURS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 210)}
SHAPES = ("ball", "box", "wedge")


def draw_world(root: Path, splits: dict[str, int], size: int = 64, seed: int = 0) -> Corpus:
    """Corpus with `splits[name]` images each; 2 to 4 objects per image in a 2x2 grid of cells."""
    (root / "images").mkdir(parents=True)
    scenes: dict[str, Scene] = {}
    for split, count in splits.items():
        for i in range(count):
            image_id = f"{split}{i:03d}"
            rng = np.random.default_rng([seed, len(scenes)])
            image = Image.new("RGB", (size, size), tuple(int(v) for v in rng.integers(90, 140, 3)))
            pen, objects = ImageDraw.Draw(image), []
            for number, cell in enumerate(rng.permutation(4)[: rng.integers(2, 5)]):
                half = size // 2
                side = int(rng.integers(size // 5, size // 3))
                x = int(cell % 2) * half + int(rng.integers(0, half - side))
                y = int(cell // 2) * half + int(rng.integers(0, half - side))
                shape, colour = SHAPES[rng.integers(3)], list(COLOURS)[rng.integers(3)]
                edge = (x, y, x + side - 1, y + side - 1)
                if shape == "ball":
                    pen.ellipse(edge, fill=COLOURS[colour])
                elif shape == "box":
                    pen.rectangle(edge, fill=COLOURS[colour])
                else:
                    pen.polygon([(x, edge[3]), (edge[2], edge[3]), (x + side // 2, y)], fill=COLOURS[colour])
                box = (float(x), float(y), float(x + side), float(y + side))
                objects.append(SceneObject(10 + number, shape, [colour], box, side * side))
            image.save(root / "images" / f"{image_id}.png")
            scenes[image_id] = Scene(image_id, f"images/{image_id}.png", size, size, split, objects)
    return Corpus(root, scenes, [], "drawn")
