"""Small coloured images with captions and questions, and tiny vision LLMs, for tests of study 5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from attention_atlas.data.corpus import Corpus, Example, read_corpus, write_examples

VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 48,
    "patch_size": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
TEXTS = ["describe the picture.", "a red block on the left", "a blue block on the right", "what color is it?"]


def captioned(root: Path, count: int = 24) -> tuple[Corpus, list[dict[str, str]]]:
    """A layer of two captions for each image (the corpus), and an additional layer of questions."""
    from vqa_world import blocks

    corpus = blocks(root, count)
    captions = []
    for image_id, scene in corpus.scenes.items():
        block = scene.objects[0]
        side = "left" if block.box[0] == 0 else "right"
        for k, text in enumerate((f"a {block.attributes[0]} block", f"a block on the {side}")):
            captions.append(Example(f"{image_id}_c{k}", image_id, text))
    write_examples(root / "captions.jsonl", captions)
    layers = [{"root": str(root), "layer": str(root / "questions.jsonl")}]
    return read_corpus(root, "captions"), layers


def tiny_text(pieces: int, layers: int = 3, kv_heads: int = 2, tied: bool = False) -> dict[str, Any]:
    from attention_atlas.models.vlm.text_model import llama_config

    return llama_config(pieces, layers, 4, kv_heads, 16, 24, 256, 0.2, tied)


def tiny_tokenizer() -> Any:
    from attention_atlas.models.vlm.tokenizer import train_tokenizer

    return train_tokenizer(TEXTS, 70)


def tiny(kind: str, tokenizer: Any, tied: bool = False, **more: Any) -> Any:
    """A fresh `Llava` or `InstructBlip` (kind: llava | instructblip), seeded, in evaluation mode."""
    from attention_atlas.models.vlm.instructblip import InstructBlip
    from attention_atlas.models.vlm.llava import Llava
    from attention_atlas.models.vlm.tokenizer import IMAGE

    torch.manual_seed(0)
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    text = tiny_text(len(tokenizer), tied=tied)
    if kind == "llava":
        return Llava(VISION, text, image_id, stem=[4], **more).eval()
    sizes = {"queries": 5, "qformer_layers": 2, "qformer_heads": 2, "qformer_inner": 24}
    return InstructBlip(VISION, text, image_id, stem=[4], **(sizes | more)).eval()
