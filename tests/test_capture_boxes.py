"""The box of each image token, against images with one planted patch that go through the processor."""

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


def test_fixed_grid_of_two_images_with_text_between():
    import transformers as T

    ids = torch.tensor([[1, *[IMAGE] * 16, 3, *[IMAGE] * 16, 4], [0] * 18 + [1, *[IMAGE] * 16]])
    sizes = [(100, 200), (40, 40), (8, 4)]
    boxes, image = token_boxes(llava(T), {"input_ids": ids}, sizes)
    assert boxes.shape == (35, 4) and image.tolist() == [-1, *[0] * 16, -1, *[1] * 16, -1]
    assert boxes[[0, 17, 34]].isnan().all()
    assert boxes[1].tolist() == [0, 0, 50, 25] and boxes[2].tolist() == [50, 0, 100, 25]
    assert boxes[16].tolist() == [150, 75, 200, 100] and boxes[33].tolist() == [30, 30, 40, 40]
    boxes, image = token_boxes(llava(T), {"input_ids": ids}, sizes, row=1)
    assert image[19:].tolist() == [2] * 16 and boxes[-1].tolist() == [3, 6, 4, 8]
    full = llava(T, vision_feature_select_strategy="full")
    boxes, image = token_boxes(full, {"input_ids": torch.tensor([[IMAGE] * 17])}, [(40, 40)])
    assert boxes[0].isnan().all() and image[0] == 0 and boxes[1].tolist() == [0, 0, 10, 10]
    with pytest.raises(AtlasError, match="16 image tokens, but llava's geometry gives 17 for 1 images"):
        token_boxes(full, {"input_ids": torch.tensor([[IMAGE] * 16])}, [(40, 40)])
    with pytest.raises(AtlasError, match="row 0 has more image tokens than 1 images give"):
        token_boxes(llava(T), {"input_ids": ids}, sizes[:1])
    with pytest.raises(AtlasError, match="4 sizes, but the inputs hold 3 images"):
        token_boxes(llava(T), {"input_ids": ids}, [*sizes, (1, 1)])


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (84, 84)])
@pytest.mark.parametrize("how", ["crop", "pad", "stretch", "deepseek"])
def test_a_planted_patch_lands_where_the_processor_puts_it(size, how):
    import transformers as T

    config = llava(T)
    square = {"height": 28, "width": 28}
    kwargs = {"do_rescale": False, "do_normalize": False, "resample": 0, "do_center_crop": how == "crop"}
    kwargs |= {"image_mean": [0.0] * 3}  # the colour of the padding
    kwargs |= {"size": {"shortest_edge": 28} if how == "crop" else square, "crop_size": square}
    made = T.models.llava.image_processing_pil_llava.LlavaImageProcessorPil(do_pad=how == "pad", **kwargs)
    if how == "deepseek":
        plain = {k: kwargs[k] for k in ("do_rescale", "do_normalize", "resample", "size", "image_mean")}
        made = T.DeepseekVLImageProcessorPil(min_size=7, background_color=(0, 0, 0), **plain)
    ids = {"input_ids": torch.full((1, 16), IMAGE)}
    boxes, _ = token_boxes(config, ids, [size], made)
    seen = 0
    for token, box in enumerate(boxes):
        if box.isnan().any():
            continue
        left, top, right, bottom = box.tolist()
        image = np.zeros((*size, 3), np.uint8)
        image[round(top) : round(bottom), round(left) : round(right)] = 255
        pixels = made(images=image, return_tensors="np")["pixel_values"][0, 0]
        light = pixels.reshape(4, 7, 4, 7).sum((1, 3)).ravel()
        # DeepSeek-VL's padding starts at a pixel of its input, not of the image.
        least = 0.6 if how == "deepseek" else 0.7
        assert light.argmax() == token and light[token] > least * light.sum(), (token, light)
        seen += 1
    assert seen == 16 if how in ("crop", "stretch") else seen >= 12


PLAIN = {"do_rescale": False, "do_normalize": False, "resample": 0}


def planted(size, box):
    """A black image that is white in the box."""
    left, top, right, bottom = (round(x) for x in box.tolist())
    image = np.zeros((*size, 3), np.uint8)
    image[top:bottom, left:right] = 255
    return image


def check(config, processor, size, light_of, least=0.6):
    """Each token with a place is the one that shows most of the light in its box. light_of(processor's
    output): the light of every token, by the model's own order. Returns the boxes."""
    first = processor(images=planted(size, torch.tensor([0, 0, *size[::-1]])), return_tensors="pt")
    tokens = len(light_of(first))
    inputs = {"input_ids": torch.full((1, tokens), IMAGE), **first}
    boxes, image = token_boxes(config, inputs, [size], processor)
    assert boxes.shape == (tokens, 4) and image.tolist() == [0] * tokens
    places = (~boxes[:, 0].isnan()).nonzero()[:, 0].tolist()
    assert len(places) > 3
    for token in places:
        box = boxes[token]
        # Tiles and thumbnail show the same place twice: compare tokens of one size, at other places.
        edges = boxes[:, 2:] - boxes[:, :2]
        same = [t for t in places if torch.allclose(edges[t], edges[token], rtol=0.3)]
        shared = boxes[:, 2:].minimum(box[2:]) - boxes[:, :2].maximum(box[:2])
        same = [t for t in same if t == token or not (shared[t] > 2).all()]
        light = light_of(processor(images=planted(size, box), return_tensors="pt"))[same]
        assert same[int(light.argmax())] == token, (token, same[int(light.argmax())], box)
        assert light.max() > least * light.sum(), (token, box, light)
    return boxes


def cells(pixels_NCHW, patch):
    """(N, rows · columns) light of each patch."""
    light = pixels_NCHW.float().mean(1).unfold(1, patch, patch).unfold(2, patch, patch)
    return light.sum((-1, -2)).flatten(1)


@pytest.mark.parametrize("size", [(64, 64), (56, 100), (120, 48)])
def test_merged_patches_of_qwen2_vl(size):
    import transformers as T

    config = T.Qwen2VLConfig(image_token_id=IMAGE, vision_config={"patch_size": 8, "spatial_merge_size": 2})
    processor = T.Qwen2VLImageProcessorPil(
        patch_size=8,
        merge_size=2,
        temporal_patch_size=1,
        size={"shortest_edge": 256, "longest_edge": 6400},
        **PLAIN,
    )
    boxes = check(config, processor, size, lambda o: o["pixel_values"].sum(-1).reshape(-1, 4).sum(-1))
    assert boxes[-1, 2:].tolist() == [size[1], size[0]]


@pytest.mark.parametrize("size", [(60, 60), (40, 90), (90, 30), (80, 100)])
@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_tiles_and_thumbnail_of_llava(size, family):
    """The model itself puts the patches of the tiles in order."""
    from types import SimpleNamespace

    import transformers as T
    from transformers.models.llava_next import modeling_llava_next as next_
    from transformers.models.llava_onevision import modeling_llava_onevision as onevision

    pinpoints = [[32, 64], [64, 32], [64, 64], [32, 96], [96, 32]]
    vision = T.CLIPVisionConfig(image_size=32, patch_size=8, hidden_size=8, num_attention_heads=2)
    settings = {"image_token_id": IMAGE, "image_grid_pinpoints": pinpoints, "vision_config": vision}
    square = {"height": 32, "width": 32}
    if family == "llava_next":
        config = T.LlavaNextConfig(**settings)
        processor = T.LlavaNextImageProcessorPil(
            size=square, crop_size=square, image_grid_pinpoints=pinpoints, **PLAIN
        )
        pack, more = next_.LlavaNextModel.pack_image_features, {"vision_feature_select_strategy": "default"}
    else:
        # At most one tile's worth of patches, so that they are interpolated.
        config = T.LlavaOnevisionConfig(**settings, vision_aspect_ratio="anyres_max_1")
        processor = T.LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=pinpoints, **PLAIN)
        pack, more = (
            onevision.LlavaOnevisionModel.pack_image_features,
            {"vision_aspect_ratio": "anyres_max_1"},
        )

    def light(out):
        features = cells(out["pixel_values"][0], 8)[..., None]
        owner = SimpleNamespace(config=config)
        packed = pack(owner, [features], out["image_sizes"], image_newline=torch.zeros(1), **more)
        return packed[0][0][:, 0]

    boxes = check(config, processor, size, light, least=0.25 if family == "llava_onevision" else 0.45)
    assert boxes[:16, 2:].max(0).values.tolist() == [size[1], size[0]]
    assert boxes[16:].isnan().any()  # ends of rows


@pytest.mark.parametrize("size", [(60, 60), (40, 90), (90, 30)])
@pytest.mark.parametrize("split", [True, False])
def test_tiles_and_pixel_shuffle_of_idefics3(size, split):
    import transformers as T
    from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

    vision = {"image_size": 32, "patch_size": 4}
    config = T.Idefics3Config(image_token_id=IMAGE, vision_config=vision, scale_factor=2)
    processor = T.Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=split, **PLAIN
    )

    def light(out):
        pixels = out["pixel_values"][0].float()
        return Idefics3Connector.pixel_shuffle(None, cells(pixels, 4)[..., None], 2).sum(-1).flatten()

    boxes = check(config, processor, size, light)
    assert len(boxes) == (16 if not split else 16 * (5 if size == (60, 60) else 3))
    with pytest.raises(AtlasError, match="idefics3: how images are cut depends on their processor"):
        token_boxes(config, {"input_ids": torch.full((1, 16), IMAGE)}, [size])


@pytest.mark.parametrize("size", [(60, 60), (40, 90), (90, 30)])
def test_tiles_thumbnail_and_pixel_shuffle_of_internvl(size):
    import transformers as T
    from transformers.models.internvl.modeling_internvl import InternVLModel

    config = T.InternVLConfig(image_token_id=IMAGE, image_seq_length=16)
    processor = T.GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=6, **PLAIN
    )

    def light(out):
        grid = cells(out["pixel_values"], 4).reshape(-1, 8, 8, 1)
        return InternVLModel.pixel_shuffle(None, grid.repeat(1, 1, 1, 4), 0.5).sum(-1).flatten()

    check(config, processor, size, light)


def test_images_of_their_own_size_and_queries_without_a_place():
    import transformers as T

    pixtral = T.PixtralVisionConfig(patch_size=4, image_size=32)
    config = T.Mistral3Config(image_token_id=IMAGE, vision_config=pixtral, spatial_merge_size=2)
    ids = torch.tensor([[1, *[IMAGE] * 3, 5, *[IMAGE] * 3, 2, *[IMAGE] * 4]])  # breaks between rows
    inputs = {"input_ids": ids, "image_sizes": torch.tensor([[16, 24], [16, 16]])}
    boxes, image = token_boxes(config, inputs, [(160, 240), (20, 40)])
    assert boxes[5].tolist() == [0, 80, 80, 160] and boxes[-1].tolist() == [20, 10, 40, 20]
    assert image.tolist() == [-1, 0, 0, 0, -1, 0, 0, 0, -1, 1, 1, 1, 1]
    blip = T.Blip2Config(image_token_index=IMAGE, num_query_tokens=3)
    boxes, image = token_boxes(blip, {"input_ids": torch.tensor([[IMAGE] * 3 + [4]])}, [(10, 10)])
    assert boxes.isnan().all() and image.tolist() == [0, 0, 0, -1]
    with pytest.raises(AtlasError, match="emu3: its geometry is not known; known: llava"):
        emu = T.LlamaConfig(image_token_id=IMAGE)
        emu.model_type = "emu3"
        token_boxes(emu, {"input_ids": ids}, [(10, 10)])


@pytest.mark.parametrize("size", [(60, 60), (40, 90), (90, 30), (30, 40)])
@pytest.mark.parametrize("grid", ["covering", "canvas", "whole"])
def test_thumbnail_tiles_and_padded_grid_of_ovis2(size, grid):
    """5 × 5 patches a tile; the model pads them to 6 × 6 and joins 2 × 2."""
    import transformers as T

    config = T.Ovis2Config(
        image_token_id=IMAGE, vision_config={"image_size": 40, "patch_size": 8, "hidden_stride": 2}
    )
    processor = T.Ovis2ImageProcessorPil(
        size={"height": 40, "width": 40}, crop_to_patches=grid != "whole", min_patches=2, max_patches=6,
        use_covering_area_grid=grid == "covering", **PLAIN,
    )  # fmt: skip

    def light(out):
        padded = torch.nn.functional.pad(cells(out["pixel_values"], 8).reshape(-1, 5, 5), (0, 1, 0, 1))
        return torch.nn.functional.avg_pool2d(padded, 2).flatten()

    boxes = check(config, processor, size, light)
    high, wide = size
    assert boxes[0].tolist() == pytest.approx([0, 0, wide * 2 / 5, high * 2 / 5])
    assert boxes[8].tolist() == pytest.approx([wide * 4 / 5, high * 4 / 5, wide, high])  # one patch, not four
    if grid == "whole" or (size == (30, 40) and grid == "covering"):
        assert len(boxes) == 9


def test_queries_of_aria_are_as_many_as_its_tiles_have():
    import transformers as T

    config = T.AriaConfig(
        image_token_id=IMAGE, text_config={}, projector_patch_to_query_dict={1225: 3, 4900: 5},
        vision_config={"model_type": "idefics3_vision", "image_size": 980, "patch_size": 14},
    )  # fmt: skip
    for edge, split, count in ((490, False, 3), (980, False, 5), (490, True, 6)):
        processor = T.AriaImageProcessorPil(max_image_size=edge, split_image=split, **PLAIN)
        inputs = processor(images=np.zeros((40, 90, 3), np.uint8), return_tensors="pt")
        assert count == {490: 3, 980: 5}[edge] * len(inputs["pixel_values"])
        inputs = {"input_ids": torch.tensor([[1, *[IMAGE] * count]]), **inputs}
        boxes, image = token_boxes(config, inputs, [(40, 90)], processor)
        assert boxes.isnan().all() and image.tolist() == [-1, *[0] * count]


@pytest.mark.parametrize(("short", "crop"), [(336, 336), (256, 224), (224, 224), (432, 384)])
def test_what_a_centre_crop_keeps_is_exact_for_every_size(short, crop):
    """Whole pixels of the resized image are cut off on each side."""
    from types import SimpleNamespace

    from attention_atlas.capture.box_families import seen_region

    processor = SimpleNamespace(
        do_center_crop=True, size={"shortest_edge": short}, crop_size={"height": crop, "width": crop}
    )
    for height in range(100, 2000, 7):
        width = height + 37
        left, top, right, bottom = seen_region((height, width), processor)
        wide = int(short * width / height)
        assert top == pytest.approx((short - crop) // 2 * height / short)
        assert left == pytest.approx((wide - crop) // 2 * width / wide)
        assert bottom - top == pytest.approx(crop * height / short)
        assert right - left == pytest.approx(crop * width / wide)
