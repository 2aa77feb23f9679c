"""Every model class that a capture knows, tiny, with random weights, and inputs that pad, mask and differ."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

IMAGE = 55
TEXT = dict(
    vocab_size=60,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
LLAMA = dict(TEXT, num_key_value_heads=2)
VISION = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=24,
    patch_size=8,
)
IDS = torch.tensor([[1, 4, 5, 6, 7, 8, 49], [1, 9, 8, 7, 6, 5, 49]])
PIXELS = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
LEFT = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7])
RIGHT = LEFT.flip(1)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def llama(T):
    model = T.LlamaForCausalLM(T.LlamaConfig(**LLAMA))
    return model, {"input_ids": IDS, "attention_mask": LEFT}


def llama_right(T):
    return T.LlamaForCausalLM(T.LlamaConfig(**LLAMA)), {"input_ids": IDS, "attention_mask": RIGHT}


def gpt2(T):
    config = T.GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    return T.GPT2LMHeadModel(config), {"input_ids": IDS}


def bert(T):
    return T.BertModel(T.BertConfig(**TEXT)), {"input_ids": IDS, "attention_mask": RIGHT}


def clip(T):
    text = dict(TEXT, max_position_embeddings=16, eos_token_id=49)
    config = T.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    return T.CLIPModel(config), {"input_ids": IDS, "pixel_values": PIXELS, "attention_mask": RIGHT}


def siglip(T):
    config = T.SiglipConfig(text_config=dict(TEXT, max_position_embeddings=7), vision_config=VISION)
    return T.SiglipModel(config), {"input_ids": IDS, "pixel_values": PIXELS}


def instructblip_qformer(T):
    config = T.InstructBlipQFormerConfig(**TEXT, encoder_hidden_size=20, cross_attention_frequency=2)
    mask = torch.ones(2, 9)
    mask[0, 6:] = 0
    inputs = {"query_embeds": noise(2, 4, 32), "encoder_hidden_states": noise(2, 9, 20)}
    inputs |= {"input_ids": IDS, "encoder_attention_mask": mask}
    inputs["attention_mask"] = torch.cat([torch.ones(2, 4, dtype=torch.long), RIGHT], 1)
    return T.InstructBlipQFormerModel(config), inputs


def blip2_qformer(T):
    config = T.Blip2QFormerConfig(**TEXT, encoder_hidden_size=20, cross_attention_frequency=1)
    inputs = {"query_embeds": noise(1, 4, 32), "encoder_hidden_states": noise(2, 9, 20)}
    return T.Blip2QFormerModel(config), inputs


def llava(T):
    config = T.LlavaConfig(
        text_config=T.LlamaConfig(**LLAMA),
        vision_config=T.CLIPVisionConfig(**VISION),
        image_token_id=IMAGE,
        vision_feature_layer=-1,
    )
    # Two images in the first text, one in the second; left padding evens the lengths.
    first = [1, *[IMAGE] * 9, 5, *[IMAGE] * 9, 6, 7]
    second = [1, *[IMAGE] * 9, 8, 9]
    ids = torch.tensor([first, [0] * (len(first) - len(second)) + second])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "pixel_values": noise(3, 3, 24, 24)}
    return T.LlavaForConditionalGeneration(config), inputs


def idefics3(T, name="Idefics3"):
    config = getattr(T, f"{name}Config")(
        text_config=dict(LLAMA, model_type="llama"),
        vision_config=dict(VISION, image_size=32),
        image_token_id=IMAGE,
        scale_factor=2,
    )
    ids = torch.tensor([[1, *[IMAGE] * 4, 5, 6, 7]] * 2)
    model = getattr(T, f"{name}ForConditionalGeneration")(config)
    return model, {"input_ids": ids, "pixel_values": noise(2, 1, 3, 32, 32)}


def smolvlm(T):
    return idefics3(T, "SmolVLM")


def qwen2_vl(T):
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    vision = dict(depth=2, embed_dim=32, hidden_size=32, num_heads=4, patch_size=4, mlp_ratio=2)
    config = T.Qwen2VLConfig(
        text_config=dict(LLAMA, rope_parameters=rope),
        vision_config=dict(vision, spatial_merge_size=2, temporal_patch_size=1),
        image_token_id=IMAGE,
        video_token_id=56,
        vision_start_token_id=57,
        vision_end_token_id=58,
    )
    # Two images of different size, so the vision tower attends twice per layer.
    ids = torch.tensor([[1, 57, *[IMAGE] * 4, 58, 5, 57, *[IMAGE] * 2, 58, 6]])
    inputs = {
        "input_ids": ids,
        "pixel_values": noise(24, 3 * 16),
        "image_grid_thw": torch.tensor([[1, 4, 4], [1, 2, 4]]),
        "mm_token_type_ids": (ids == IMAGE).long(),
    }
    return T.Qwen2VLForConditionalGeneration(config), inputs


def vilt(T):
    config = T.ViltConfig(
        **TEXT, max_position_embeddings=16, image_size=24, patch_size=8, max_image_length=-1
    )
    mask = torch.ones(2, 24, 24, dtype=torch.long)
    mask[1, 16:] = 0
    inputs = {"input_ids": IDS, "attention_mask": RIGHT, "pixel_values": PIXELS, "pixel_mask": mask}
    return T.ViltModel(config), inputs


def lxmert(T):
    config = T.LxmertConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        l_layers=2,
        x_layers=2,
        r_layers=2,
        visual_feat_dim=12,
        visual_pos_dim=4,
    )
    seen = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    inputs = {"input_ids": IDS, "attention_mask": RIGHT, "visual_feats": noise(2, 5, 12)}
    return T.LxmertModel(config), inputs | {"visual_pos": noise(2, 5, 4), "visual_attention_mask": seen}


def visual_bert(T):
    model = T.VisualBertModel(T.VisualBertConfig(**TEXT, visual_embedding_dim=12))
    inputs = {"input_ids": IDS, "attention_mask": RIGHT, "visual_embeds": noise(2, 5, 12)}
    return model, inputs | {"visual_attention_mask": torch.ones(2, 5)}


BUILDERS: dict[str, Callable[[Any], Any]] = {
    f.__name__: f
    for f in (
        llama,
        llama_right,
        gpt2,
        bert,
        clip,
        siglip,
        instructblip_qformer,
        blip2_qformer,
        llava,
        idefics3,
        smolvlm,
        qwen2_vl,
        vilt,
        lxmert,
        visual_bert,
    )
}


@functools.cache
def tiny(name: str) -> tuple[Any, dict[str, Any]]:
    """(model in evaluation mode, inputs)."""
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    model, inputs = BUILDERS[name](transformers)
    return model.eval(), inputs


def run(model: Any, inputs: dict[str, Any], **more: Any) -> Any:
    """One forward with the random choices of ViLT fixed."""
    torch.manual_seed(0)
    return model(**inputs, **more)
