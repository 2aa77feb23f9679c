"""Roles of the positions of models whose configurations say differently where images and videos are."""

import pytest
import torch
import transformers as T

from attention_atlas.capture import roles_of, roles_of_ids
from attention_atlas.errors import AtlasError

IDS = torch.tensor([[1, 7, 30, 30, 31, 8]])


def test_videos_have_a_role_of_their_own_under_both_names_of_the_id():
    expected = ["image", "image", "video"]
    for config in (
        T.Qwen2VLConfig(image_token_id=30, video_token_id=31),
        T.LlavaOnevisionConfig(image_token_index=30, video_token_index=31),
    ):
        assert roles_of_ids(IDS, config)[0][2:5] == expected
    blip = T.InstructBlipVideoConfig(video_token_index=31)
    assert roles_of_ids(IDS, blip)[0][2:5] == ["text", "text", "video"]


def test_ids_of_nested_configurations_are_found_the_outermost_first():
    assert (
        roles_of_ids(IDS, T.ColPaliConfig(vlm_config=T.PaliGemmaConfig(image_token_index=31)))[0][4]
        == "image"
    )
    # The id is in the vision part, whose special ids are not those of the text.
    phi = T.Phi4MultimodalConfig(vision_config=T.Phi4MultimodalVisionConfig(image_token_id=30))
    assert roles_of_ids(IDS, phi)[0][2:4] == ["image", "image"]
    thinker = T.Qwen2_5OmniThinkerConfig(image_token_index=30, video_token_index=31, audio_token_index=8)
    omni = T.Qwen2_5OmniConfig(thinker_config=thinker.to_dict())
    assert roles_of_ids(IDS, omni)[0][2:] == ["image", "image", "video", "audio"]


def test_a_mask_in_the_inputs_gives_the_places_where_the_configuration_has_no_id():
    config = T.Kosmos2Config()
    with pytest.raises(AtlasError, match=r"kosmos-2: has no id for images; use roles_of\(inputs, config\)"):
        roles_of_ids(IDS, config)
    inputs = {"input_ids": IDS, "pixel_values": torch.zeros(1, 3, 4, 4)}
    inputs["image_embeds_position_mask"] = torch.tensor([[0, 0, 1, 1, 0, 0]])
    assert roles_of(inputs, config)[0][1:5] == ["text", "image", "image", "text"]
    inputs["attention_mask"] = torch.tensor([[1, 1, 1, 1, 1, 0]])
    assert roles_of(inputs, config)[0][4:] == ["text", "pad"]
    inputs["image_embeds_position_mask"] = torch.zeros(1, 5)
    with pytest.raises(
        AtlasError, match=r"the mask of images has shape \(1, 5\), but input_ids has \(1, 6\)"
    ):
        roles_of(inputs, config)


def test_pixels_without_a_image_among_the_ids_are_an_error():
    config = T.LlavaConfig(image_token_index=40)
    assert set(roles_of({"input_ids": IDS}, config)[0]) >= {"text"}
    for name in ("pixel_values", "pixel_values_videos", "image_patches"):
        with pytest.raises(AtlasError, match=f"llava: the inputs hold {name}, but no position of input_ids"):
            roles_of({"input_ids": IDS, name: torch.zeros(1)}, config)
    with pytest.raises(AtlasError, match="kosmos-2: the inputs hold pixel_values"):
        roles_of({"input_ids": IDS, "pixel_values": torch.zeros(1)}, T.Kosmos2Config())
    with pytest.raises(AtlasError, match="hold no input_ids, only pixel_values"):
        roles_of({"pixel_values": torch.zeros(1)}, config)
