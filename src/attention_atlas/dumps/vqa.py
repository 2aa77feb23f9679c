"""ViLT-like models: words and patches in one sequence with joint attention.

Patches are in raster order because the model restores it (transformers' ViLT shuffles them, even in
evaluation). Padding for images of different sizes belongs to no group and is removed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attention_atlas.capture.groups import Groups
from attention_atlas.dumps.batches import DumpBatch, Planned
from attention_atlas.errors import ConfigError
from attention_atlas.recording import Axis
from attention_atlas.training.questions import of_run, spread

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attention_atlas.data.corpus import Corpus

KEEP_BYTES = 256 << 20  # of images
GROUPS = ["cls", "text", "sep", "image_cls", "image", "asked"]


@dataclass
class VqaDump(Planned):
    """split: which questions; examples: maximum number, evenly spaced over those sorted by id (0: all).

    One axis, `sequence`: CLS, question, SEP, the image's class token, patches by row and column. Groups of
    it: cls, text, sep, image_cls, image, and `asked`, the patches of the things that the question names
    (also in `image`; empty where they are not known).
    """

    split: str = "test"
    examples: int = 0
    batch_size: int = 16
    kinds: dict[str, tuple[str, str]] = field(default_factory=lambda: {"joint": ("sequence", "sequence")})
    groups: dict[str, list[str]] = field(default_factory=lambda: {"sequence": list(GROUPS)})

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.examples < 0:
            raise ConfigError("dump: batch_size must be at least 1 and examples at least 0")

    def prepare(self, corpus: Corpus, features: Any, vocab: Any, config: dict[str, Any]) -> None:
        """Read the questions; `config` is that of the run: it defines how images and texts are prepared."""
        chosen = sorted(corpus.some(self.split), key=lambda e: e.id)
        self.vocab, self.config = vocab, config
        self.data = of_run(corpus, spread(chosen, self.examples), vocab, config, [])
        self.data.images.keep_bytes = KEEP_BYTES

    def plan(self) -> list[list[str]]:
        # Questions of equal length together, so that there is no padding between text and image; likewise
        # images of equal size.
        by_shape: dict[tuple[int, ...], list[str]] = {}
        for example, encoded in zip(self.data.examples, self.data.encoded):
            shape = (len(encoded.ids), *self.data.images.shape(example.image_id))
            by_shape.setdefault(shape, []).append(example.id)
        return [
            of_shape[i : i + self.batch_size]
            for _, of_shape in sorted(by_shape.items())
            for i in range(0, len(of_shape), self.batch_size)
        ]

    def batch(self, ids: list[str]) -> DumpBatch:
        indices = [self._rows[id] for id in ids]
        inputs = self.data.batch(indices)
        inputs.pop("target_BA")
        axes = [{"sequence": self.axis(i)} for i in indices]
        asked = [self._asked(i) for i in indices]
        inputs["asked_BP"] = torch.from_numpy(np.stack(asked))
        return DumpBatch(ids, inputs, axes, {"sequence": len(axes[0]["sequence"])})

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {example.id: i for i, example in enumerate(self.data.examples)}

    def _asked(self, i: int) -> np.ndarray:
        example = self.data.examples[i]
        asked_P = self.data.asked(example)
        rows, columns = self.data.images.shape(example.image_id)
        return np.zeros(rows * columns, dtype=bool) if asked_P is None else asked_P

    def axis(self, i: int) -> Axis:
        """Tokens, roles and words of example i; a patch is named by row and column from 1."""
        encoded = self.data.encoded[i]
        rows, columns = self.data.images.shape(self.data.examples[i].image_id)
        patches = [f"{r + 1},{c + 1}" for r in range(rows) for c in range(columns)]
        inner = ["text"] * (len(encoded.ids) - 2)
        return Axis(
            [*encoded.tokens, "[IMG]", *patches],
            ["bos", *inner, "eos", "special", *["image"] * len(patches)],
            [*encoded.word, -1, *[-1] * len(patches)],
        )

    def group(self, batch: DumpBatch, axis: str) -> Groups:
        names = dict(zip(("bos", "text", "eos", "special", "image"), GROUPS))
        labels = [[names.get(role) for role in a[axis].roles] for a in batch.axes]
        plain = Groups.of(labels, GROUPS[:-1])
        asked_BP = batch.inputs["asked_BP"].cpu().bool()
        before = plain.member_BKG.shape[1] - asked_BP.shape[1]
        member = torch.nn.functional.pad(asked_BP, (before, 0))[..., None]
        return plain + Groups(GROUPS[-1:], member)

    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Any:
        return model(inputs)
