"""From samples to the input tensors of LLaVA and InstructBLIP, and the kinds of their positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from attention_atlas.data.images import read_rgb
from attention_atlas.errors import AtlasError, ConfigError

if TYPE_CHECKING:
    from attention_atlas.models.vlm.samples import Sample

IGNORED = -100  # label of a position that does not count
SLOT = "{prompt}"


@runtime_checkable
class SampleInputs(Protocol):
    """What a LoadedVlm needs to turn samples into tensors. `alone`: whether `batch` takes one sample only."""

    alone: bool
    tokenizer: Any
    pad: int

    def batch(
        self,
        samples: Sequence[Sample],
        end: bool = False,
        left: bool = False,
        images: Sequence[Any] | None = None,
    ) -> dict[str, Any]: ...

    def spans(
        self, samples: Sequence[Sample], end: bool = False, images: Sequence[Any] | None = None
    ) -> list[tuple[int, int]]: ...

    def roles(self, inputs: dict[str, Any]) -> list[list[str]]: ...

    def grid(self, config: Any) -> tuple[int, int] | None: ...

    def places(self, sample: Sample) -> list[list[float] | None] | None: ...


class VlmInputs:
    """tokenizer, image_processor: transformers' objects. qformer_tokenizer: of InstructBLIP, else None.

    template: contains "{prompt}", and for LLaVA "<image>", e.g. "USER: <image>\\n{prompt} ASSISTANT:".
    image_tokens: positions of an image; InstructBLIP's come first, LLaVA's are placed by the template. 0: no
    image (a blind model).
    """

    alone = False

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any,
        template: str,
        image_token_id: int,
        image_tokens: int,
        qformer_tokenizer: Any = None,
    ) -> None:
        if SLOT not in template:
            raise ConfigError(f"VlmInputs: template: '{template}' does not contain {SLOT}; add it")
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.qformer_tokenizer = qformer_tokenizer
        self.template, self.image_token_id, self.image_tokens = template, image_token_id, image_tokens
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def prompt_ids(self, prompt: str) -> list[int]:
        """Ids of the filled template, including BOS and the image's positions."""
        text = self.template.replace(SLOT, prompt)
        if self.qformer_tokenizer is not None:
            return [self.image_token_id] * self.image_tokens + self._ids(text)
        before, marker, after = text.partition("<image>")
        if not marker:
            raise ConfigError(f"VlmInputs: template: '{self.template}' has no <image>; add it")
        token = self.tokenizer.convert_ids_to_tokens(self.image_token_id)
        return self._ids(before + token * self.image_tokens + after)

    def text_ids(self, text: str, end: bool = False) -> list[int]:
        """Ids of a text after a prompt, without BOS; with EOS if `end`."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return list(ids) + ([self.tokenizer.eos_token_id] if end else [])

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def rows(self, samples: Sequence[Sample], end: bool = False) -> list[tuple[list[int], int]]:
        """(ids, start of the text) of each sample."""
        found = []
        for sample in samples:
            prompt = self.prompt_ids(sample.prompt)
            found.append((prompt + self.text_ids(sample.text, end), len(prompt)))
        return found

    def spans(
        self, samples: Sequence[Sample], end: bool = False, images: Sequence[Any] | None = None
    ) -> list[tuple[int, int]]:
        """[start, stop) of each sample's text in its row; every image has as many positions."""
        return [(start, len(ids)) for ids, start in self.rows(samples, end)]

    def grid(self, config: Any) -> tuple[int, int] | None:
        """(rows, columns) of the image's positions; None for queries, and with a class token."""
        if self.qformer_tokenizer is not None:
            return None
        vision = config.vision_config
        side = vision.image_size // vision.patch_size // getattr(vision, "pool", 1)
        return (side, side) if self.image_tokens in (0, side**2) else None

    def places(self, sample: Sample) -> list[list[float] | None] | None:
        """None: `grid` says where the positions are."""
        return None

    def batch(
        self,
        samples: Sequence[Sample],
        end: bool = False,
        left: bool = False,
        images: Sequence[Any] | None = None,
    ) -> dict[str, Tensor]:
        """input_ids, attention_mask (B,S), pixel_values (B,3,h,w), for InstructBLIP also qformer_input_ids
        and qformer_attention_mask; padded at the right (`left`: at the left, to generate).

        images: images to show instead of the samples' own (to shuffle or blank them).
        """
        if not samples:
            raise AtlasError("vision LLM: the batch has no samples; pass at least one")
        out = self.padded([ids for ids, _ in self.rows(samples, end)], self.pad, left)
        if self.qformer_tokenizer is not None:
            q = self.qformer_tokenizer
            prompts = [list(q(s.prompt)["input_ids"]) for s in samples]
            pad = q.pad_token_id if q.pad_token_id is not None else 0
            padded = self.padded(prompts, pad, False)
            out |= {f"qformer_{name}": value for name, value in padded.items()}
        if self.image_tokens:
            out["pixel_values"] = self.pixels(images if images is not None else [s.image for s in samples])
        return out

    @staticmethod
    def padded(rows: Sequence[Sequence[int]], pad: int, left: bool) -> dict[str, Tensor]:
        longest = max(map(len, rows))
        ids_BS = torch.full((len(rows), longest), pad)
        mask_BS = torch.zeros(len(rows), longest, dtype=torch.long)
        for b, row in enumerate(rows):
            where = slice(longest - len(row), longest) if left else slice(0, len(row))
            ids_BS[b, where] = torch.tensor(row)
            mask_BS[b, where] = 1
        return {"input_ids": ids_BS, "attention_mask": mask_BS}

    def pixels(self, images: Sequence[Any]) -> Tensor:
        """(B,3,h,w) input of the tower, from paths or PIL images."""
        opened = [self.open_image(image) for image in images]
        return self.image_processor(images=opened, return_tensors="pt")["pixel_values"]

    @staticmethod
    def open_image(image: Any) -> Any:
        from PIL.Image import Image

        return image.convert("RGB") if isinstance(image, Image) else read_rgb(image)

    def roles(self, inputs: dict[str, Tensor]) -> list[list[str]]:
        """'image', 'text', 'bos' or 'pad' at each position of the language model's sequence, per row."""
        bos = self.tokenizer.bos_token_id
        named = []
        for ids, mask in zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist()):
            named.append(
                [
                    "pad" if not m else "image" if i == self.image_token_id else "bos" if i == bos else "text"
                    for i, m in zip(ids, mask)
                ]
            )
        return named


def mini_inputs(model: Any, tokenizer: Any) -> VlmInputs:
    """The inputs of a Llava or InstructBlip that was trained here."""
    from attention_atlas.models.vlm.images import mini_image_processor

    return VlmInputs(
        tokenizer,
        mini_image_processor(model.image_size),
        model.template,
        model.image_token_id,
        model.image_tokens,
        tokenizer if model.instruction_aware else None,
    )
