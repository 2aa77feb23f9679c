"""M4C's published inputs in small: a BERT with its tokenizer, FastText files, features of words' boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from attention_atlas.data.ocr_file import read_ocr, write_ocr

PIECES = ("what", "does", "the", "red", "blue", "sign", "say", "color", "is", "first", "?", "fi", "##rst")
FEATURES, VECTORS = 7, 6


def write_bert(folder: Path, layers: int = 4) -> str:
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES]
    (folder / "vocab.txt").write_text("\n".join(names))
    BertTokenizer(vocab={n: i for i, n in enumerate(names)}).save_pretrained(folder)
    torch.manual_seed(3)
    sizes = {"hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 20}
    config = BertConfig(vocab_size=len(names), num_hidden_layers=layers, **sizes)
    BertModel(config).eval().save_pretrained(folder)
    return str(folder)


def write_fasttext(path: Path, words: list[str]) -> str:
    """A .bin model, or a .vec file with its header, of `VECTORS` numbers a word."""
    if path.suffix == ".bin":
        from gensim.models.fasttext import FastText, save_facebook_model

        model = FastText([words], vector_size=VECTORS, min_count=1, epochs=1, seed=1, workers=1, bucket=50)
        save_facebook_model(model, str(path))
    else:
        rng = np.random.default_rng(0)
        rows = [" ".join([w, *(f"{v:.4f}" for v in rng.normal(size=VECTORS))]) for w in words]
        path.write_text("\n".join([f"{len(words)} {VECTORS}", *rows]) + "\n")
    return str(path)


def write_ocr_features(folder: Path, ocr: str) -> str:
    """One file per image: row r of image n is 10 n + r everywhere. Numbers the words' rows in `ocr`."""
    folder.mkdir(parents=True, exist_ok=True)
    images = read_ocr(ocr)
    for n, image in enumerate(images.values()):
        image.tokens = [replace(t, row=r) for r, t in enumerate(image.tokens)]
        table = 10 * n + np.arange(len(image.tokens))[:, None] + np.zeros(FEATURES)
        np.save(folder / f"{image.image_id}.npy", table.astype(np.float32))
    write_ocr(ocr, images.values())
    return str(folder)
