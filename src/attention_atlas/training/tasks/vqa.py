"""Answer questions about images: soft targets over an answer list, judged by the official accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attention_atlas.data.patches import SIDES
from attention_atlas.data.question_types import group_of
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import write_json
from attention_atlas.language.vocabulary import Vocabulary
from attention_atlas.measures.vqa_accuracy import answer_list, vqa_accuracy
from attention_atlas.training.captions import tokens
from attention_atlas.training.question_text import question_text
from attention_atlas.training.questions import QuestionBatches
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.vilt_images import Images

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus, Example

SCHEMA = "atlas.vqa/1"
COLOURS = (
    "white",
    "black",
    "gray",
    "brown",
    "beige",
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
)


@dataclass
class VqaTask:
    """Chosen by `_target_` in conf/train/vqa.yaml.

    min_count: rarer words become UNK. answers_min, answers_size: the answer list (ViLT: 9, 3,129). longest:
    maximum tokens of a question. by_image: a batch holds all questions of a few images, which are
    embedded once. patch, shorter: size of a patch and of an image's shorter side (null: unchanged).
    tokenizer: hub id or folder (null: own vocabulary). patch_weight, asked_weight: of the auxiliary losses on
    the patches of annotated scenes (what a patch shows; whether the question is about it), 0 turns them off.
    head_lr: factor of the learning rate of the answer head (ViLT: 10). judged: held-out questions (0: all).
    """

    split: str = "train"
    select_on: str = "val"
    min_count: int = 2
    answers_min: int = 1
    answers_size: int | None = None
    batch_size: int = 32
    by_image: bool = False
    longest: int = 40
    patch: int = 16
    shorter: int | None = None
    tokenizer: str | None = None
    patch_weight: float = 0.0
    asked_weight: float = 0.0
    head_lr: float = 1.0
    judged: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size: must be at least 1, not {self.batch_size}")
        self.best = ("accuracy", "max")

    def prepare(self, corpus: Corpus, features: Any = None) -> None:
        """Read the questions; vocabulary, answer list and label list come from the training split."""
        train, held_out = corpus.some(self.split, answered=True), corpus.some(self.select_on, answered=True)
        self.vocab = (
            None if self.tokenizer else Vocabulary.build((tokens(e.text) for e in train), self.min_count)
        )
        self.answers = answer_list([e.answers for e in train], self.answers_min, self.answers_size)
        self.patch_words = self._patch_words(corpus, train)
        images = Images(corpus, self.patch, self.shorter)
        text = question_text(self.tokenizer, self.vocab)
        self.train = QuestionBatches(
            corpus, train, text, images, self.answers, self.longest, self.patch_words
        )
        held_out = sorted(held_out, key=lambda e: e.id)
        if self.judged:
            held_out = held_out[:: max(1, len(held_out) // self.judged)][: self.judged]
        self.held_out = QuestionBatches(corpus, held_out, text, images, self.answers, self.longest)

    def _patch_words(self, corpus: Corpus, train: list[Example]) -> list[str]:
        if not (self.patch_weight or self.asked_weight):
            return []
        scenes = {e.image_id: corpus.scenes[e.image_id] for e in train}.values()
        counts = Counter(o.label for s in scenes for o in s.objects)
        if not counts:
            raise AtlasError(f"{corpus.root}: no annotated objects; set patch_weight and asked_weight to 0")
        return [*sorted(counts), *COLOURS, *SIDES]

    def model_sizes(self) -> dict[str, Any]:
        sizes: dict[str, Any] = {"answers": len(self.answers)}
        if self.vocab is not None:
            sizes["vocab_size"] = len(self.vocab)
        if self.patch_words:
            sizes["patch_words"] = len(self.patch_words)
        return sizes

    def start(self, model: nn.Module) -> None:
        """Initialise the answer head's bias with the frequency of each answer, so that no step is spent on
        it."""
        target_A = torch.zeros(len(self.answers))
        for targets in self.train.targets:
            for answer, score in targets.items():
                target_A[answer] += score
        share = ((target_A + 0.5) / (len(self.train) + 1)).clamp(max=0.9)
        model.answer[-1].bias.data.copy_(torch.logit(share))  # type: ignore[index,union-attr]

    def save(self, folder: Path) -> None:
        if self.vocab is not None:
            self.vocab.save(folder / "vocab.json")
        write_json(
            folder / "answers.json",
            {"schema": SCHEMA, "answers": self.answers, "patch_words": self.patch_words},
        )

    def optimizers(self, model: nn.Module, settings: TrainSettings) -> dict[str, torch.optim.Optimizer]:
        """AdamW; no weight decay on vectors, and the head's own learning rate."""
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            groups.setdefault((name.startswith("answer."), parameter.ndim > 1), []).append(parameter)
        return {
            "all": torch.optim.AdamW(
                [
                    {
                        "params": parameters,
                        "lr": settings.lr * (self.head_lr if head else 1.0),
                        "weight_decay": settings.weight_decay if matrix else 0.0,
                    }
                    for (head, matrix), parameters in groups.items()
                ],
                betas=settings.betas,
                eps=settings.eps,
                fused=True,
            )
        }

    def steps_per_epoch(self) -> int:
        return -(-len(self.train) // self.batch_size)

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[dict[str, Tensor]]:
        for indices in self.train.order(self.batch_size, self.seed, epoch, self.by_image)[start::every]:
            yield self.train.batch(indices, patches=True)

    def losses(self, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        parts = model(batch, (self.patch_weight, self.asked_weight))
        yield "all", torch.stack(list(parts.values())).sum()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Official accuracy in per cent over `judged` held-out questions (0: all), and by group."""
        device = next(model.parameters()).device
        right: dict[str, list[float]] = {"accuracy": []}
        for indices in self.held_out.in_order(4 * self.batch_size):
            batch = {k: v.to(device) for k, v in self.held_out.batch(indices).items()}
            for i, best in zip(indices, model(batch).argmax(-1).tolist()):
                example = self.held_out.examples[i]
                score = 100 * vqa_accuracy(self.answers[best], example.answers)
                group = example.extra.get("group") or group_of(example.text)
                right["accuracy"].append(score)
                right.setdefault(f"accuracy_{group.replace(' ', '_')}", []).append(score)
        return {name: sum(scores) / len(scores) for name, scores in sorted(right.items())}
