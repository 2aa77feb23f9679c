"""Vision LLMs: image, instruction and text in one sequence, teacher-forced, for all that `load_vlm` loads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from attention_atlas.capture.groups import Groups
from attention_atlas.dumps.batches import DumpBatch, Planned
from attention_atlas.errors import ConfigError
from attention_atlas.language.subwords import piece_words
from attention_atlas.models.vlm.samples import CAPTION_PROMPT
from attention_atlas.recording import Axis

if TYPE_CHECKING:
    from torch import nn

    from attention_atlas.data.corpus import Corpus
    from attention_atlas.models.vlm.inputs import SampleInputs
    from attention_atlas.models.vlm.samples import Sample

AXIS = "sequence"


@dataclass
class VisionLlmDump(Planned):
    """split, examples: as in CaptioningDump. prompt: the instruction before a caption; a question is its own
    instruction, and its most frequent answer the text. batch_size: of a model trained here; a model with its
    own processor takes one example at a time.

    One axis, `sequence`, of tokens with the roles bos, image and text. Those of the template and instruction
    (group `prompt`) have no word; those of the caption or answer (group `text`) do. Row i generates token
    i + 1.
    """

    split: str = "test"
    examples: int = 0
    prompt: str = CAPTION_PROMPT
    batch_size: int = 16
    kinds: dict[str, tuple[str, str]] = field(default_factory=lambda: {"decoder": (AXIS, AXIS)})
    names: dict[str, str] = field(default_factory=lambda: {"decoder": "decoder"})
    groups: dict[str, list[str]] = field(default_factory=lambda: {AXIS: ["bos", "image", "prompt", "text"]})

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.examples < 0:
            raise ConfigError("dump: batch_size must be at least 1 and examples at least 0")

    def prepare(self, corpus: Corpus, features: Any, vocab: SampleInputs, config: dict[str, Any]) -> None:
        """Read the examples. `vocab`: the inputs of the loaded model."""
        from attention_atlas.models.vlm.samples import samples_of

        chosen = sorted(corpus.some(self.split), key=lambda e: e.id)[: self.examples or None]
        self.samples = {s.id: s for s in samples_of(corpus, chosen, self.prompt)}
        self.inputs = vocab

    def plan(self) -> list[list[str]]:
        lengths = {s.id: len(s.prompt) + len(s.text) for s in self.samples.values()}
        order = sorted(lengths, key=lambda id: (lengths[id], id))
        size = 1 if self.inputs.alone else self.batch_size
        return [order[i : i + size] for i in range(0, len(order), size)]

    def batch(self, ids: list[str]) -> DumpBatch:
        samples = [self.samples[id] for id in ids]
        inputs = self.inputs.batch(samples)
        ids_BS = inputs["input_ids"]
        roles = self.inputs.roles(inputs)
        spans = self.inputs.spans(samples)
        axes = [{AXIS: self._axis(*of)} for of in zip(samples, ids_BS.tolist(), roles, spans)]
        return DumpBatch(ids, inputs, axes, {AXIS: ids_BS.shape[1]})

    def _axis(self, sample: Sample, ids: list[int], roles: list[str], span: tuple[int, int]) -> Axis:
        """The axis without the padding at the right."""
        start, stop = span
        word = [-1] * stop
        word[start:stop] = self._words(sample.text, stop - start)
        return Axis(self.inputs.tokenizer.convert_ids_to_tokens(ids[:stop]), roles[:stop], word)

    def _words(self, text: str, count: int) -> list[int]:
        """The word of each piece of the text. A piece without one belongs to the word before it. A slow
        tokenizer gives no offsets: all pieces then belong to word 0."""
        tokenizer = self.inputs.tokenizer
        if not getattr(tokenizer, "is_fast", False):
            return [0] * count
        coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        word, last = [], 0
        for of_piece in piece_words(text, coded["offset_mapping"]):
            last = max(last, of_piece)
            word.append(last)
        return word

    def group(self, batch: DumpBatch, axis: str) -> Groups:
        """Roles of the padded axis; padding is in no group."""
        longest = batch.lengths[axis]
        labels = []
        for axes in batch.axes:
            of = axes[axis]
            own = ["prompt" if r == "text" and w < 0 else r for r, w in zip(of.roles, of.word)]
            labels.append([*own, *[None] * (longest - len(own))])
        return Groups.of(labels, self.groups[axis])

    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Any:
        dtype: Any = model.dtype  # a processor's pixels are float32
        return model(**{n: v.to(dtype) if v.is_floating_point() else v for n, v in inputs.items()})
