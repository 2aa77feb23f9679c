"""TextVQA: questions about words on images, the words as Rosetta read them, and what else M4C reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .drawn import COLOURS, SIZE, draw, things
from .regions import DIM, write_npz

SIGNS = ("stop", "open", "exit", "cafe", "hotel", "sale", "north", "taxi")


def write_textvqa(folder: Path) -> None:
    rng = np.random.default_rng(7)
    number, seen = 0, {}
    (folder / "ocr_features").mkdir(parents=True)
    for split, count in (("train", 24), ("val", 28)):
        questions, words = [], []
        for _ in range(count):
            image_id, shown = f"{split}{number:06d}", things(rng)
            sign = SIGNS[int(rng.integers(len(SIGNS)))]
            seen[image_id] = shown
            draw(folder / "train_images" / f"{image_id}.jpg", shown, sign)
            box = {"top_left_x": 0.04, "top_left_y": 0.82, "width": 0.4, "height": 0.14, "rotation": 0}
            misread = {"word": "the", "bounding_box": {**box, "top_left_y": 0.1}}
            words.append({"image_id": image_id, "ocr_info": [{"word": sign, "bounding_box": box}, misread]})
            rows = rng.normal(size=(2, DIM)).astype("float32")  # of both words
            np.save(folder / "ocr_features" / f"{image_id}.npy", rows)
            for text, answer in (
                ("What does the sign say?", sign),
                (f"What color is the {shown[0].name}?", shown[0].colour),
            ):
                row = {
                    "question_id": number,
                    "question": text,
                    "image_id": image_id,
                    "answers": [answer] * 10,
                }
                questions.append({**row, "image_width": SIZE[0], "image_height": SIZE[1]})
                number += 1
        (folder / f"TextVQA_0.5.1_{split}.json").write_text(json.dumps({"data": questions}))
        (folder / f"TextVQA_Rosetta_OCR_v0.2_{split}.json").write_text(json.dumps({"data": words}))
    write_npz(folder / "features", seen.items(), count=100)
    _write_fasttext(folder / "wiki.en.bin")


def _write_fasttext(path: Path) -> None:
    """A FastText model of the published binary form: 300 numbers a word, n-grams of 3 to 6 letters."""
    from gensim.models import FastText
    from gensim.models.fasttext import save_facebook_model

    model = FastText(vector_size=300, min_count=1, bucket=50, min_n=3, max_n=6, seed=0, workers=1)
    sentences = [[*SIGNS, *COLOURS, "the"]]
    model.build_vocab(sentences)
    model.train(sentences, total_examples=1, epochs=1)
    save_facebook_model(model, str(path))
