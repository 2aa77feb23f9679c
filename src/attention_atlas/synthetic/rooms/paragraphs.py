"""More descriptions of each training room, each by another describer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import Example, read_corpus, write_examples
from attention_atlas.errors import ConfigError
from attention_atlas.synthetic.rooms.plan_file import plans_of
from attention_atlas.synthetic.rooms.text import describe


class Paragraphs:
    """The annotator of data=rooms_paragraphs: the world's own description of every scene, and for those of
    `split` more by other describers, `per_scene` different texts in total.

    Only training reads the additional texts, so they have no phrases or relations.
    """

    def __init__(self, per_scene: int = 16, split: str = "train") -> None:
        if per_scene < 1:
            raise ConfigError(f"Paragraphs: per_scene must be at least 1, not {per_scene}")
        self.per_scene, self.split = per_scene, split

    def __call__(self, corpus_root: Path, out: Path, seed: int) -> None:
        """Write the descriptions of every scene under `corpus_root` to `out`, the world's own first."""
        corpus = read_corpus(corpus_root)
        plans = plans_of(corpus_root, corpus.scenes)
        examples: list[Example] = []
        for number, first in enumerate(corpus.examples):
            examples.append(first)
            scene = corpus.scene(first)
            if scene.split != self.split:
                continue
            for describer in range(1, self.per_scene):
                rng = np.random.default_rng(np.random.SeedSequence([seed, number, describer]))
                text, _, _ = describe(plans[scene.image_id], scene.objects, rng)
                examples.append(Example(f"{first.id}.d{describer}", scene.image_id, text))
        write_examples(out, examples)
