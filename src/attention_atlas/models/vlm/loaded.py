"""A loaded vision LLM: the common interface of models trained here or published, for the analyses of study 5.
Create it with `load.load_vlm`.

Axes: B batch, S positions of the language model, D width, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from attention_atlas.models.vlm.inputs import SampleInputs
    from attention_atlas.models.vlm.samples import Sample


NORMS = ("norm", "final_layernorm", "final_layer_norm")


class LoadedVlm:
    """`model`: a model of transformers with images in the sequence of its decoder, in evaluation mode.

    `inputs` converts samples to tensors. Raises AtlasError, naming what is missing, for a model whose decoder
    is not a list of layers over word embeddings.
    """

    def __init__(self, name: str, model: Any, inputs: SampleInputs) -> None:
        self.name, self.model, self.inputs = name, model.eval(), inputs
        self.language_model = decoder_stack(name, model)
        self.head = model.get_output_embeddings()
        named = (getattr(self.language_model, name, None) for name in NORMS)
        self.norm: Any = next((norm for norm in named if norm is not None), None)

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
        """(rows, columns) of the image's positions in raster order; None if they are not one grid that is
        the same for every image (InstructBLIP's queries)."""
        return self.inputs.grid(self.model.config)

    def batch(
        self, samples: Sequence[Sample], end: bool = False, images: Sequence[Any] | None = None
    ) -> dict[str, Tensor]:
        """Inputs for `model(**inputs)`, on the model's device: see VlmInputs.batch. `images` replace the
        samples' images (paths or PIL)."""
        return self._placed(self.inputs.batch(samples, end=end, images=images))

    def _placed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        dtype = self.model.dtype
        return {
            name: value.to(self.device, dtype if value.is_floating_point() else value.dtype)
            if isinstance(value, Tensor)
            else value
            for name, value in inputs.items()
        }

    @property
    def alone(self) -> bool:
        """Whether `batch` takes one sample only."""
        return self.inputs.alone

    def roles(self, inputs: dict[str, Tensor]) -> list[list[str]]:
        """'image', 'text', 'bos' or 'pad' for each of the S positions, per row."""
        return self.inputs.roles(inputs)

    def text_spans(
        self, samples: Sequence[Sample], end: bool = False, images: Sequence[Any] | None = None
    ) -> list[tuple[int, int]]:
        """[start, stop) of each sample's `text` (caption or answer) in the rows of `batch`."""
        return self.inputs.spans(samples, end, images)

    def unembed(self, hidden: Tensor, normalise: bool = True) -> Tensor:
        """(..., D) hidden states to (..., V) logits: the output matrix, optionally after the final norm.
        Raises AtlasError for a model without one of them."""
        if self.head is None or (normalise and self.norm is None):
            lacks = "output matrix" if self.head is None else "final norm"
            raise AtlasError(f"{self.name}: language model: has no {lacks}")
        weight = self.head.weight
        hidden = hidden.to(weight.device, weight.dtype)
        return self.head(self.norm(hidden) if normalise else hidden)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokenizer's pieces; a leading '▁' marks the start of a word."""
        return list(self.inputs.tokenizer.convert_ids_to_tokens([int(i) for i in ids]))

    @torch.no_grad()
    def log_prob(
        self, samples: Sequence[Sample], images: Sequence[Any] | None = None, end: bool = True
    ) -> list[tuple[float, int]]:
        """(summed log-probability of `text`, number of its tokens) per sample, nats; `end`: EOS counts."""
        if self.alone and len(samples) > 1:
            shown = [s.image for s in samples] if images is None else images
            return [self.log_prob([s], [image], end)[0] for s, image in zip(samples, shown)]
        inputs = self.batch(samples, end, images)
        logits_BSV = self.model(**inputs).logits
        log_BS = F.log_softmax(logits_BSV[:, :-1].float(), -1)
        log_BS = log_BS.gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
        spans = self.text_spans(samples, end, images)
        return [(float(log_BS[b, i - 1 : j - 1].sum()), j - i) for b, (i, j) in enumerate(spans)]

    @torch.no_grad()
    def write(
        self, samples: Sequence[Sample], longest: int = 30, images: Sequence[Any] | None = None
    ) -> list[str]:
        """Greedy texts for the samples' prompts (without their `text`), at most `longest` tokens."""
        from dataclasses import replace

        if self.alone and len(samples) > 1:
            shown = [s.image for s in samples] if images is None else images
            return [self.write([s], longest, [image])[0] for s, image in zip(samples, shown)]
        bare = [replace(s, text="") for s in samples]
        inputs = self._placed(self.inputs.batch(bare, left=True, images=images))
        tokenizer = self.inputs.tokenizer
        with plain_generation(self.model):
            ids = self.model.generate(
                **inputs,
                max_new_tokens=longest,
                pad_token_id=self.inputs.pad,
                eos_token_id=tokenizer.eos_token_id,
            )
        prompt = inputs["input_ids"].shape[1]
        return [text.strip() for text in tokenizer.batch_decode(ids[:, prompt:], skip_special_tokens=True)]


def decoder_stack(name: str, model: Any) -> Any:
    """The module with the decoder's `layers` and `embed_tokens`. Raises AtlasError without one."""
    kind = type(model).__name__
    text = model.config.get_text_config() if hasattr(model, "config") else None
    if text is None or not hasattr(model, "get_input_embeddings"):
        raise AtlasError(f"{name}: {kind} is not a vision LLM of transformers; use LLaVA, InstructBLIP, ...")
    if getattr(model.config, "is_encoder_decoder", False) or getattr(text, "is_encoder_decoder", False):
        raise AtlasError(
            f"{name}: language model: {kind} is an encoder-decoder, without a single stack of layers for "
            "image and text; use a decoder-only one (vicuna)"
        )
    words = model.get_input_embeddings()
    for module in model.modules():
        layers = getattr(module, "layers", None)
        if isinstance(layers, nn.ModuleList) and words is getattr(module, "embed_tokens", None):
            return module
    raise AtlasError(
        f"{name}: language model: {kind} has no module with 'layers' and 'embed_tokens'; use one whose "
        "decoder is structured like LLaMA"
    )


@contextlib.contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """Greedy generation without the checkpoint's settings (sampling, penalties, lengths) except its special
    tokens, so that texts are reproducible and each token is the most likely one."""
    from transformers import GenerationConfig

    own = model.generation_config
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    model.generation_config = GenerationConfig(**{name: getattr(own, name, None) for name in names})
    try:
        yield
    finally:
        model.generation_config = own
