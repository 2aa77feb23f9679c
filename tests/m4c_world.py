"""A few images with words in them, read without error, and questions about them, for the tests of M4C."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import Corpus, Example, Scene, SceneObject
from attention_atlas.data.ocr_file import LOOK, OcrImage, OcrToken, write_ocr
from attention_atlas.regions.features_file import FeaturesFile, FeaturesWriter

COLOURS = {"red": (200, 20, 20), "blue": (20, 30, 200), "green": (20, 150, 40)}
WORDS = ("apple", "bread", "candle", "dragon", "eagle", "forest", "guitar", "honey", "island", "jungle")


def signs(root: Path, train: int = 24, held: int = 8, wrong: int = 2) -> tuple[Corpus, FeaturesFile, str]:
    """(corpus, features, path of the OCR file): three signs of three colours in a row in every image; of
    ten people `wrong` misspell. Questions: what does the red sign say, what colour is the first sign."""
    rng = np.random.default_rng(0)
    scenes: dict[str, Scene] = {}
    examples, images = [], []
    for n in range(train + 2 * held):
        split = "train" if n < train else "val" if n < train + held else "test"
        image_id = f"{split}{n:02d}"
        colours = [list(COLOURS)[i] for i in rng.permutation(3)]
        words = [WORDS[i] for i in rng.choice(len(WORDS), 3, replace=False)]
        objects, tokens = [], []
        for k, (colour, word) in enumerate(zip(colours, words)):
            box = (4.0 + 30 * k, 5.0, 28.0 + 30 * k, 17.0)
            objects.append(SceneObject(k + 1, "sign", [colour], box, 288, 0.0, word.upper()))
            look = list(COLOURS[colour]) * (LOOK // 3)
            inside = (box[0] + 2, 7.0, box[2] - 2, 15.0)
            tokens.append(OcrToken(word.upper(), inside, 0.99, look))
        scenes[image_id] = Scene(image_id, f"images/{image_id}.png", 96, 40, split, objects)
        images.append(OcrImage(image_id, (96, 40), tokens, "drawn"))
        for k, colour in enumerate(("red", "blue")):
            at = colours.index(colour)
            word = words[at]
            people = [word] * (10 - wrong) + [word[1:]] * wrong
            extra = {"type": "color", "from": "sign", "sign": at + 1, "words": "seen", "answer": word}
            text = f"What does the {colour} sign say?"
            examples.append(Example(f"{image_id}_{k}", image_id, text, answers=people, extra=extra))
        extra = {"type": "what color", "from": "vocabulary", "sign": 1, "words": "seen"}
        text = "What color is the first sign?"
        examples.append(Example(f"{image_id}_2", image_id, text, answers=[colours[0]] * 10, extra=extra))
    write_ocr(root / "ocr.jsonl", images)
    with FeaturesWriter(
        root / "features.h5",
        regions=4,
        dim=6,
        labels=["sign"],
        attributes=list(COLOURS),
        source="test",
        config_hash="0",
    ) as writer:
        for scene in scenes.values():
            features, boxes = regions(scene)
            count = len(boxes)
            writer.add(
                scene.image_id,
                features=features,
                boxes=boxes,
                size=(96, 40),
                label=np.zeros(count),
                label_confidence=np.ones(count),
            )
    return (
        Corpus(root, scenes, examples, "signs"),
        FeaturesFile(root / "features.h5"),
        str(root / "ocr.jsonl"),
    )


def regions(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The three signs as regions of a features file: (features (3,6), boxes (3,4))."""
    boxes = np.array([o.box for o in scene.objects], np.float32)
    shown = np.array([[*COLOURS[o.attributes[0]], 50, 100, 150] for o in scene.objects], np.float32) / 255
    return shown, boxes
