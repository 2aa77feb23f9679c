"""Questions of one split in batches: ids, images, soft targets and, where known, what each patch shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from attention_atlas.data.patches import asked_objects, patches_of, shown_on_patches
from attention_atlas.errors import AtlasError
from attention_atlas.language.vocabulary import PAD
from attention_atlas.measures.vqa_accuracy import soft_targets
from attention_atlas.training.batches import cut

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus, Example
    from attention_atlas.training.question_text import QuestionText
    from attention_atlas.training.vilt_images import Images

UNKNOWN = -1


class QuestionBatches:
    """answers: the model's answer list; words: labels and colours that patches are trained to predict,
    empty if scenes have no objects."""

    def __init__(
        self,
        corpus: Corpus,
        examples: Sequence[Example],
        text: QuestionText,
        images: Images,
        answers: Sequence[str],
        longest: int,
        words: Sequence[str] = (),
    ) -> None:
        if not examples:
            raise AtlasError("questions: no example in this split; check data and split names")
        self.corpus, self.examples, self.images = corpus, list(examples), images
        self.encoded = [text.encode(e.text, longest) for e in self.examples]
        self.answers = list(answers)
        index = {a: i for i, a in enumerate(self.answers)}
        self.targets = [soft_targets(e.answers, index) for e in self.examples]
        self.words = {word: i for i, word in enumerate(words)}
        self._shown: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, indices: Sequence[int], patches: bool = False) -> dict[str, Tensor]:
        """`ids_BT`, `target_BA`, images (each once; `image_B` is the index of each question's image).
        With `patches` also `shown_BPW` and `asked_BP`, with P of the largest image and -1 where unknown."""
        longest = max(len(self.encoded[i].ids) for i in indices)
        ids_BT = torch.full((len(indices), longest), PAD)
        target_BA = torch.zeros(len(indices), len(self.answers))
        for row, i in enumerate(indices):
            ids = self.encoded[i].ids
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            for answer, score in self.targets[i].items():
                target_BA[row, answer] = score
        names = [self.examples[i].image_id for i in indices]
        once = {name: k for k, name in enumerate(dict.fromkeys(names))}
        out = {"ids_BT": ids_BT, "target_BA": target_BA, **self.images.batch(list(once))}
        if len(once) < len(names):
            out["image_B"] = torch.tensor([once[name] for name in names])
        if patches and self.words:
            out |= self._patches(indices)
        return out

    def _patches(self, indices: Sequence[int]) -> dict[str, Tensor]:
        examples = [self.examples[i] for i in indices]
        shown = [self.shown(e.image_id) for e in examples]
        longest = max(map(len, shown))
        shown_BPW = torch.full((len(shown), longest, len(self.words)), float(UNKNOWN))
        asked_BP = torch.full((len(shown), longest), UNKNOWN)
        for row, (example, shown_PW) in enumerate(zip(examples, shown)):
            shown_BPW[row, : len(shown_PW)] = shown_PW
            asked_P = self.asked(example)
            if asked_P is not None:
                asked_BP[row, : len(asked_P)] = torch.from_numpy(asked_P.astype(np.int64))
        return {"shown_BPW": shown_BPW, "asked_BP": asked_BP}

    def shown(self, image_id: str) -> Tensor:
        """(P,W) 0/1: whether a word is true of a patch, in raster order."""
        if image_id not in self._shown:
            scene = self.corpus.scenes[image_id]
            found = shown_on_patches(scene, self.images.shape(image_id), self.words)
            self._shown[image_id] = torch.from_numpy(found)
        return self._shown[image_id]

    def asked(self, example: Example) -> np.ndarray | None:
        """(P,) bool: patches of the things that the question names; None if none is known."""
        scene = self.corpus.scenes[example.image_id]
        objects = asked_objects([p.objects for p in example.phrases], scene)
        if not objects:
            return None
        return patches_of(
            [o.box for o in objects], (scene.width, scene.height), self.images.shape(example.image_id)
        )

    def order(self, batch_size: int, seed: int, epoch: int, by_image: bool = False) -> list[list[int]]:
        """A shuffled epoch as lists of indices; questions are short, so they are not sorted by length.
        `by_image` keeps the questions about an image together, so that it is embedded once."""
        shuffled = np.random.default_rng([seed, epoch]).permutation(len(self)).tolist()
        if by_image:
            together: dict[str, list[int]] = {}
            for i in shuffled:
                together.setdefault(self.examples[i].image_id, []).append(i)
            shuffled = [i for part in together.values() for i in part]
        return cut(shuffled, batch_size)

    def in_order(self, batch_size: int) -> list[list[int]]:
        return cut(range(len(self)), batch_size)


def of_run(
    corpus: Corpus, examples: Sequence[Example], vocab: Any, config: Mapping[str, Any], answers: Sequence[str]
) -> QuestionBatches:
    """The examples with the tokenizer and image settings of a run's configuration."""
    from attention_atlas.training.question_text import question_text
    from attention_atlas.training.vilt_images import Images

    task = config.get("train", {}).get("task", {})
    images = Images(corpus, int(task.get("patch", 16)), task.get("shorter"))
    text = question_text(task.get("tokenizer"), vocab)
    return QuestionBatches(corpus, examples, text, images, answers, int(task.get("longest", 40)))


def spread(examples: Sequence[Example], count: int) -> list[Example]:
    """`count` of the examples, evenly spaced (0: all)."""
    if not count or count >= len(examples):
        return list(examples)
    return [examples[i * len(examples) // count] for i in range(count)]
