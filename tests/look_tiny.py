"""Tiny checkpoints with random weights, saved with their processors as on the hub, for `look`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from attention_atlas.models.vlm.tokenizer import IMAGE, train_tokenizer

TEXTS = [
    "describe the picture.",
    "a red block on the left of the sofa",
    "a blue block on the right",
    "what color is it?",
    "where is the ball?",
]
PROMPT = "what color is the block?"
ANSWER = "a red block on the left."
CHAT = (
    "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
SIZE, PATCH = 48, 16  # nine image tokens
LLAMA = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.3,
)
VISION = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=SIZE,
    patch_size=PATCH,
    initializer_range=0.3,
)


def llava(folder: Path, seed: int = 0) -> Path:
    """LLaVA-1.5: the shorter side is scaled, the centre cropped; a chat template."""
    import transformers as T

    tokenizer = train_tokenizer(TEXTS, 70)
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    torch.manual_seed(seed)
    text = T.LlamaConfig(**LLAMA, vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=3)
    config = T.LlavaConfig(
        text_config=text,
        vision_config=T.CLIPVisionConfig(**VISION),
        image_token_id=image,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    T.LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = T.CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    T.LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    ).save_pretrained(folder)
    return folder


def paligemma(folder: Path, seed: int = 0) -> Path:
    """PaliGemma: the image is stretched to a square; its tokens and the prompt see each other both ways."""
    import transformers as T

    tokenizer = train_tokenizer(TEXTS, 70)
    images = T.SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE})
    images.image_seq_length = (SIZE // PATCH) ** 2
    processor = T.PaliGemmaProcessor(images, tokenizer)  # adds its own tokens
    torch.manual_seed(seed)
    text = T.GemmaConfig(
        **LLAMA, head_dim=8, vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=3
    )
    config = T.PaliGemmaConfig(
        text_config=text,
        vision_config=T.SiglipVisionConfig(**VISION),
        image_token_id=processor.image_token_id,
        projection_dim=LLAMA["hidden_size"],
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=3,
    )
    T.PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


FAMILIES = {"llava": llava, "paligemma": paligemma}


def photo(path: Path, width: int = 90, height: int = 60, seed: int | None = 0) -> Path:
    """An image of noise; with seed None one grey, whose pixels JPEG keeps."""
    from PIL import Image

    pixels: Any = np.full((height, width, 3), 128, dtype=np.uint8)
    if seed is not None:
        pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path
