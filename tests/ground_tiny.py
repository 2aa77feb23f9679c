"""Tiny models of families that `look_tiny` lacks, with their processors, and images with boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from look_tiny import CHAT, LLAMA, PATCH, SIZE, VISION, photo

from attention_atlas.models.vlm.tokenizer import IMAGE, train_tokenizer

PHRASES = ["red block", "blue ball", "green sofa"]
TEXTS = [f"where is the {phrase}?" for phrase in PHRASES] + ["find a lamp."]


def qwen2_vl(seed: int = 0) -> tuple[Any, Any]:
    """Qwen2-VL: any resolution, four patches to a token; the processor without its part for videos."""
    import transformers as T

    marks = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    tokenizer = train_tokenizer(TEXTS, 70)
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    chat = CHAT.replace(IMAGE, "<|vision_start|><|image_pad|><|vision_end|>")
    images = T.Qwen2VLImageProcessorPil(
        patch_size=8,
        merge_size=2,
        temporal_patch_size=1,
        size={"shortest_edge": 256, "longest_edge": 6400},
    )

    class WithoutVideo(T.Qwen2VLProcessor):
        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            if argument is None:
                return type(None)
            return super().check_argument_for_proper_class(name, argument)

    processor = WithoutVideo(images, tokenizer, None, chat_template=chat)
    ids = dict(zip(("image", "video", "vision_start", "vision_end"), tokenizer.convert_tokens_to_ids(marks)))
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 0]}
    torch.manual_seed(seed)
    config = T.Qwen2VLConfig(
        text_config={
            **LLAMA,
            **{"vocab_size": len(tokenizer), "rope_parameters": rope},
            **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3},
        },
        vision_config={
            **{"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 8},
            **{"spatial_merge_size": 2, "temporal_patch_size": 1, "initializer_range": 0.3},
        },
        **{f"{name}_token_id": token for name, token in ids.items()},
    )
    return T.Qwen2VLForConditionalGeneration(config).eval(), processor


def llava_next(seed: int = 0) -> tuple[Any, Any]:
    """LLaVA-NeXT: the whole image, then tiles of it, with a token at the end of each row."""
    import transformers as T

    tokenizer = train_tokenizer(TEXTS, 70)
    pinpoints = [[SIZE, 2 * SIZE], [2 * SIZE, SIZE], [2 * SIZE, 2 * SIZE]]
    torch.manual_seed(seed)
    config = T.LlavaNextConfig(
        text_config=T.LlamaConfig(
            **LLAMA, vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=3
        ),
        vision_config=T.CLIPVisionConfig(**VISION),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    square = {"height": SIZE, "width": SIZE}
    images = T.LlavaNextImageProcessorPil(size=square, crop_size=square, image_grid_pinpoints=pinpoints)
    processor = T.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    return T.LlavaNextForConditionalGeneration(config).eval(), processor


def boxes_csv(folder: Path, images: int = 6, size: tuple[int, int] = (90, 60), seed: int = 0) -> Path:
    """Images of noise and boxes.csv: two phrases in each, one of them with two boxes in the first."""
    rng = np.random.default_rng(seed)
    rows = ["image,phrase,x,y,w,h"]
    for n in range(images):
        photo(folder / f"{n}.png", *size, seed=n)
        for phrase in (PHRASES[n % 3], PHRASES[(n + 1) % 3]):
            for _ in range(1 + (n == 0)):
                x, y = rng.integers(16, size[0] - 36), rng.integers(0, size[1] - 20)
                rows.append(f"{n}.png,{phrase},{x},{y},{rng.integers(8, 20)},{rng.integers(8, 20)}")
    path = folder / "boxes.csv"
    path.write_text("\n".join(rows) + "\n")
    return path
