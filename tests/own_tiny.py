"""Tiny checkpoints of more families, saved with their processors as on the hub, and a folder of pictures and
texts of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from look_tiny import CHAT, LLAMA, PATCH, SIZE, TEXTS, VISION, llava, paligemma, photo

from attention_atlas.models.vlm.tokenizer import train_tokenizer

IDS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=3)
CAPTIONS = [*TEXTS[1:], "a red ball", "the sofa"]
TILE = 32  # with patches of 8, four tokens


def named_tokenizer(tokens: Mapping[str, str]) -> Any:
    """With special tokens that the family's processor finds by name."""
    from transformers import PreTrainedTokenizerFast

    plain = train_tokenizer(TEXTS, 70)
    marks = {f"{name}_token": str(getattr(plain, f"{name}_token")) for name in ("bos", "eos", "unk", "pad")}
    return PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer, extra_special_tokens=dict(tokens), **marks
    )


def text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {**LLAMA, **IDS, "vocab_size": len(tokenizer), **more}


def tiled_vision() -> dict[str, Any]:
    return {**VISION, "image_size": TILE, "patch_size": 8}


def qwen2_vl(folder: Path, seed: int = 0) -> Path:
    """Qwen2-VL: pictures of their own size, four patches to a token, positions of three axes."""
    import transformers as T

    marks = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    tokenizer = train_tokenizer(TEXTS, 70)
    tokenizer.add_special_tokens({"additional_special_tokens": list(marks)})
    tokenizer.chat_template = CHAT.replace("<image>", f"{marks[2]}{marks[0]}{marks[3]}")
    image, video, start, end = tokenizer.convert_tokens_to_ids(marks)
    torch.manual_seed(seed)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    config = T.Qwen2VLConfig(
        text_config=text(tokenizer, num_attention_heads=2, rope_parameters=rope),
        vision_config=dict(
            depth=2,
            embed_dim=16,
            hidden_size=16,
            num_heads=2,
            mlp_ratio=2,
            patch_size=8,
            spatial_merge_size=2,
            temporal_patch_size=1,
            initializer_range=0.3,
        ),
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    T.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    sizes = {"shortest_edge": 256, "longest_edge": 6400}
    images = T.Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, temporal_patch_size=1, size=sizes)
    for part in (tokenizer, images):
        part.save_pretrained(folder)
    return folder


def idefics3(folder: Path, seed: int = 0) -> Path:
    """Idefics 3: tiles and the whole picture, pixel shuffle."""
    import transformers as T

    tokenizer = train_tokenizer(TEXTS, 70)
    marks = [f"<row_{r}_col_{c}>" for r in range(1, 4) for c in range(1, 4)] + ["<global-img>"]
    tokenizer.add_tokens(marks, special_tokens=True)
    images = T.Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": TILE})
    processor = T.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=CHAT)
    torch.manual_seed(seed)
    config = T.Idefics3Config(
        text_config=T.LlamaConfig(**text(tokenizer)),
        vision_config=T.Idefics3VisionConfig(**tiled_vision()),
        image_token_id=processor.image_token_id,
        scale_factor=2,
        pad_token_id=0,
    )
    T.Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def gemma3(folder: Path, seed: int = 0) -> Path:
    """Gemma 3: the picture's tokens see each other both ways; local attention."""
    import transformers as T

    marks = {"image_token": "<image_soft>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    tokenizer = named_tokenizer(marks)
    image, begin, end = tokenizer.convert_tokens_to_ids(list(marks.values()))
    images = T.Gemma3ImageProcessorPil(size={"height": SIZE, "width": SIZE})
    count, chat = (SIZE // PATCH) ** 2, CHAT.replace("<image>", "<boi>")
    processor = T.Gemma3Processor(images, tokenizer, image_seq_length=count, chat_template=chat)
    torch.manual_seed(seed)
    config = T.Gemma3Config(
        text_config=T.Gemma3TextConfig(**text(tokenizer, head_dim=8)),
        vision_config=T.SiglipVisionConfig(**VISION),
        mm_tokens_per_image=count,
        image_token_id=image,
        boi_token_index=begin,
        eoi_token_index=end,
    )
    model = T.Gemma3ForConditionalGeneration(config)
    # Created as zeros, which would make every picture the same.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def internvl(folder: Path, seed: int = 0) -> Path:
    """InternVL: tiles of the picture and a thumbnail."""
    import transformers as T

    marks = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<ctx>"}
    tokenizer = named_tokenizer(marks | {"video_token": "<video>"})
    tokenizer.chat_template = CHAT.replace("<image>", "<ctx>")
    torch.manual_seed(seed)
    square = {"image_size": [TILE, TILE], "patch_size": [8, 8]}
    config = T.InternVLConfig(
        text_config=T.LlamaConfig(**text(tokenizer)),
        vision_config=T.InternVLVisionConfig(**{**VISION, **square}),
        image_token_id=tokenizer.convert_tokens_to_ids("<ctx>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    T.InternVLForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": TILE, "width": TILE}
    images = T.GotOcr2ImageProcessorPil(size=size, crop_to_patches=True, min_patches=1, max_patches=4)
    for part in (tokenizer, images):
        part.save_pretrained(folder)
    settings = {"processor_class": "InternVLProcessor", "image_seq_length": 4}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    return folder


FAMILIES = {
    "llava": llava,
    "paligemma": paligemma,
    "qwen2_vl": qwen2_vl,
    "idefics3": idefics3,
    "gemma3": gemma3,
    "internvl": internvl,
}


def own_data(folder: Path, pictures: int = 6) -> Path:
    """images/ and texts.csv: pictures of noise, each with a text."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,text"]
    for n in range(pictures):
        photo(folder / f"images/{n}.png", 90 - 4 * n, 60, n)
        lines.append(f"{n}.png,{CAPTIONS[n % len(CAPTIONS)]}")
    (folder / "texts.csv").write_text("\n".join(lines) + "\n")
    return folder
