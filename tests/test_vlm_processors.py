"""Processors of images load without torchvision."""

from importlib.util import find_spec

import pytest
import torch

from attention_atlas.errors import AtlasError
from attention_atlas.models.vlm.processors import load_processor
from attention_atlas.models.vlm.tokenizer import train_tokenizer

MARKS = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]


@pytest.fixture
def folder(tmp_path):
    import transformers as T

    tokenizer = train_tokenizer(["a red car", "the blue house"], 80)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    tokenizer.chat_template = "{{ messages }}"
    sizes = {"shortest_edge": 256, "longest_edge": 6400}
    images = T.Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, temporal_patch_size=1, size=sizes)
    for part in (tokenizer, images, T.Qwen2VLConfig()):
        part.save_pretrained(tmp_path)
    return tmp_path


def test_images_and_texts_pass_through_a_processor_that_also_takes_videos(folder):
    from PIL import Image

    if find_spec("torchvision") is None:
        import transformers as T

        with pytest.raises(ImportError, match="Torchvision"):
            T.AutoProcessor.from_pretrained(folder)
    processor = load_processor(str(folder))
    assert type(processor).__name__ == "Qwen2VLProcessor" and processor.chat_template == "{{ messages }}"
    text = "<|vision_start|><|image_pad|><|vision_end|> a car"
    inputs = processor(images=Image.new("RGB", (64, 48)), text=text, return_tensors="pt")
    marks = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert inputs["image_grid_thw"].tolist() == [[1, 6, 8]]
    assert int((inputs["input_ids"] == marks).sum()) == 12 and torch.isfinite(inputs["pixel_values"]).all()


def test_what_is_missing_is_said_in_one_line(folder, tmp_path):
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(AtlasError, match=r"processor cannot be loaded .*give a hub id or a folder"):
        load_processor(str(folder))
    with pytest.raises(AtlasError, match=r"nowhere: processor cannot be loaded .*give a hub id or a folder"):
        load_processor(str(tmp_path / "nowhere"))
