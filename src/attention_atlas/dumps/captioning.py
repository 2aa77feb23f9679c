"""Captioning models, teacher-forced: row i of the decoder generates word i+1 of the text itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attention_atlas.capture.groups import Groups
from attention_atlas.dumps.batches import DumpBatch, Planned
from attention_atlas.errors import ConfigError
from attention_atlas.language.vocabulary import UNK
from attention_atlas.language.words import words
from attention_atlas.recording import Axis

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attention_atlas.data.corpus import Corpus, Example
    from attention_atlas.regions.features_file import FeaturesFile

KEEP_BYTES = 256 << 20  # of regions: the captions of an image are far apart in the order of batches


@dataclass
class CaptioningDump(Planned):
    """split: which examples; examples: maximum number, the first by id (0: all).

    Axes: target [w1..wn, EOS], source [BOS, w1..wn], region (the valid regions of the image, described by
    attribute and label). Words are those of the text, even where the model sees UNK. `target` has the model's
    log probability of each word, NaN for UNK.
    """

    split: str = "test"
    examples: int = 0
    batch_size: int = 16
    kinds: dict[str, tuple[str, str]] = field(
        default_factory=lambda: {
            "encoder_self": ("region", "region"),
            "decoder_self": ("target", "source"),
            "cross": ("target", "region"),
        }
    )
    groups: dict[str, list[str]] = field(
        default_factory=lambda: {"region": ["image"], "source": ["bos", "text"]}
    )

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.examples < 0:
            raise ConfigError("dump: batch_size must be at least 1 and examples at least 0")

    def prepare(self, corpus: Corpus, features: FeaturesFile, vocab: Any, config: dict[str, Any]) -> None:
        """Read the examples. `config` is that of the run: it has the maximum text length of training."""
        from attention_atlas.models.load import check_features
        from attention_atlas.training.captions import Captions, RegionCache

        check_features(config, features)
        chosen = sorted(corpus.some(self.split), key=lambda e: e.id)[: self.examples or None]
        self.max_words = int(config.get("train", {}).get("task", {}).get("max_words", 150))
        self.features = features
        self.captions = Captions(chosen, vocab, RegionCache(features, KEEP_BYTES), self.max_words)
        self.rows = {example.id: i for i, example in enumerate(chosen)}

    def plan(self) -> list[list[str]]:
        # Sorted by length to keep padding low; the store sorts by id anyway.
        lengths = {e.id: len(ids) for e, ids in zip(self.captions.examples, self.captions.ids)}
        order = sorted(lengths, key=lambda id: (lengths[id], id))
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def batch(self, ids: list[str]) -> DumpBatch:
        indices = [self.rows[id] for id in ids]
        examples = [self.captions.examples[i] for i in indices]
        inputs = self.captions.batch(indices)
        generated_BT = inputs["ids_BT"][:, 1:]
        words_T, regions_N = generated_BT.shape[1], inputs["regions_BN"].shape[1]
        return DumpBatch(
            ids,
            inputs,
            [self._axes(e) for e in examples],
            {"target": words_T, "source": words_T, "region": regions_N},
            ("target", generated_BT.masked_fill(generated_BT == UNK, -1)),
        )

    def _axes(self, example: Example) -> dict[str, Axis]:
        tokens = [word.text.lower() for word in words(example.text)][: self.max_words]
        count = len(tokens)
        index, role = list(range(count)), ["text"] * count
        if self.features.labels:
            regions = self.features.descriptions(example.image_id)
        else:
            regions = [f"region {i}" for i in range(self.features.read(example.image_id).count)]
        return {
            "target": Axis([*tokens, "<eos>"], [*role, "eos"], [*index, -1]),
            "source": Axis(["<bos>", *tokens], ["bos", *role], [-1, *index]),
            "region": Axis(regions, ["image"] * len(regions), [-1] * len(regions)),
        }

    def group(self, batch: DumpBatch, axis: str) -> Groups:
        """Roles of the padded axis; padding is in no group."""
        if axis == "region":
            valid_BN = batch.inputs["regions_BN"].cpu()
            return Groups(self.groups[axis], valid_BN[..., None])
        longest = batch.lengths[axis]
        labels = [[*a[axis].roles, *[None] * (longest - len(a[axis]))] for a in batch.axes]
        return Groups.of(labels, self.groups[axis])

    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Any:
        return model(inputs)
