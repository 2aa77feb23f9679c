"""A loaded vision LLM: the common interface of LLaVA and InstructBLIP, trained here or real, for the analyses
of study 5. Create it with `load.load_vlm`.

Axes: B batch, S positions of the language model, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from attention_atlas.models.vlm.inputs import VlmInputs
    from attention_atlas.models.vlm.samples import Sample


class LoadedVlm:
    """`model`: LlavaForConditionalGeneration or InstructBlipForConditionalGeneration, in evaluation mode.

    `inputs` converts samples to tensors. Raises AtlasError, naming what is missing, for another class or a
    language model without LLaMA's structure (a list of layers with a final norm and an output matrix).
    """

    def __init__(self, name: str, model: Any, inputs: VlmInputs) -> None:
        self.name, self.model, self.inputs = name, model.eval(), inputs
        kind = type(model).__name__
        if kind == "LlavaForConditionalGeneration":
            self.language_model, self._head = model.model.language_model, model.lm_head
        elif kind == "InstructBlipForConditionalGeneration":
            inner = model.language_model
            if model.language_model.config.is_encoder_decoder:
                raise AtlasError(
                    f"{name}: language model: {type(inner).__name__} has no decoder-only stack; "
                    "use a LLaMA-architecture one (vicuna)"
                )
            self.language_model, self._head = getattr(inner, "model", None), inner.get_output_embeddings()
        else:
            raise AtlasError(f"{name}: {kind} is neither LLaVA nor InstructBLIP; use one of these classes")
        for part in ("layers", "norm", "embed_tokens"):
            if not hasattr(self.language_model, part):
                raise AtlasError(f"{name}: language model: lacks '{part}'; use a LLaMA-architecture one")

    @property
    def device(self) -> torch.device:
        """The device of the inputs (that of the word embeddings, also with a device map)."""
        return self.language_model.embed_tokens.weight.device

    @property
    def decoder_layers(self) -> nn.ModuleList:
        """The language model's layers, first to last."""
        return self.language_model.layers

    @property
    def text_config(self) -> Any:
        """Sizes of the language model: hidden_size, num_attention_heads, num_key_value_heads, ..."""
        return self.language_model.config

    @property
    def grid(self) -> tuple[int, int] | None:
        """(rows, columns) of the picture's positions in raster order; None for InstructBLIP's queries."""
        if self.inputs.qformer_tokenizer is not None:
            return None
        vision = self.model.config.vision_config
        side = vision.image_size // vision.patch_size // getattr(vision, "pool", 1)
        return (side, side)

    def batch(
        self, samples: Sequence[Sample], end: bool = False, images: Sequence[Any] | None = None
    ) -> dict[str, Tensor]:
        """Inputs for `model(**inputs)`, on the model's device: see VlmInputs.batch. `images` replace the
        samples' pictures (paths or PIL)."""
        inputs = self.inputs.batch(samples, end=end, images=images)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        return {name: value.to(self.device) for name, value in inputs.items()}

    def roles(self, inputs: dict[str, Tensor]) -> list[list[str]]:
        """'image', 'text', 'bos' or 'pad' for each of the S positions, per row."""
        return self.inputs.roles(inputs)

    def text_spans(self, samples: Sequence[Sample], end: bool = False) -> list[tuple[int, int]]:
        """[start, stop) of each sample's `text` (caption or answer) in the rows of `batch`."""
        return [(start, len(ids)) for ids, start in self.inputs.rows(samples, end)]

    def unembed(self, hidden: Tensor, normalise: bool = True) -> Tensor:
        """(..., D) hidden states to (..., V) logits: the output matrix, optionally after the final norm."""
        weight = self._head.weight
        hidden = hidden.to(weight.device, weight.dtype)
        return self._head(self.language_model.norm(hidden) if normalise else hidden)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokenizer's pieces; a leading '▁' marks the start of a word."""
        return list(self.inputs.tokenizer.convert_ids_to_tokens([int(i) for i in ids]))

    @torch.no_grad()
    def log_prob(
        self, samples: Sequence[Sample], images: Sequence[Any] | None = None, end: bool = True
    ) -> list[tuple[float, int]]:
        """(summed log-probability of `text`, number of its tokens) per sample, nats; `end`: EOS counts."""
        inputs = self.batch(samples, end, images)
        logits_BSV = self.model(**inputs).logits
        log_BS = F.log_softmax(logits_BSV[:, :-1].float(), -1)
        log_BS = log_BS.gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
        spans = self.text_spans(samples, end)
        return [(float(log_BS[b, i - 1 : j - 1].sum()), j - i) for b, (i, j) in enumerate(spans)]

    @torch.no_grad()
    def write(
        self, samples: Sequence[Sample], longest: int = 30, images: Sequence[Any] | None = None
    ) -> list[str]:
        """Greedy texts for the samples' prompts (without their `text`), at most `longest` tokens."""
        from dataclasses import replace

        inputs = self.inputs.batch([replace(s, text="") for s in samples], left=True, images=images)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        tokenizer = self.inputs.tokenizer
        ids = self.model.generate(
            **inputs,
            max_new_tokens=longest,
            do_sample=False,
            num_beams=1,
            pad_token_id=self.inputs.pad,
            eos_token_id=tokenizer.eos_token_id,
        )
        prompt = inputs["input_ids"].shape[1]
        return [text.strip() for text in tokenizer.batch_decode(ids[:, prompt:], skip_special_tokens=True)]
