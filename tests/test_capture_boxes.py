"""The box of each image token, against pictures with one planted patch that go through the processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attention_atlas.capture import token_boxes
from attention_atlas.errors import AtlasError

IMAGE = 9


def llava(T, **more):
    vision = T.CLIPVisionConfig(image_size=28, patch_size=7, hidden_size=8, num_attention_heads=2)
    return T.LlavaConfig(vision_config=vision, text_config=T.LlamaConfig(), image_token_id=IMAGE, **more)


def test_fixed_grid_of_two_pictures_with_text_between():
    import transformers as T

    ids = torch.tensor([[1, *[IMAGE] * 16, 3, *[IMAGE] * 16, 4], [0] * 18 + [1, *[IMAGE] * 16]])
    sizes = [(100, 200), (40, 40), (8, 4)]
    boxes, picture = token_boxes(llava(T), {"input_ids": ids}, sizes)
    assert boxes.shape == (35, 4) and picture.tolist() == [-1, *[0] * 16, -1, *[1] * 16, -1]
    assert boxes[[0, 17, 34]].isnan().all()
    assert boxes[1].tolist() == [0, 0, 50, 25] and boxes[2].tolist() == [50, 0, 100, 25]
    assert boxes[16].tolist() == [150, 75, 200, 100] and boxes[33].tolist() == [30, 30, 40, 40]
    boxes, picture = token_boxes(llava(T), {"input_ids": ids}, sizes, row=1)
    assert picture[19:].tolist() == [2] * 16 and boxes[-1].tolist() == [3, 6, 4, 8]
    full = llava(T, vision_feature_select_strategy="full")
    boxes, picture = token_boxes(full, {"input_ids": torch.tensor([[IMAGE] * 17])}, [(40, 40)])
    assert boxes[0].isnan().all() and picture[0] == 0 and boxes[1].tolist() == [0, 0, 10, 10]
    with pytest.raises(AtlasError, match="picture 0 has 16 tokens in row 0, but llava's geometry gives 17"):
        token_boxes(full, {"input_ids": torch.tensor([[IMAGE] * 16])}, [(40, 40)])
    with pytest.raises(AtlasError, match="row 0 has more image tokens than 1 pictures give"):
        token_boxes(llava(T), {"input_ids": ids}, sizes[:1])


def lit(picture: np.ndarray, box) -> float:
    """Share of the picture's light that lies in the box."""
    left, top, right, bottom = (round(float(x)) for x in box)
    return picture[top:bottom, left:right].sum() / picture.sum()


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (84, 84)])
@pytest.mark.parametrize("how", ["crop", "pad", "stretch"])
def test_a_planted_patch_lands_where_the_processor_puts_it(size, how):
    import transformers as T

    config = llava(T)
    square = {"height": 28, "width": 28}
    kwargs = {"do_rescale": False, "do_normalize": False, "resample": 0, "do_center_crop": how == "crop"}
    kwargs |= {"image_mean": [0.0] * 3}  # the colour of the padding
    kwargs |= {"size": {"shortest_edge": 28} if how == "crop" else square, "crop_size": square}
    made = T.models.llava.image_processing_pil_llava.LlavaImageProcessorPil(do_pad=how == "pad", **kwargs)
    ids = {"input_ids": torch.full((1, 16), IMAGE)}
    boxes, _ = token_boxes(config, ids, [size], made)
    seen = 0
    for token, box in enumerate(boxes):
        if box.isnan().any():
            continue
        left, top, right, bottom = box.tolist()
        picture = np.zeros((*size, 3), np.uint8)
        picture[round(top) : round(bottom), round(left) : round(right)] = 255
        pixels = made(images=picture, return_tensors="np")["pixel_values"][0, 0]
        light = pixels.reshape(4, 7, 4, 7).sum((1, 3)).ravel()
        assert light.argmax() == token and light[token] > 0.7 * light.sum(), (token, light)
        seen += 1
    assert seen == 16 if how != "pad" else seen >= 12
