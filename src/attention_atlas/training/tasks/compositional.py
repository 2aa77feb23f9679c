"""Answer compositional questions about scenes: one answer each, exact match, also by type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_atlas.data.images import read_rgb
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import write_json
from attention_atlas.language.vocabulary import Vocabulary
from attention_atlas.training.batches import cut, padded_ids, pooled
from attention_atlas.training.captions import RegionCache, tokens
from attention_atlas.training.questions import spread

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus, Example, Scene
    from attention_atlas.regions.features_file import FeaturesFile

SCHEMA = "atlas.compositional/1"
KNOWLEDGE = ("regions", "grid", "nothing")
# The five types of the paper's Table 5, in its order.
TYPES = ("Exist", "Count", "Compare Integer", "Query Attribute", "Compare Attribute")
UNSEEN = -1  # an answer that no training question has: never correct


@dataclass
class CompositionalTask:
    """Chosen by `_target_` in conf/train/compositional.yaml.

    min_count: rarer words become UNK. longest: maximum words of a question. judged: held-out questions that
    select the checkpoint (0: all). knowledge: `regions` of features.h5; a `grid`, read by `grid` (an object
    with `channels` and `read(image_id) -> (C,H,W)`, such as data/clevr_grid.py) or, without it, of pixels,
    `image` per side; or `nothing`, for a blind model. naming: weight of the loss on the names of annotated
    regions (label and attributes that questions use), which replaces the features of a large detector; 0
    turns it off.
    """

    split: str = "train"
    select_on: str = "val"
    min_count: int = 1
    batch_size: int = 64
    longest: int = 45
    judged: int = 0
    knowledge: str = "regions"
    grid: Any = None
    image: int = 64
    naming: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size: must be at least 1, not {self.batch_size}")
        if self.knowledge not in KNOWLEDGE:
            raise ConfigError(f"knowledge: '{self.knowledge}' is none of {', '.join(KNOWLEDGE)}")
        if self.naming and self.knowledge != "regions":
            raise ConfigError("naming: only regions have names; set it to 0, or knowledge=regions")
        self.best = ("accuracy", "max")

    def prepare(self, corpus: Corpus, features: FeaturesFile | None = None) -> None:
        """Read the questions; vocabulary and answers come from the training split."""
        self.corpus, self.features = corpus, features
        train, held_out = corpus.some(self.split), corpus.some(self.select_on)
        self.vocab = Vocabulary.build((tokens(e.text) for e in train), self.min_count)
        self.answers = sorted({_answer(e, corpus) for e in train})
        self.seen: RegionCache | Cells | Nothing
        if self.knowledge == "regions":
            if features is None:
                raise AtlasError("compositional questions: no region features; give them, or knowledge=grid")
            self.seen = RegionCache(features)
        elif self.knowledge == "nothing":
            self.seen = Nothing()
        else:
            self.seen = Cells(corpus, self.image, self.grid)
        self.train = self.questions(train)
        self.names = self._names(train) if self.naming else None
        self.held_out = self.questions(spread(sorted(held_out, key=lambda e: e.id), self.judged))

    def _names(self, train: Sequence[Example]) -> Names:
        assert self.features is not None
        scenes = [self.corpus.scenes[i] for i in sorted({e.image_id for e in train})]
        return Names(scenes, self.vocab, self.features)

    def questions(self, examples: Sequence[Example]) -> Questions:
        """Batches of these questions, read with this task's settings."""
        return Questions(self.corpus, examples, self.vocab, self.answers, self.seen, self.longest)

    def model_sizes(self) -> dict[str, Any]:
        sizes: dict[str, Any] = {"vocab_size": len(self.vocab), "answers": len(self.answers)}
        if isinstance(self.seen, Cells):
            return sizes | {"channels": self.seen.channels}
        if isinstance(self.seen, Nothing):
            return sizes
        return sizes | {"feature_dim": self.seen.features.dim}

    def save(self, folder: Path) -> None:
        self.vocab.save(folder / "vocab.json")
        write_json(folder / "answers.json", {"schema": SCHEMA, "answers": self.answers})

    def steps_per_epoch(self) -> int:
        return -(-len(self.train) // self.batch_size)

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[dict[str, Tensor]]:
        for indices in self.train.order(self.batch_size, self.seed, epoch)[start::every]:
            batch = self.train.batch(indices)
            if self.names is not None:
                images = [self.train.examples[i].image_id for i in indices]
                batch["called_BNW"] = self.names.batch(images, batch["regions_BN"].shape[1])
            yield batch

    def losses(self, model: nn.Module, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        names_W = None if self.names is None else self.names.ids_W.to(batch["ids_BT"].device)
        out = model(batch, names_W)
        if not isinstance(out, tuple):  # without names, or blind
            yield "all", F.cross_entropy(out, batch["answer_B"])
            return
        (scores_BA, called_BNW), there = out, batch["regions_BN"]
        named = F.binary_cross_entropy_with_logits(called_BNW[there], batch["called_BNW"][there])
        yield "all", F.cross_entropy(scores_BA, batch["answer_B"]) + self.naming * named * called_BNW.shape[2]

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Accuracy in per cent over `judged` held-out questions (0: all), and by type."""
        device = next(model.parameters()).device
        right: dict[str, list[bool]] = {"accuracy": []}
        for indices in self.held_out.in_order(4 * self.batch_size):
            batch = {k: v.to(device) for k, v in self.held_out.batch(indices).items()}
            hits = model(batch).argmax(-1) == batch["answer_B"]
            for i, hit in zip(indices, hits.tolist()):
                kind = question_type(self.held_out.examples[i])
                right["accuracy"].append(hit)
                right.setdefault(f"accuracy_{kind.replace(' ', '_')}", []).append(hit)
        return {name: 100 * sum(hits) / len(hits) for name, hits in sorted(right.items())}


def question_type(example: Example) -> str:
    """One of TYPES. Raises AtlasError if the question has no such type."""
    kind = str(example.extra.get("type", ""))
    if kind not in TYPES:
        raise AtlasError(
            f"question '{example.id}': extra.type: '{kind}' is none of {', '.join(TYPES)}; correct the layer"
        )
    return kind


def _answer(example: Example, corpus: Corpus) -> str:
    if len(example.answers) != 1:
        raise AtlasError(
            f"{corpus.root}: question '{example.id}': answers: {len(example.answers)} of them; "
            "a compositional question has exactly one"
        )
    return example.answers[0]


class Questions:
    """Questions in batches: `ids_BT` (words, PAD), `answer_B`, and the image input of the model."""

    def __init__(
        self,
        corpus: Corpus,
        examples: Sequence[Example],
        vocab: Vocabulary,
        answers: Sequence[str],
        seen: RegionCache | Cells | Nothing,
        longest: int,
    ) -> None:
        if not examples:
            raise AtlasError(f"{corpus.root}: no question; check data and split names")
        self.examples, self.seen = list(examples), seen
        self.words = [tokens(e.text)[:longest] for e in self.examples]
        self.ids = [vocab.encode(row) for row in self.words]
        index = {answer: i for i, answer in enumerate(answers)}
        self.answer = [index.get(_answer(e, corpus), UNSEEN) for e in self.examples]
        if isinstance(seen, RegionCache):
            for example in self.examples:
                if example.image_id not in seen.features:
                    raise AtlasError(
                        f"features: image '{example.image_id}' is missing; run the features stage again"
                    )

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        ids_BT = padded_ids([self.ids[i] for i in indices])
        seen = self.seen.batch([self.examples[i].image_id for i in indices])
        if "regions_BN" in seen:  # no padding beyond the image with the most regions
            most = int(seen["regions_BN"].sum(1).max())
            seen = {name: value[:, :most] for name, value in seen.items()}
        return {"ids_BT": ids_BT, "answer_B": torch.tensor([self.answer[i] for i in indices]), **seen}

    def order(self, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
        """A shuffled epoch; questions of similar length are batched together to keep padding low."""
        return pooled(len(self), batch_size, [seed, epoch], lambda i: len(self.ids[i]), pool=0)

    def in_order(self, batch_size: int) -> list[list[int]]:
        return cut(range(len(self)), batch_size)


class Names:
    """Names of the regions of annotated scenes: 0/1 for each word of `words` (ids `ids_W`)."""

    def __init__(self, scenes: Sequence[Scene], vocab: Vocabulary, features: FeaturesFile) -> None:
        found = {name for s in scenes for o in s.objects for name in (o.label, *o.attributes)}
        self.words = sorted(name for name in found if name in vocab)
        if not self.words:
            raise AtlasError(
                "compositional questions: naming: no object has a name that questions use; set it to 0"
            )
        self.ids_W = torch.tensor(vocab.encode(self.words))
        self._called: dict[str, Tensor] = {}
        for scene in scenes:
            names = {o.id: {o.label, *o.attributes} for o in scene.objects}
            gold = features.read(scene.image_id).gold.tolist()
            rows = [[float(word in names.get(g, ())) for word in self.words] for g in gold]
            self._called[scene.image_id] = torch.tensor(rows)

    def batch(self, image_ids: Sequence[str], regions: int) -> Tensor:
        """(B,N,W) for the first `regions` regions."""
        return torch.stack([self._called[i][:regions] for i in image_ids])


class Nothing:
    """The image input of a blind model."""

    def batch(self, image_ids: Sequence[str]) -> dict[str, Tensor]:
        return {}


class Cells:
    """`grid_BCHW` of images: the channels of `source`, else pixels in -1..1 resized to `side`."""

    def __init__(self, corpus: Corpus, side: int, source: Any = None) -> None:
        if source is None and side < 8:
            raise ConfigError(f"image: must be at least 8 pixels, not {side}")
        self.corpus, self.side, self.source = corpus, side, source
        self.channels = 3 if source is None else int(source.channels)
        self._kept: dict[str, Tensor] = {}

    def batch(self, image_ids: Sequence[str]) -> dict[str, Tensor]:
        if self.source is not None:
            return {
                "grid_BCHW": torch.stack([torch.from_numpy(self.source.read(i)).float() for i in image_ids])
            }
        return {"grid_BCHW": torch.stack([self._pixels(i) for i in image_ids]).float() / 127.5 - 1}

    def _pixels(self, image_id: str) -> Tensor:
        if image_id not in self._kept:
            from PIL.Image import Resampling

            image = read_rgb(self.corpus.image_path(image_id))
            small = image.resize((self.side, self.side), Resampling.BOX)
            self._kept[image_id] = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)
        return self._kept[image_id]
