"""Labels and attributes of regions in annotated scenes: targets of the classifiers of a features stage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attention_atlas.data.corpus import Corpus, Scene
from attention_atlas.errors import AtlasError


def training_scenes(corpus: Corpus, split: str) -> list[Scene]:
    """Scenes of the split ("a+b": of both) that list objects. Raises AtlasError if there is none."""
    scenes = [s for s in corpus.scenes.values() if s.split in split.split("+") and s.objects]
    if not scenes:
        raise AtlasError(
            f"{corpus.root}/scenes.jsonl: objects: no scene of split '{split}' has objects to "
            "learn from; use features=hf or features=bottom_up_tsv"
        )
    return scenes


class Truth:
    """The labels and attributes of the objects of some scenes, sorted."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.labels = sorted({o.label for s in scenes for o in s.objects})
        self.attributes = sorted({a for s in scenes for o in s.objects for a in o.attributes})
        self._label_ids = {name: i for i, name in enumerate(self.labels)}
        self._attribute_ids = {name: i for i, name in enumerate(self.attributes)}

    def of(self, scene: Scene, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(label (n,) int64, attributes (n,A) float32 0/1) of regions that show the objects `gold` (n,) of a
        scene; without an object (-1) the label is the number of labels, which means background."""
        objects = {o.id: o for o in scene.objects}
        label = np.full(len(gold), len(self.labels), dtype=np.int64)
        attribute = np.zeros((len(gold), len(self.attributes)), dtype=np.float32)
        for row, number in enumerate(gold.tolist()):
            shown = objects.get(number)
            if shown is not None:
                label[row] = self._label_ids[shown.label]
                attribute[row, [self._attribute_ids[a] for a in shown.attributes]] = 1
        return label, attribute
