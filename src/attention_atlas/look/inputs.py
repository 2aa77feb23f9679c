"""From images, a prompt and an answer to the tensors of any transformers model for images and text."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attention_atlas.capture import roles_of, roles_of_ids
from attention_atlas.capture.cross_boxes import CROSS
from attention_atlas.capture.token_roles import media_ids
from attention_atlas.errors import AtlasError, ConfigError, loading
from attention_atlas.models.vlm.loaded import plain_generation

CJK = "\u2e80"  # from here on, scripts without spaces


@dataclass
class Sequenced:
    """The whole sequence: inputs of the model for prompt and answer; ids and roles of its S positions; start,
    where the answer begins; answer as text; generated logits (N,V), None for a given answer."""

    inputs: dict[str, Any]
    ids: list[int]
    roles: list[str]
    start: int
    answer: str
    logits_NV: Tensor | None


def prompt_inputs(model: Any, processor: Any, images: Sequence[Any], prompt: str) -> dict[str, Any]:
    """The processor's tensors, on the model's device and in its type.

    A prompt that contains the processor's image token is used as it is. Otherwise the processor's chat
    template makes one turn of a user, images first; without a template the image tokens and a line break
    precede the prompt. The processors of BLIP-2 and InstructBLIP add the tokens of the image themselves.
    """
    tokenizer = tokenizer_of(processor)
    token = image_token(processor)
    special = {}
    if getattr(processor, "num_query_tokens", None):
        text = prompt.replace(token, "").strip()
        if len(images) != 1:
            raise ConfigError(
                f"--image: {len(images)} images, but {type(processor).__name__} takes one for each prompt"
            )
    elif token in prompt:
        text, count = prompt, prompt.count(token)
        if count != len(images):
            raise ConfigError(f"--prompt: has {count} {token} for {len(images)} images; give one for each")
    elif getattr(processor, "chat_template", None):
        content = [{"type": "image"} for _ in images] + [{"type": "text", "text": prompt}]
        turn = [{"role": "user", "content": content}]
        with loading("processor: chat template", f"write the template into --prompt, with {token}"):
            text = processor.apply_chat_template(turn, add_generation_prompt=True)
        bos = getattr(tokenizer, "bos_token", None)
        if bos and text.startswith(bos):
            special["add_special_tokens"] = False
    else:
        text = token * len(images) + "\n" + prompt
    with loading(f"{type(processor).__name__}: images and prompt", "see the model's card for its prompt"):
        made = processor(text=[text], images=[list(images)], return_tensors="pt", **special)
        begin = getattr(tokenizer, "bos_token_id", None)
        if not special and made["input_ids"][0].tolist().count(begin) == 2:
            # The processor writes a BOS into the text, and its tokenizer adds another (Mllama).
            special["add_special_tokens"] = False
            alone = processor(text=[text], images=[list(images)], return_tensors="pt", **special)
            made = alone if alone["input_ids"][0].tolist().count(begin) == 1 else made
    accepted = inspect.signature(model.forward).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    device, dtype = model.get_input_embeddings().weight.device, model.dtype
    inputs = {}
    for name, value in made.items():
        if name == "labels" or not (name in accepted or open_ended):
            continue
        if isinstance(value, Tensor):
            value = value.to(device, dtype if value.is_floating_point() else value.dtype)
        inputs[name] = value
    if model.config.model_type not in CROSS:
        roles_of(inputs, model.config)  # raises if no position is an image's
    return inputs


def sequence(
    model: Any, processor: Any, inputs: dict[str, Any], answer: str | None, max_new_tokens: int
) -> Sequenced:
    """`inputs` with the answer appended: `answer`, or what the model writes greedily."""
    tokenizer, logits_NV = tokenizer_of(processor), None
    start = inputs["input_ids"].shape[1]
    ends = _ends(model, tokenizer)
    if answer is not None:
        new = text_ids(model.config, tokenizer, answer, inputs["input_ids"][0].tolist())
        while new and new[-1] in ends:
            new.pop()
        if not new:
            raise ConfigError("--answer: has no tokens; give a text, or leave it out to let the model answer")
    else:
        made = _generated(model, tokenizer, inputs, max_new_tokens)
        new = made.sequences[0].tolist()
        new = new[start:] if new[:start] == inputs["input_ids"][0].tolist() else new
        logits_NV = torch.stack([logits[0].float().cpu() for logits in made.logits])
        while new and new[-1] in ends:
            new.pop()
        if not new:
            raise AtlasError(
                "answer: the model ended without a word; give --answer, or the --prompt that its card shows"
            )
        logits_NV, answer = logits_NV[: len(new)], tokenizer.decode(new, skip_special_tokens=True).strip()
    return with_answer(model, processor, inputs, new, answer, logits_NV)


def text_ids(config: Any, tokenizer: Any, text: str, prompt_ids: Sequence[int]) -> list[int]:
    """The tokens of a text that follows the prompt. A space precedes it where a model would write one: after
    a prompt that ends in text, such as `Assistant:`, if the tokenizer does not add it by itself.

    Raises ConfigError for a text with an image token, which would stand for a missing image.
    """

    def ids_of(words: str) -> list[int]:
        return list(tokenizer(words, add_special_tokens=False)["input_ids"])

    last = prompt_ids[-1]
    spaced = text and not text[0].isspace() and text[0] < CJK
    if spaced and last not in getattr(tokenizer, "all_special_ids", ()):
        first = "".join(tokenizer.convert_ids_to_tokens(ids_of("a"))[:1])
        if not tokenizer.decode([last])[-1:].isspace() and not first.startswith(("▁", "Ġ")):
            text = " " + text
    new = ids_of(text)
    for name, token in media_ids(config).items():
        if token in new:
            raise ConfigError(f"answer: '{text.strip()}' has the {name} token; leave it out")
    return new


def with_answer(
    model: Any,
    processor: Any,
    inputs: dict[str, Any],
    new: Sequence[int],
    answer: str,
    logits_NV: Tensor | None = None,
) -> Sequenced:
    """`inputs` with the tokens `new` of the answer appended."""
    whole = extended(inputs, new)
    ids = whole["input_ids"][0].tolist()
    special = set(getattr(tokenizer_of(processor), "all_special_ids", ()))
    (roles,) = roles_of_ids(whole["input_ids"], model.config, whole.get("attention_mask"), special)
    return Sequenced(whole, ids, roles, inputs["input_ids"].shape[1], answer, logits_NV)


def extended(inputs: dict[str, Any], new: Sequence[int]) -> dict[str, Any]:
    """Inputs of prompt and answer in one pass: tensors with an entry per position grow by the answer."""
    length = inputs["input_ids"].shape[1]
    out = dict(inputs)
    for name, value in inputs.items():
        if not isinstance(value, Tensor) or value.shape[:2] != (1, length):
            continue
        if name.startswith("qformer_"):  # InstructBLIP: the instruction alone
            continue
        if name == "input_ids":
            more = torch.tensor([list(new)], dtype=value.dtype, device=value.device)
        elif name == "token_type_ids":
            # PaliGemma: 0 prompt, whose positions see each other; 1 answer. Gemma 3: 1 image, 0 text.
            more = value.new_full((1, len(new)), int(not value.any()))
        elif name.endswith("mm_token_type_ids"):  # 0 text
            more = value.new_zeros(1, len(new))
        else:  # attention_mask, cross_attention_mask (Mllama): as the last position of the prompt
            more = value[:, -1:].repeat(1, len(new), *[1] * (value.ndim - 2))
        out[name] = torch.cat([value, more], 1)
    return out


def image_token(processor: Any) -> str:
    """How a prompt marks an image."""
    for owner in (processor, tokenizer_of(processor)):
        if getattr(owner, "image_token", None) is not None:
            return str(owner.image_token)
    return "<image>"


def tokenizer_of(processor: Any) -> Any:
    return getattr(processor, "tokenizer", processor)


@torch.no_grad()
def _generated(model: Any, tokenizer: Any, inputs: dict[str, Any], longest: int) -> Any:
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    # A placeholder in the answer would stand for a missing image.
    never = sorted(media_ids(model.config).values()) or None
    with plain_generation(model):
        return model.generate(
            **inputs,
            max_new_tokens=longest,
            pad_token_id=pad,
            suppress_tokens=never,
            return_dict_in_generate=True,
            output_logits=True,
        )


def _ends(model: Any, tokenizer: Any) -> set[int]:
    found: set[int] = {tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
    value = getattr(model.generation_config, "eos_token_id", None)
    if value is not None:
        found |= set(value) if isinstance(value, list | tuple) else {int(value)}
    return found
