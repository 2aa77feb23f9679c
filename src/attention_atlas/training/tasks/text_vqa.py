"""Answer questions about the text in images: answers are made of vocabulary words and OCR words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from attention_atlas.data.ocr_file import LOOK, read_ocr
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import write_json
from attention_atlas.language.vocabulary import Vocabulary
from attention_atlas.measures.text.anls import anls
from attention_atlas.measures.vqa_accuracy import consensus, vqa_accuracy
from attention_atlas.training.captions import RegionCache, tokens
from attention_atlas.training.optimizers import parameter_groups
from attention_atlas.training.published_inputs import PublishedInputs
from attention_atlas.training.questions import spread
from attention_atlas.training.scene_text import TextQuestions, answer_words
from attention_atlas.training.settings import TrainSettings

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus, Example
    from attention_atlas.regions.features_file import FeaturesFile

SCHEMA = "atlas.text_vqa/1"


@dataclass
class TextVqaTask:
    """Chosen by `_target_` in conf/train/text_vqa.yaml.

    ocr: file of the OCR words. min_count: rarer words of questions become UNK. answer_min: minimum number of
    training questions whose answers have a word of the answer vocabulary; answer_size: its maximum size (M4C:
    5,000). longest: maximum words of a question; steps: of an answer, including its end; objects, words:
    maximum number per image (0: all objects). exchange: share of the training questions in which the OCR
    words are exchanged for others. judged: held-out questions (0: all).
    text_encoder, fasttext, ocr_features: M4C's published inputs (see `PublishedInputs`), all three or none.
    """

    ocr: str
    split: str = "train"
    select_on: str = "val"
    min_count: int = 2
    answer_min: int = 1
    answer_size: int | None = None
    batch_size: int = 64
    longest: int = 20
    steps: int = 12
    objects: int = 100
    words: int = 50
    exchange: float = 0.0
    judged: int = 0
    seed: int = 0
    text_encoder: str = ""
    fasttext: str = ""
    ocr_features: str = ""
    inputs: list[str] = field(init=False)

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("steps", 2), ("longest", 1), ("words", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: must be at least {least}, not {getattr(self, name)}")
        given = [self.text_encoder, self.fasttext, self.ocr_features]
        if any(given) and not all(given):
            raise ConfigError(
                "text_encoder, fasttext and ocr_features belong together: give all three or none"
            )
        if any(given) and self.exchange:
            raise ConfigError("exchange: must be 0 with ocr_features, which show the original words")
        self.published: PublishedInputs | None = None
        self.best = ("accuracy", "max")

    def prepare(self, corpus: Corpus, features: FeaturesFile) -> None:
        """Read questions, objects and words; both vocabularies come from the training split."""
        self.corpus, self.regions, self.images = corpus, RegionCache(features), read_ocr(self.ocr)
        if self.text_encoder:
            self.published = PublishedInputs(self.text_encoder, self.fasttext, self.ocr_features)
        train = self.of(self.split)
        self.vocab = Vocabulary.build((tokens(e.text) for e in train), self.min_count)
        counts = Counter(w for e in train for w in set(answer_words(consensus(e.answers))))
        frequent = [w for w, n in counts.items() if n >= self.answer_min]
        frequent.sort(key=lambda w: (-counts[w], w))
        self.answer_vocab = Vocabulary(frequent[: self.answer_size])
        self.train = self.questions(train, self.exchange)
        if not any(self.train.spelled):
            raise AtlasError(f"{self.ocr}: no training answer can be built from it; check the OCR stage")
        self.held_out = self.questions(spread(self.of(self.select_on), self.judged))

    def of(self, split: str) -> list[Example]:
        """Questions of a split by id. Raises AtlasError if there are none, or if one has no answers."""
        return sorted(self.corpus.some(split, answered=True), key=lambda e: e.id)

    def questions(self, examples: list[Example], exchange: float = 0.0) -> TextQuestions:
        return TextQuestions(
            examples,
            self.vocab,
            self.answer_vocab,
            self.regions,
            self.images,
            self.longest,
            self.steps,
            self.objects,
            self.words,
            exchange,
            self.published,
        )

    def model_sizes(self) -> dict[str, Any]:
        sizes: dict[str, Any] = {}
        if self.published is not None:
            sizes = {"text_encoder": self.text_encoder, "vector_dim": self.train.word_vectors.shape[1]}
        return sizes | {
            "vocab_size": len(self.vocab),
            "answers": len(self.answer_vocab),
            "feature_dim": self.regions.features.dim,
            "look_dim": self.published.features.dim if self.published else LOOK,
            "steps": self.steps,
            "max_text": self.longest,
        }

    def start(self, model: nn.Module) -> None:
        """Load pretrained weights of the question encoder, if the model has one."""
        if hasattr(model, "load_pretrained"):
            model.load_pretrained()  # type: ignore[operator]

    def save(self, folder: Path) -> None:
        self.vocab.save(folder / "vocab.json")
        write_json(folder / "answers.json", {"schema": SCHEMA, "answers": self.answer_vocab.words})

    def optimizers(self, model: nn.Module, settings: TrainSettings) -> dict[str, torch.optim.Optimizer]:
        """Adam in one call for all tensors: with small tensors the calls take most of the time."""
        groups = parameter_groups(model, settings)
        kind = torch.optim.AdamW if settings.weight_decay else torch.optim.Adam
        return {
            "all": kind(
                groups,
                lr=settings.lr,
                betas=settings.betas,
                eps=settings.eps,
                weight_decay=settings.weight_decay,
                fused=True,
            )
        }

    def steps_per_epoch(self) -> int:
        return -(-sum(map(bool, self.train.spelled)) // self.batch_size)

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[dict[str, Tensor]]:
        orders = self.train.order(self.batch_size, self.seed, epoch)
        for number in range(start, len(orders), every):
            yield self.train.batch(orders[number], np.random.default_rng([self.seed, epoch, number]))

    def losses(self, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        yield "all", model(batch, learn=True)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """VQA accuracy and ANLS in per cent over the held-out questions."""
        predicted = generate_answers(model, self.held_out, 4 * self.batch_size)
        answers = [e.answers for e in self.held_out.examples]
        return {
            "accuracy": 100 * float(np.mean([vqa_accuracy(s, a) for s, a in zip(predicted, answers)])),
            "ANLS": 100 * float(np.mean([anls(s, a) for s, a in zip(predicted, answers)])),
        }


@torch.no_grad()
def generate_answers(model: Any, questions: TextQuestions, batch_size: int) -> list[str]:
    """The model's answer to each question."""
    device = next(model.parameters()).device
    out: list[str] = []
    for indices in questions.in_order(batch_size):
        batch = {k: v.to(device) for k, v in questions.batch(indices).items()}
        for i, ids in zip(indices, model.generate(batch).tolist()):
            out.append(questions.text(i, ids))
    return out
