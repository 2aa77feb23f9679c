"""Connect a trained tower to a trained language model: first train the projector (or Q-Former) alone, then
together with the language model, on captions and questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.vlm.packed import pack
from attention_atlas.models.vlm.samples import CAPTION_PROMPT, with_other_images

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus
    from attention_atlas.models.vlm.samples import Sample

# Number of images whose features standardise the tower's output and initialise the queries.
STARTING = 256
# Fields that define a LlamaConfig of the same shape.
TEXT_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "initializer_range",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
)


@dataclass
class VlmTuningTask:
    """An epoch shows every image once with `turns` of its texts; see models/vlm/packed.py.

    tower, text_model: run folders of the two; for a pretrained tower, the arguments of VitTower.
    layers: text layers {root, layer} in addition to `data=`.
    projector_steps: batches of the first phase, in which the language model is frozen, as LLaVA's is; a blind
    model has nothing else to train and no such phase. instructions: how many of them an instruction-aware
    model sees per image and step (a row each). words_weight: of its auxiliary loss on the words of an
    image's texts (0: none). longest: maximum tokens of a text with its instruction. judged: held-out texts
    of each layer (0: all) for the validation loss; written: held-out images captioned for CIDEr at each
    validation (0: none).
    """

    split: str = "train"
    select_on: str = "val"
    tower: str | Mapping[str, Any] = ""
    text_model: str = ""
    layers: Sequence[Mapping[str, str]] = field(default_factory=list)
    projector_steps: int = 0
    turns: int = 4
    instructions: int = 1
    words_weight: float = 0.05
    batch_size: int = 32
    longest: int = 64
    judged: int = 200
    written: int = 50
    seed: int = 0

    def __post_init__(self) -> None:

        if min(self.batch_size, self.turns, self.instructions) < 1:
            raise ConfigError("batch_size, turns and instructions must be at least 1")
        self.best = ("loss", "min")

    def prepare(self, corpus: Corpus, features: None = None) -> None:
        from attention_atlas.models.run_folder import load_run
        from attention_atlas.models.vlm.images import mini_image_processor
        from attention_atlas.models.vlm.text_model import LlamaText
        from attention_atlas.models.vlm.tokenizer import load_tokenizer
        from attention_atlas.models.vlm.vit_tower import load_tower
        from attention_atlas.training.vlm_images import PixelCache, read_layers, samples

        tower, text = load_tower(self.tower), load_run(self.text_model)[0]
        if not isinstance(text, LlamaText):
            raise AtlasError(f"{self.text_model}: holds no LlamaText; train model=llama_text there")
        self._tower, self._text = tower, text
        self.tokenizer = load_tokenizer(self.text_model)
        corpora = read_layers(corpus, self.layers)
        self.by_image: dict[Path, list[Sample]] = {}
        for sample in samples(corpora, self.split):
            self.by_image.setdefault(sample.image, []).append(sample)
        self.images = list(self.by_image)
        self.held_out = samples(corpora, self.select_on, self.judged)
        self.references: dict[Path, list[str]] = {}
        for sample in samples(corpora, self.select_on):
            if sample.prompt == CAPTION_PROMPT:
                self.references.setdefault(sample.image, []).append(sample.text)
        self.pixels = PixelCache(mini_image_processor(tower.sizes["image_size"]))
        self._features: dict[Path, Tensor] = {}
        self._piece_ids: dict[Path, list[int]] = {}

    def model_sizes(self) -> dict[str, Any]:
        from attention_atlas.models.vlm.tokenizer import IMAGE

        config = self._text.model.config
        return {
            "vision": dict(self._tower.sizes),
            "stem": list(self._tower.stem),
            "text": {name: getattr(config, name) for name in TEXT_SIZES},
            "image_token_id": int(self.tokenizer.convert_tokens_to_ids(IMAGE)),
        }

    def start(self, model: Any) -> None:
        from attention_atlas.models.vlm.inputs import mini_inputs

        model.start(self._tower.vision, self._text.model)
        self._features = {}
        self.model_inputs = mini_inputs(model, self.tokenizer)
        if model.blind:
            return
        chosen = self.images[:: max(1, len(self.images) // STARTING)]
        model.standardise(self._features_of(model, chosen, "cpu"))
        if model.instruction_aware:
            self._features = {}  # cached before standardisation
            model.place_queries(self._features_of(model, chosen, "cpu").mean(0))
            model.expect_words(torch.stack([self._words(p) for p in self.images]).mean(0))

    def _words(self, path: Path) -> Tensor:
        """(V,) 0/1: pieces of all texts about a training image."""
        if path not in self._piece_ids:
            texts = [s.text for s in self.by_image[path]]
            coded = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
            self._piece_ids[path] = sorted({i for ids in coded for i in ids})
        words_V = torch.zeros(len(self.tokenizer))
        words_V[self._piece_ids[path]] = 1.0
        return words_V

    def save(self, folder: Path) -> None:
        from attention_atlas.models.vlm.tokenizer import save_tokenizer

        save_tokenizer(self.tokenizer, folder)

    def steps_per_epoch(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[list[list[Sample]]]:
        """Lists of the texts about each image; `losses`, which has the model, makes the tensors."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.images)).tolist()
        keys = rng.random((len(self.images), 64))
        for step in range(start, self.steps_per_epoch(), every):
            part = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield [self._drawn(self.by_image[self.images[i]], keys[i]) for i in part]

    def _drawn(self, texts: Sequence[Sample], keys_64: np.ndarray) -> list[Sample]:
        """`turns` of the texts, in random order."""
        order = sorted(range(len(texts)), key=lambda i: keys_64[i % 64])
        return [texts[i] for i in order[: self.turns]]

    def tensors(self, model: Any, groups: Sequence[Sequence[Sample]], device: Any) -> dict[str, Tensor]:
        """A packed batch. The queries of an instruction-aware model depend on the instruction, so only texts
        of one instruction share a row."""
        if model.instruction_aware:
            groups = [part for group in groups for part in self._by_instruction(group)]
        rows = [
            [(ids[: self.longest + model.image_tokens], start) for ids, start in self._rows(group)]
            for group in groups
        ]
        batch = pack(rows, model.image_token_id, self.model_inputs.pad)
        if not model.blind:
            batch["features"] = self._features_of(model, [group[0].image for group in groups], device)
        if model.instruction_aware:
            prompts = [list(self.tokenizer(group[0].prompt)["input_ids"]) for group in groups]
            padded = self.model_inputs.padded(prompts, self.tokenizer.pad_token_id, False)
            batch |= {f"qformer_{name}": value for name, value in padded.items()}
        return {name: value.to(device) for name, value in batch.items()}

    def _by_instruction(self, group: Sequence[Sample]) -> list[list[Sample]]:
        """The texts of each of the first `instructions` instructions."""
        prompts = list(dict.fromkeys(s.prompt for s in group))[: self.instructions]
        return [[s for s in group if s.prompt == prompt] for prompt in prompts]

    def _rows(self, group: Sequence[Sample]) -> list[tuple[list[int], int]]:
        return self.model_inputs.rows(group, end=True)

    def _features_of(self, model: Any, paths: Sequence[Path], device: Any) -> Tensor:
        missing = [p for p in dict.fromkeys(paths) if p not in self._features]
        if missing:
            found = model.features(self.pixels.batch(missing).to(device)).cpu()
            self._features.update(zip(missing, found))
        return torch.stack([self._features[p] for p in paths])

    def losses(self, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        device = next(model.parameters()).device
        for part in (model.language_model, model.head):
            part.requires_grad_(model.blind or step > self.projector_steps)
        tensors = self.tensors(model, batch, device)
        if not (model.instruction_aware and self.words_weight):
            yield "all", model.loss(tensors)
            return
        # As many rows as instructions; the words are those of the row's image.
        rows = [g for group in batch for g in self._by_instruction(group)]
        tensors["words_BV"] = torch.stack([self._words(g[0].image) for g in rows]).to(device)
        yield "all", model.loss(tensors, self.words_weight)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """`loss` per token of held-out captions and answers, `loss_other` when another image is shown, and
        the same for captions and for answers alone; `cider`, `cider_other` of greedy captions (x 100)."""
        vlm: Any = model
        device = next(model.parameters()).device
        row: dict[str, float] = {}
        for name in ("",) if vlm.blind else ("", "_other"):
            sums = {True: [0.0, 0], False: [0.0, 0]}
            for caption in (True, False):
                chosen = [s for s in self.held_out if (s.prompt == CAPTION_PROMPT) == caption]
                shown = with_other_images(chosen) if name else chosen
                for at in range(0, len(shown), 4 * self.batch_size):
                    part = shown[at : at + 4 * self.batch_size]
                    batch = self.tensors(vlm, [[s] for s in part], device)
                    number = int((batch["labels"] >= 0).sum())
                    sums[caption][0] += float(vlm.loss(batch)) * number
                    sums[caption][1] += number
            (c, n), (a, m) = sums[True], sums[False]
            row[f"loss{name}"] = (c + a) / (n + m)
            if n:
                row[f"loss_captions{name}"] = c / n
            if m:
                row[f"loss_answers{name}"] = a / m
        if self.written and self.references:
            row |= self._cider(vlm)
        # A model without images gives the same result for another image.
        return row | {f"{key}_other": value for key, value in row.items()} if vlm.blind else row

    def _cider(self, model: Any) -> dict[str, float]:
        from attention_atlas.measures.text.cider import cider
        from attention_atlas.measures.text.tokenize import plain
        from attention_atlas.models.vlm.loaded import LoadedVlm
        from attention_atlas.models.vlm.samples import Sample

        loaded = LoadedVlm("validation", model.model, self.model_inputs)
        paths = list(self.references)
        chosen = [paths[i * len(paths) // self.written] for i in range(self.written)]
        chosen = list(dict.fromkeys(chosen))
        references = {str(p): plain(texts) for p, texts in self.references.items()}
        showings = {"cider": chosen}
        if not model.blind:
            showings["cider_other"] = [*chosen[1:], chosen[0]]
        row = {}
        size = 4 * self.batch_size
        for name, shown in showings.items():
            captions: dict[str, str] = {}
            for at in range(0, len(chosen), size):
                part, images = chosen[at : at + size], shown[at : at + size]
                prompts = [Sample(str(p), p.stem, p, CAPTION_PROMPT) for p in images]
                texts = plain(loaded.write(prompts, longest=24))
                captions.update((str(p), text) for p, text in zip(part, texts))
            row[name] = 100 * cider(references, captions)[0]
        return row
