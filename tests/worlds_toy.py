"""A world of one coloured square, for tests of the build driver that need no renderer."""

import time

import numpy as np

from attention_atlas.data.corpus import Example, Phrase, Scene, SceneObject
from attention_atlas.synthetic.world import Made


class Squares:
    def __init__(self, side=16, pause=0.0):
        self.side, self.pause = side, pause

    def describe_self(self):
        return {"side": self.side}

    def make(self, image_id, split, seeds):
        time.sleep(self.pause)
        rng = np.random.default_rng(np.random.SeedSequence(seeds))
        color = rng.integers(0, 256, 3)
        x, y = (int(v) for v in rng.integers(0, self.side - 4, 2))
        rgb = np.zeros((self.side, self.side, 3), np.uint8)
        rgb[y : y + 4, x : x + 4] = color
        square = SceneObject(0, "square", [], (x, y, x + 4, y + 4), 16)
        scene = Scene(image_id, f"images/{image_id}.png", self.side, self.side, split, [square])
        text = Example(image_id, image_id, "a square", [Phrase(0, 8, [0])])
        return Made(
            rgb, scene, {"descriptions": [text]}, {"colors": {"image_id": image_id, "red": int(color[0])}}
        )
