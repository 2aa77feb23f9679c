"""More tiny checkpoints than in look_tiny.py, saved with their processors as on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import look_tiny
import torch
from look_tiny import LLAMA, PATCH, SIZE, TEXTS, VISION

from attention_atlas.models.vlm.tokenizer import train_tokenizer

IDS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=3)


def chat(image: str) -> str:
    return look_tiny.CHAT.replace("<image>", image)


def tokens(*marks: str, **names: str) -> Any:
    """A tokenizer with further special tokens; `names` become its attributes, as on the hub."""
    import transformers as T

    made = train_tokenizer(TEXTS, 70)
    made.add_special_tokens({"additional_special_tokens": [*marks, *names.values()]})
    own = T.PreTrainedTokenizerFast(
        tokenizer_object=made.backend_tokenizer,
        bos_token=made.bos_token,
        eos_token=made.eos_token,
        pad_token=made.pad_token,
        extra_special_tokens=names,
    )
    return own


def llama(tokenizer: Any) -> Any:
    import transformers as T

    return T.LlamaConfig(**LLAMA, **IDS, vocab_size=len(tokenizer))


def saved(folder: Path, seed: int, model: str, config: Any, *parts: Any) -> Path:
    import transformers as T

    torch.manual_seed(seed)
    getattr(T, model)(config).save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    return folder


def llava_next(folder: Path, seed: int = 0) -> Path:
    """A thumbnail and tiles."""
    import transformers as T

    tokenizer, square = train_tokenizer(TEXTS, 70), {"height": SIZE, "width": SIZE}
    config = T.LlavaNextConfig(
        text_config=llama(tokenizer),
        vision_config=T.CLIPVisionConfig(**VISION),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_grid_pinpoints=[[SIZE, 2 * SIZE], [2 * SIZE, SIZE]],
    )
    images = T.LlavaNextImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size=square, image_grid_pinpoints=config.image_grid_pinpoints
    )
    processor = T.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat("<image>"),
    )
    return saved(folder, seed, "LlavaNextForConditionalGeneration", config, processor)


def qwen2_vl(folder: Path, seed: int = 0) -> Path:
    """Images of any size, merged patches, positions in three dimensions. Its parts are saved one by one:
    the processor is one of videos too, which needs torchvision."""
    import transformers as T

    marks = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    tokenizer = tokens(*marks)
    tokenizer.chat_template = chat("<|vision_start|><|image_pad|><|vision_end|>")
    image, video, start, end = tokenizer.convert_tokens_to_ids(marks)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 0]}
    text = T.Qwen2VLTextConfig(**LLAMA, **IDS, vocab_size=len(tokenizer), rope_parameters=rope)
    vision = dict(depth=2, embed_dim=16, hidden_size=16, num_heads=2, mlp_ratio=2, patch_size=8)
    config = T.Qwen2VLConfig(
        text_config=text.to_dict(),
        vision_config=vision | {"temporal_patch_size": 1, "spatial_merge_size": 2, "initializer_range": 0.3},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    sizes = {"shortest_edge": 256, "longest_edge": 48 * 48}
    images = T.Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, temporal_patch_size=1, size=sizes)
    return saved(folder, seed, "Qwen2VLForConditionalGeneration", config, tokenizer, images)


def idefics3(folder: Path, seed: int = 0) -> Path:
    """Tiles with their names in the text; pixel shuffle."""
    import transformers as T

    tiles = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    tokenizer = tokens("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *tiles)
    config = T.Idefics3Config(
        text_config=llama(tokenizer),
        vision_config=dict(VISION, image_size=64),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    images = T.Idefics3ImageProcessorPil(size={"longest_edge": 128}, max_image_size={"longest_edge": 64})
    processor = T.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=chat("<image>"))
    return saved(folder, seed, "Idefics3ForConditionalGeneration", config, processor)


def gemma3(folder: Path, seed: int = 0, window: int = 32) -> Path:
    """An image's tokens see each other both ways; layers of local attention over `window` positions."""
    import transformers as T

    tokenizer = tokens(
        image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    text = T.Gemma3TextConfig(
        **LLAMA, **IDS, head_dim=8, vocab_size=len(tokenizer), sliding_window=window, query_pre_attn_scalar=8
    )
    config = T.Gemma3Config(
        text_config=text,
        vision_config=T.SiglipVisionConfig(**dict(VISION, image_size=64)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_id=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_id=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        mm_tokens_per_image=4,
    )
    images = T.Gemma3ImageProcessorPil(size={"height": 64, "width": 64})
    template = chat("<start_of_image>")
    processor = T.Gemma3Processor(images, tokenizer, chat_template=template, image_seq_length=4)
    torch.manual_seed(seed)
    model = T.Gemma3ForConditionalGeneration(config)
    # Created as zeros, which would make every image the same.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def internvl(folder: Path, seed: int = 0) -> Path:
    """Tiles of the image and a thumbnail. Its processor is one of videos too."""
    import transformers as T

    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<ctx>"}
    tokenizer = tokens(**names, video_token="<video>")
    tokenizer.chat_template = chat("<ctx>")
    square = {"image_size": [32, 32], "patch_size": [8, 8]}
    config = T.InternVLConfig(
        text_config=llama(tokenizer),
        vision_config=T.InternVLVisionConfig(**{**VISION, **square}),
        image_token_id=tokenizer.convert_tokens_to_ids("<ctx>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    size = {"height": 32, "width": 32}
    images = T.GotOcr2ImageProcessorPil(size=size, crop_to_patches=True, min_patches=1, max_patches=4)
    saved(folder, seed, "InternVLForConditionalGeneration", config, tokenizer, images)
    settings = {"processor_class": "InternVLProcessor", "image_seq_length": 4}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    return folder


def mllama(folder: Path, seed: int = 0) -> Path:
    """Images are keys of cross-attention in two layers of four; tiles with a class token each."""
    import transformers as T

    tokenizer = tokens("<|image|>", "<|python_tag|>")
    sizes = dict(LLAMA, num_hidden_layers=4)
    text = T.MllamaTextConfig(**sizes, **IDS, vocab_size=len(tokenizer), cross_attention_layers=[1, 3])
    vision = T.MllamaVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_global_layers=1,
        attention_heads=2,
        vision_output_dim=32,
        intermediate_layers_indices=[0],
        image_size=SIZE,
        patch_size=PATCH,
        initializer_range=0.3,
    )
    image = tokenizer.convert_tokens_to_ids("<|image|>")
    config = T.MllamaConfig(text_config=text, vision_config=vision, image_token_index=image)
    images = T.MllamaImageProcessorPil(size={"height": SIZE, "width": SIZE}, max_image_tiles=4)
    processor = T.MllamaProcessor(images, tokenizer, chat_template=chat("<|image|>"))
    torch.manual_seed(seed)
    model = T.MllamaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if name.endswith("gate"):  # created as 0, which shuts the image out
            torch.nn.init.ones_(parameter)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def blip2(folder: Path, seed: int = 0, kind: str = "Blip2") -> Path:
    """Four queries read the image; the processor adds their tokens to the text."""
    import transformers as T

    tokenizer = train_tokenizer(TEXTS, 70)
    queries = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    config = getattr(T, f"{kind}Config")(
        text_config=llama(tokenizer).to_dict(),
        vision_config=VISION,
        qformer_config=queries
        | {"encoder_hidden_size": 16, "initializer_range": 0.3, "vocab_size": len(tokenizer)},
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = T.BlipImageProcessorPil(size={"height": SIZE, "width": SIZE})
    own = (tokenizer,) if kind == "Blip2" else (tokenizer, tokenizer)
    processor = getattr(T, f"{kind}Processor")(images, *own, num_query_tokens=4)
    torch.manual_seed(seed)
    model = getattr(T, f"{kind}ForConditionalGeneration")(config)
    torch.nn.init.normal_(model.query_tokens)  # created as zeros
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def instructblip(folder: Path, seed: int = 0) -> Path:
    """The same; the queries read the instruction too."""
    return blip2(folder, seed, "InstructBlip")


CROSS_FAMILIES = {"mllama": mllama}
QUERY_FAMILIES = {"blip2": blip2, "instructblip": instructblip}
FAMILIES = look_tiny.FAMILIES | {
    made.__name__: made for made in (llava_next, qwen2_vl, idefics3, gemma3, internvl)
}
