"""Evaluation of SCAN's runs: retrieval in both directions, hits of each query, grounding of words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.words import words
from attention_atlas.measures.retrieval import recalls
from attention_atlas.studies.alignment.result import RunResult, Shown
from attention_atlas.training.by_image import ImageCaptions, padded
from attention_atlas.training.tasks.matching import all_similarities, image_of

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Example

KS = (1, 5, 10)
ROWS = ("R@1", "R@10", "Rsum")
# Words of a phrase that refer to nothing by themselves.
BARE = frozenset({"a", "an", "the", "some", "its", "their", "of", "and", "with", "or"})


@dataclass
class ScanEvaluator:
    """split: the ranked split; images: only its first n images (null: all; COCO uses 1,000). shown: number of
    captions whose attention is drawn."""

    split: str = "test"
    images: int | None = None
    shown: int = 6

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise ConfigError(f"conf/model: evaluator: images: must be at least 1 or null, not {self.images}")

    def __call__(self, model: Any, task: Any, device: str = "cpu") -> RunResult:
        """Scores in per cent ("R@1 sentence": the image is the query; "R@1 image": the caption is the query;
        Rsum; chance); rows for each query; grounding of the words whose objects are known. Raises AtlasError
        for a split without captions."""
        model = model.to(device).eval()
        captions = self.captions(task)
        numbers, found = recalls(all_similarities(model, captions), image_of(captions), KS)
        attention = dict(self.attention(model, captions, device))
        grounding = [row for e in captions.examples for row in grounded(e, attention[e.id], task)]
        return RunResult(
            numbers,
            self.rows(captions, found, task),
            grounding,
            self.examples_shown(captions, attention, task),
        )

    def captions(self, task: Any) -> ImageCaptions:
        examples = task.corpus.split(self.split)
        kept = set(list(dict.fromkeys(e.image_id for e in examples))[: self.images])
        examples = [e for e in examples if e.image_id in kept]
        if not examples:
            raise AtlasError(f"{task.corpus.root}: split '{self.split}' has no caption; check the data set")
        return task.captions(examples)

    def attention(self, model: Any, captions: ImageCaptions, device: str) -> Iterator[tuple[str, np.ndarray]]:
        """(caption id, attention of its words over the non-padding regions of its own image), without BOS and
        EOS."""
        for start in range(0, len(captions), 64):
            part = range(start, min(start + 64, len(captions)))
            batch = {
                "ids_BT": padded([captions.ids[i] for i in part]),
                **captions.regions.batch([captions.examples[i].image_id for i in part]),
            }
            with torch.no_grad():
                weights_BTN = model.weights({k: v.to(device) for k, v in batch.items()}).float().cpu().numpy()
            for row, i in enumerate(part):
                real_N = batch["regions_BN"][row].numpy()
                yield captions.examples[i].id, weights_BTN[row, 1 : len(captions.ids[i]) + 1][:, real_N]

    def rows(self, captions: ImageCaptions, found: dict[str, np.ndarray], task: Any) -> list[dict[str, Any]]:
        """R@1, R@10 and Rsum of every query. Rsum has one row for each kind of scene or object in the image
        (`category`) and the number of nouns of the caption, or the largest number among the image's
        captions (`nouns`). Plain "Rsum" is per image: its own plus the mean of its captions."""
        count = dict(zip((e.id for e in captions.examples), nouns(captions.examples)))
        rows: list[dict[str, Any]] = []
        per_caption = len(captions.images) / len(captions.examples)
        for i, name in enumerate(captions.images):
            own = captions.of_image[name]
            groups = [{"category": c} for c in categories(task.corpus.scenes[name])] or [{}]
            most = max(count[captions.examples[c].id] for c in own)
            rows += _query(name, name, "sentence", found["sentence"][i], groups, most)
            for c in own:
                e = captions.examples[c].id
                rows += _query(e, name, "image", found["image"][c], groups, count[e])
            both = found["sentence"][i].sum() + per_caption * found["image"][own].sum()
            rows.append({"example": name, "metric": "Rsum", "value": 100 * float(both), "image": name})
        return rows

    def examples_shown(
        self, captions: ImageCaptions, attention: dict[str, np.ndarray], task: Any
    ) -> list[Shown]:
        """Evenly spaced over the images by name; for each the caption with the most phrases about objects."""
        if self.shown < 1:
            return []
        names = sorted(captions.images)
        out = []
        for name in names[:: max(1, len(names) // self.shown)][: self.shown]:
            own = [captions.examples[c] for c in captions.of_image[name]]
            example = max(own, key=lambda e: (sum(bool(p.objects) for p in e.phrases), e.id))
            regions = task.features.read(name)
            weights_WN = attention[example.id]
            out.append(
                Shown(
                    example=example.id,
                    image=task.corpus.image_path(name).as_posix(),
                    size=regions.size,
                    words=[w.text for w in words(example.text)][: len(weights_WN)],
                    attn_WN=weights_WN,
                    boxes_N4=regions.boxes[: regions.count],
                    text=example.text,
                )
            )
        return out


def _query(
    example: str, image: str, direction: str, hit_K: np.ndarray, groups: list[dict[str, str]], nouns: int
) -> list[dict[str, Any]]:
    values = {f"R@{k}": 100 * float(hit) for k, hit in zip(KS, hit_K)}
    values["Rsum"] = 100 * float(hit_K.sum())
    base = {"example": example, "image": image}
    rows = []
    for name in ROWS:
        more = [{**g, "nouns": nouns} for g in groups] if name == "Rsum" else [{}]
        rows += [{**base, "metric": f"{name} {direction}", "value": values[name], **m} for m in more]
    return rows


def categories(scene: Any) -> list[str]:
    """The kind of scene, or the kinds of objects in it if it has none."""
    return [scene.category] if scene.category else sorted({o.label for o in scene.objects})


def nouns(examples: list[Example]) -> list[int]:
    """Number of noun phrases of each text: the annotated ones, or by POS tags if no text has any."""
    if any(e.phrases for e in examples):
        return [len(e.phrases) for e in examples]
    return list(_tagged(tuple(e.text for e in examples)))


@lru_cache(maxsize=2)
def _tagged(texts: tuple[str, ...]) -> tuple[int, ...]:
    from attention_atlas.language.parse import load_pipeline

    pipeline = load_pipeline()
    return tuple(sum(t.pos_ in ("NOUN", "PROPN") for t in doc) for doc in pipeline.pipe(texts))


def grounded(example: Example, weights_WN: np.ndarray, task: Any) -> Iterator[dict[str, Any]]:
    """A row for each word of a phrase whose objects are among the regions (`gold` of features.h5): the share
    of its attention on them, their share of the regions (chance), and whether its peak is there."""
    if not any(p.objects for p in example.phrases):
        return
    regions = task.features.read(example.image_id)
    gold_N = regions.gold[: regions.count]
    for i, word in enumerate(words(example.text)[: len(weights_WN)]):
        over = [p for p in example.phrases if p.start <= word.start and word.end <= p.end]
        if not over or word.text.lower() in BARE or not any(c.isalnum() for c in word.text):
            continue
        meant_N = np.isin(gold_N, min(over, key=lambda p: p.end - p.start).objects)
        if meant_N.any():
            yield {
                "example": example.id,
                "word": word.text.lower(),
                "mass": float(weights_WN[i][meant_N].sum()),
                "chance": float(meant_N.mean()),
                "top1": int(meant_N[int(weights_WN[i].argmax())]),
            }
