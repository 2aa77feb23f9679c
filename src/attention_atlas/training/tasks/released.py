"""Evaluate the released Object Relation Transformer instead of training one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from attention_atlas.errors import AtlasError
from attention_atlas.training.tasks.captioning import CaptioningTask

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus
    from attention_atlas.language.vocabulary import Vocabulary
    from attention_atlas.regions.features_file import FeaturesFile


@dataclass
class ReleasedTask(CaptioningTask):
    """weights: the released .pth (or .safetensors); words: the JSON with `ix_to_word` (see
    yahoo_checkpoint)."""

    weights: str = ""
    words: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()

    def prepare(self, corpus: Corpus, features: FeaturesFile, vocab: Vocabulary | None = None) -> None:
        from attention_atlas.models.yahoo_checkpoint import read_released

        self.state, released, self.sizes = read_released(self.weights, self.words)
        if features.dim != self.sizes["feature_dim"]:
            raise AtlasError(
                f"{self.weights}: needs features of {self.sizes['feature_dim']} numbers, "
                f"{features.dim} are given; use bottom-up features"
            )
        super().prepare(corpus, features, released)

    def start(self, model: nn.Module) -> None:
        try:
            model.load_state_dict(self.state)
        except RuntimeError as error:
            first = " ".join(str(error).split())[:200]
            raise AtlasError(f"{self.weights}: {first}; correct layers, heads, dim in conf/model") from None

    def steps_per_epoch(self) -> int:
        return 1

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[Any]:
        yield from [{}][start::every]

    def losses(self, model: nn.Module, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        yield from ()
