"""Any transformers model, tiny: the default configuration of its class with small numbers in known fields."""

from __future__ import annotations

from typing import Any

import torch

IMAGE, VIDEO = 55, 56
SMALL = {
    32: "hidden_size d_model embed_dim dim hidden_dim n_embd output_hidden_size proj_hidden_size "
    "projection_dim cross_attention_hidden_size vision_output_dim projector_input_dim projector_output_dim "
    "text_hidden_size "
    "decoder_hidden_size projector_hidden_size out_hidden_size mm_hidden_size encoder_hidden_size "
    "hidden_size_per_layer_input",
    48: "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim mlp_dim d_ff moe_intermediate_size "
    "intermediate_size_mlp shared_expert_intermediate_size adapter_hidden_dim",
    2: "num_hidden_layers num_layers depth encoder_layers decoder_layers n_layer n_layers num_local_experts "
    "num_experts_per_tok num_decoder_layers num_encoder_layers spatial_merge_size num_global_layers "
    "num_key_value_heads num_kv_shared_layers",
    4: "num_attention_heads num_heads attention_heads encoder_attention_heads decoder_attention_heads n_head "
    "num_experts n_routed_experts",
    8: "head_dim d_kv patch_size global_head_dim",
    1: "temporal_patch_size num_nextn_predict_layers",
    24: "image_size",
    60: "vocab_size vocab_size_per_layer_input",
    64: "max_position_embeddings",
    9: "mm_tokens_per_image image_seq_length",
}
SIZES = {name: size for size, names in SMALL.items() for name in names.split()}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vision_start_token_id": 57}
IDS |= {"vision_end_token_id": 58, "boi_token_id": 58, "boi_token_index": 58, "eoi_token_id": 59}
IDS |= {"eoi_token_index": 59, "audio_token_id": 54, "audio_token_index": 54}
IDS |= {
    f"{name}_token_{end}": x for name, x in (("image", IMAGE), ("video", VIDEO)) for end in ("id", "index")
}
# One entry per layer, class or file: the class computes them again.
DROPPED = ("transformers_version", "architectures", "dtype", "layer_types", "mlp_layer_types", "id2label")
DROPPED += ("label2id", "model_type")
LIMIT = 3_000_000


def small(settings: dict[str, Any], outer: bool = True) -> dict[str, Any]:
    """The settings of a configuration, nested ones too, with small sizes and ids."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and (name.endswith("config") or "model_type" in value):
            found[name] = small(value, outer=False)
        elif name in SIZES and isinstance(value, list | tuple):
            found[name] = [SIZES[name]] * len(value)
        elif name in SIZES and isinstance(value, int) and not isinstance(value, bool):
            found[name] = min(value, SIZES[name])
        elif name in IDS and value is not None:
            found[name] = IDS[name]
        elif name not in DROPPED or (name == "model_type" and not outer):
            found[name] = value
    return found


def changed(settings: dict[str, Any], by: dict[str, Any]) -> dict[str, Any]:
    """The settings with those of `by` in place, also in nested ones; None removes one."""
    for name, value in by.items():
        if value is None:
            settings.pop(name, None)
        elif isinstance(value, dict) and isinstance(settings.get(name), dict) and name.endswith("config"):
            changed(settings[name], value)
        else:
            settings[name] = value
    return settings


def tiny_model(model_class: Any, **change: Any) -> Any:
    """A model in evaluation mode with random weights, large enough for attention to matter."""
    config_class = model_class.config_class
    config = config_class(**changed(small(config_class().to_dict()), change))
    with torch.device("meta"):
        shapes = {name: x.numel() for name, x in model_class(config).named_parameters()}
    if sum(shapes.values()) > LIMIT:
        largest = sorted(shapes, key=shapes.__getitem__)[-4:]
        raise ValueError(f"{model_class.__name__}: {sum(shapes.values())} weights, most in {largest}")
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(2.0)
    return model
