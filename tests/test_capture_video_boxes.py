"""The frame and box of each video token: one patch of one frame is lit, and the model's own features of the
token that shows it change most."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from capture_tiny import VIDEO, tiny_model

from attention_atlas.capture import video_boxes
from attention_atlas.errors import AtlasError

SIDE, PATCH, FRAMES = 48, 8, 4
SQUARE = {"vision_config": {"image_size": SIDE}}
CLASSES = {
    "video_llava": ("VideoLlavaForConditionalGeneration", SQUARE),
    "llava_next_video": ("LlavaNextVideoForConditionalGeneration", SQUARE),
    "llava_onevision": ("LlavaOnevisionForConditionalGeneration", SQUARE),
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", {"vision_config": {"temporal_patch_size": 2}}),
}


def model_of(family: str) -> Any:
    import transformers as T

    name, change = CLASSES[family]
    if family == "qwen2_vl":
        rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
        change = change | {"text_config": {"rope_parameters": rope}}
    model = tiny_model(getattr(T, name), **change)
    for name, parameter in model.named_parameters():  # without attention, a patch shows up in its token only
        tower = any(part in name for part in ("vision", "visual", "video_tower"))
        if tower and name.endswith(("out_proj.weight", "attn.proj.weight")):
            parameter.data.zero_()
    return model


def tokens_of(family: str) -> int:
    """Video tokens of one video of FRAMES frames; Qwen2-VL's has 32 × 64 pixels."""
    side = SIDE // PATCH
    return {
        "video_llava": FRAMES * (1 + side**2),
        "llava_next_video": FRAMES * (side // 2) ** 2,
        "llava_onevision": FRAMES * (side // 2) ** 2 + 1,
        "qwen2_vl": FRAMES // 2 * 2 * 4,
    }[family]


def inputs_of(family: str, frames_VFCHW: torch.Tensor) -> dict[str, Any]:
    """A text before each video and after the last."""
    videos = len(frames_VFCHW)
    block = [4, *[VIDEO] * tokens_of(family)]
    ids = torch.tensor([[1, *block * videos, 5]])
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if family != "qwen2_vl":
        return inputs | {"pixel_values_videos": frames_VFCHW}
    # As the processor does: (t, h, w of squares, their patches) x (channel, frames of a step, patch).
    grouped = frames_VFCHW.reshape(videos, FRAMES // 2, 2, 3, 2, 2, PATCH, 4, 2, PATCH)
    patches = grouped.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(-1, 3 * 2 * PATCH * PATCH)
    grid = torch.tensor([[FRAMES // 2, 4, 8]] * videos)
    typed = {"mm_token_type_ids": 2 * (ids == VIDEO).long()}
    return inputs | {"pixel_values_videos": patches, "video_grid_thw": grid} | typed


def embedded(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """(T,D) what the language model receives."""
    seen = []
    stack = model.get_decoder() if hasattr(model, "get_decoder") else model.model.language_model

    def look(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(kwargs["inputs_embeds"][0].detach())

    handle = stack.register_forward_pre_hook(look, with_kwargs=True)
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("family", CLASSES)
def test_a_planted_patch_changes_the_token_of_its_frame_and_box(family: str) -> None:
    torch.manual_seed(0)
    model = model_of(family)
    height, width = (32, 64) if family == "qwen2_vl" else (SIDE, SIDE)
    size = (2 * height, 3 * width)  # the processor has scaled the frames by 1/2 and 1/3
    plain = torch.randn(2, FRAMES, 3, height, width)
    inputs = inputs_of(family, plain)
    boxes, video, frame = video_boxes(model.config, inputs, [size, size])
    before = embedded(model, inputs)
    assert len(boxes) == len(before) and ((video >= 0) == (inputs["input_ids"][0] == VIDEO)).all()
    for v, f, y, x in [(0, 0, 0, 0), (0, 3, 8, 24), (1, 1, height - 8, 0), (1, 2, 16, width - 8)]:
        lit = plain.clone()
        lit[v, f, :, y : y + PATCH, x : x + PATCH] += 3.0
        changed = (embedded(model, inputs_of(family, lit)) - before).norm(dim=-1)
        token = int(changed.argmax())
        assert changed[token] > 0.4 * changed.sum()
        left, top, right, bottom = boxes[token].tolist()
        step = 2 if family == "qwen2_vl" else 1
        assert video[token] == v and frame[token] == f // step * step, (token, video[token], frame[token])
        assert left <= 3 * x and 3 * (x + PATCH) <= right and top <= 2 * y and 2 * (y + PATCH) <= bottom


def test_boxes_of_frames_that_the_processor_cropped() -> None:
    from types import SimpleNamespace

    model = model_of("video_llava")
    inputs = inputs_of("video_llava", torch.zeros(1, FRAMES, 3, SIDE, SIDE))
    crop = {"height": SIDE, "width": SIDE}
    made = SimpleNamespace(do_center_crop=True, do_resize=True, size={"shortest_edge": SIDE}, crop_size=crop)
    boxes, _, frame = video_boxes(model.config, inputs, [(96, 192)], made)
    assert boxes[2].isnan().all() and boxes[3].tolist() == [48, 0, 64, 16]
    assert boxes[-2].tolist() == [128, 80, 144, 96]
    assert frame[2] == 0 and frame[-2] == FRAMES - 1 and frame[-1] == -1


def test_what_does_not_fit_is_refused() -> None:
    model = model_of("llava_onevision")
    inputs = inputs_of("llava_onevision", torch.zeros(2, FRAMES, 3, SIDE, SIDE))
    boxes, video, frame = video_boxes(model.config, inputs, [(9, 9)] * 2)
    ends = boxes[:, 0].isnan() & (video >= 0)
    assert ends.sum() == 2 and (frame[ends] == -1).all()
    with pytest.raises(AtlasError, match="row 0 has more video tokens than 1 videos give"):
        video_boxes(model.config, inputs, [(9, 9)])
    with pytest.raises(AtlasError, match="3 sizes, but the inputs hold 2 videos"):
        video_boxes(model.config, inputs, [(9, 9)] * 3)
    inputs["input_ids"][0, -2] = 5
    with pytest.raises(AtlasError, match=r"has 36 tokens for video 1, but .* gives 37"):
        video_boxes(model.config, inputs, [(9, 9)] * 2)
    model.config.model_type = "other"
    with pytest.raises(AtlasError, match="other: its geometry is not known"):
        video_boxes(model.config, inputs, [(9, 9)] * 2)
