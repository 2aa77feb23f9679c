"""Fine-tuning of a published vision-language model on captions and questions, as in LLaVA-1.5's second stage.

Works with any model that `model=hub` accepts. The run folder is also a transformers checkpoint, so `look`,
`ground` and `model=hub model.path=FOLDER` can read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.vlm.samples import CAPTION_PROMPT, samples_of, with_other_images

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus
    from attention_atlas.models.vlm.samples import Sample


def pretrained(path: str) -> Any:
    """The model of a hub id or folder, in float32: small steps would be lost in bfloat16 weights."""
    from attention_atlas.look.load import load

    if not path:
        raise ConfigError("model.path: is empty; give a hub id or a folder, model.path=ID")
    return load(path, "cpu", "float32")[0]


@dataclass
class FineTuningTask:
    """An epoch shows every text once with its image, in random order, one per batch.

    path: hub id or folder of the model. frozen: globs over the names of parameters that are not trained.
    prompt: the instruction before a caption; a question is its own instruction. judged: held-out texts for
    the validation loss, evenly spaced (0: all).
    """

    path: str
    split: str = "train"
    select_on: str = "val"
    frozen: Sequence[str] = ("*vision*", "*visual*")
    prompt: str = CAPTION_PROMPT
    judged: int = 200
    seed: int = 0
    continues = True

    def __post_init__(self) -> None:
        self.best = ("loss", "min")

    def prepare(self, corpus: Corpus, features: None = None) -> None:
        from attention_atlas.models.vlm.processors import load_processor

        self.processor = load_processor(self.path)
        self.samples = samples_of(corpus, corpus.split(self.split), self.prompt)
        held_out = samples_of(corpus, corpus.split(self.select_on), self.prompt)
        count = min(self.judged or len(held_out), len(held_out))
        self.held_out = [held_out[i * len(held_out) // count] for i in range(count)]

    def model_sizes(self) -> dict[str, Any]:
        return {}

    def start(self, model: Any) -> None:
        from attention_atlas.studies.vlm_phases.any_model import ProcessorInputs

        self.model, self.inputs = model, ProcessorInputs(model, self.processor)
        names = {name: p for name, p in model.named_parameters()}
        chosen = [name for name in names if any(fnmatchcase(name, glob) for glob in self.frozen)]
        if (self.frozen and not chosen) or len(chosen) == len(names):
            which = "every" if chosen else "no"
            raise ConfigError(
                f"train: task: frozen: {list(self.frozen)} matches {which} parameter of "
                f"{type(model).__name__}; its names are like '{next(iter(names))}'"
            )
        for name in chosen:
            names[name].requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Write the files that transformers reads besides the weights."""
        from attention_atlas.models.vlm.processors import save_processor

        self.model.config.save_pretrained(folder)
        if self.model.can_generate():
            self.model.generation_config.save_pretrained(folder)
        save_processor(self.processor, folder)

    def steps_per_epoch(self) -> int:
        return len(self.samples)

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[Sample]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.samples))
        for number in order[start::every]:
            yield self.samples[number]

    def losses(self, model: Any, batch: Sample, step: int) -> Iterator[tuple[str, Tensor]]:
        yield "all", self._loss(model, batch)[0]

    def _loss(self, model: Any, sample: Sample) -> tuple[Tensor, int]:
        """(mean cross-entropy of the text's tokens and the end token in nats, number of these tokens)."""
        inputs = self.inputs.batch([sample], end=True)
        ((start, stop),) = self.inputs.spans([sample], end=True)
        if stop - start < 2:
            raise AtlasError(f"{sample.id}: has no text to learn; remove it")
        logits_TV = model(**inputs).logits[0, start - 1 : stop - 1].float()
        return F.cross_entropy(logits_TV, inputs["input_ids"][0, start:stop]), stop - start

    @torch.no_grad()
    def validate(self, model: Any) -> dict[str, float]:
        """`loss` per token of held-out texts in nats, and `loss_other` when another image is shown."""
        row = {}
        for name, shown in (("loss", self.held_out), ("loss_other", with_other_images(self.held_out))):
            losses = [self._loss(model, sample) for sample in shown]
            row[name] = sum(float(mean) * n for mean, n in losses) / sum(n for _, n in losses)
        return row
