"""A tiny corpus of coloured squares on a gray ground, with captions, phrases and the colours stated in
captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import Corpus, Example, Phrase, Scene, SceneObject

COLORS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 40, 220)}
SIZE = 32


def corpus_of(root: Path, train: int = 12, held_out: int = 6, with_colors: bool = True) -> Corpus:
    from PIL import Image

    (root / "images").mkdir(parents=True, exist_ok=True)
    names = sorted(COLORS)
    scenes, examples = {}, []
    for split, count in (("train", train), ("val", held_out), ("test", held_out)):
        for n in range(count):
            top, low = names[n % 3], names[(n // 3) % 3]
            pixels = np.full((SIZE, SIZE, 3), 128, np.uint8)
            pixels[2:14, 4:20], pixels[18:30, 12:28] = COLORS[top], COLORS[low]
            image_id = f"{split}_{n}"
            path = f"images/{image_id}.png"
            Image.fromarray(pixels).save(root / path)
            objects = [
                SceneObject(1, "hat", [top], (4, 2, 20, 14), 192),
                SceneObject(2, "coat", [low], (12, 18, 28, 30), 192),
            ]
            scenes[image_id] = Scene(image_id, path, SIZE, SIZE, split, objects, category=top)
            for k, text in enumerate((f"a {top} hat and a {low} coat", f"this one has a {low} coat")):
                stated = [("hat", top, 1)] if k == 0 else []
                stated += [("coat", low, 2)]
                spans = [(text.index(f"{c} {part}"), f"{c} {part}", o) for part, c, o in stated]
                phrases = [Phrase(at, at + len(t), [o]) for at, t, o in spans]
                extra = {"colors": {part: c for part, c, _ in stated}} if with_colors else {}
                examples.append(Example(f"{image_id}.c{k}", image_id, text, phrases, extra=extra))
    return Corpus(root, scenes, examples, "squares")
