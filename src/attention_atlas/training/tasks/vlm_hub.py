"""Use a published vision LLM without training; report what the model lacks before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus


@dataclass
class VlmHubTask:
    """The run folder holds the checkpoint's name, not its weights."""

    seed: int = 0

    def __post_init__(self) -> None:
        self.best = ("layers", "max")

    def prepare(self, corpus: Corpus, features: None = None) -> None:
        pass

    def model_sizes(self) -> dict[str, Any]:
        return {}

    def start(self, model: Any) -> None:
        """Raises AtlasError for a model that study 5 cannot use."""
        from attention_atlas.models.vlm.hub import HubVlm, checked_config, hub_inputs

        if not isinstance(model, HubVlm):
            raise AtlasError(
                f"conf/train: vlm_hub is for hub models, not {type(model).__name__}; choose another"
            )
        config = checked_config(model.pretrained)
        self.image_tokens = hub_inputs(model.pretrained, config, model.template).image_tokens
        self.layers = int(config.text_config.num_hidden_layers)

    def save(self, folder: Path) -> None:
        pass

    def steps_per_epoch(self) -> int:
        return 1

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[Any]:
        yield from [{}][start::every]

    def losses(self, model: nn.Module, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        yield from ()

    def validate(self, model: nn.Module) -> dict[str, float]:
        return {"layers": float(self.layers), "image_tokens": float(self.image_tokens)}
