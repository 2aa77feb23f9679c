"""LLaVA and InstructBLIP of transformers' own classes, tiny, random weights, grouped-query attention, and
images and captions for them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attention_atlas.data.corpus import Corpus, Example, Scene
from attention_atlas.models.vlm.images import mini_image_processor
from attention_atlas.models.vlm.inputs import VlmInputs
from attention_atlas.models.vlm.loaded import LoadedVlm
from attention_atlas.models.vlm.tokenizer import IMAGE, train_tokenizer

CAPTIONS = [
    "a red cube stands beside a blue ball.",
    "two lamps on the long table",
    "the green sofa is left of a door, a window and a shelf",
    "a yellow cone behind the cylinder",
    "a blue cube stands beside a red ball.",
    "one chair",
]
LAYERS = 4


@functools.cache
def tokenizer() -> Any:
    made = train_tokenizer([*CAPTIONS, "describe the picture. what is it?"], 120)
    if made.convert_tokens_to_ids(IMAGE) == made.unk_token_id:
        raise AssertionError("the tokenizer has no image piece")
    return made


def text_config(vocabulary: int) -> dict[str, Any]:
    return dict(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=3,
    )


VISION = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=24,
    patch_size=8,
    initializer_range=0.2,
)


def llava(seed: int = 0) -> LoadedVlm:
    import transformers as T

    t = tokenizer()
    image = t.convert_tokens_to_ids(IMAGE)
    torch.manual_seed(seed)
    config = T.LlavaConfig(
        text_config=T.LlamaConfig(**text_config(len(t))),
        vision_config=T.CLIPVisionConfig(**VISION),
        image_token_id=image,
        image_token_index=image,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    model = T.LlavaForConditionalGeneration(config).eval()
    inputs = VlmInputs(t, mini_image_processor(24), "USER: <image> {prompt} ASSISTANT:", image, 9)
    return LoadedVlm("tiny_llava", model, inputs)


def instructblip(seed: int = 0) -> LoadedVlm:
    import transformers as T

    t = tokenizer()
    image = t.convert_tokens_to_ids(IMAGE)
    torch.manual_seed(seed)
    qformer = T.InstructBlipQFormerConfig(
        vocab_size=len(t),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        encoder_hidden_size=32,
        cross_attention_frequency=2,
        pad_token_id=0,
    )
    config = T.InstructBlipConfig(
        vision_config=T.InstructBlipVisionConfig(**VISION).to_dict(),
        qformer_config=qformer.to_dict(),
        text_config=T.LlamaConfig(**text_config(len(t))).to_dict(),
        num_query_tokens=5,
        image_token_index=image,
        image_token_id=image,
    )
    model = T.InstructBlipForConditionalGeneration(config).eval()
    # Both are created as zeros, which would make every image the same.
    torch.nn.init.normal_(model.query_tokens, std=0.5)
    inputs = VlmInputs(t, mini_image_processor(24), "{prompt} ", image, 5, qformer_tokenizer=t)
    return LoadedVlm("tiny_instructblip", model, inputs)


MAKERS = {"llava": llava, "instructblip": instructblip}


def corpus(root: Path, images: int = 6) -> Corpus:
    """One image per caption; captions 0 and 4 are a Winoground pair."""
    from PIL import Image

    (root / "images").mkdir(parents=True, exist_ok=True)
    scenes, examples = {}, []
    for i in range(images):
        pixels = np.random.default_rng(i).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"images/{i}.png")
        scenes[f"im{i}"] = Scene(f"im{i}", f"images/{i}.png", 24, 24, "test")
        extra = {"pair": "p0"} if i in (0, 4) else {}
        examples.append(Example(f"e{i}", f"im{i}", CAPTIONS[i], extra=extra))
    return Corpus(root, scenes, examples, "tiny")
