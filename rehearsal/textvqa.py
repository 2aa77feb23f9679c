"""TextVQA: questions about words on pictures, and the words as Rosetta read them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .drawn import SIZE, draw, things

SIGNS = ("stop", "open", "exit", "cafe", "hotel", "sale", "north", "taxi")


def write_textvqa(folder: Path) -> None:
    rng = np.random.default_rng(7)
    number = 0
    for split, count in (("train", 24), ("val", 28)):
        questions, words = [], []
        for _ in range(count):
            image_id, shown = f"{split}{number:06d}", things(rng)
            sign = SIGNS[int(rng.integers(len(SIGNS)))]
            draw(folder / "train_images" / f"{image_id}.jpg", shown, sign)
            box = {"top_left_x": 0.04, "top_left_y": 0.82, "width": 0.4, "height": 0.14, "rotation": 0}
            misread = {"word": "the", "bounding_box": {**box, "top_left_y": 0.1}}
            words.append({"image_id": image_id, "ocr_info": [{"word": sign, "bounding_box": box}, misread]})
            for text, answer in (
                ("What does the sign say?", sign),
                (f"What color is the {shown[0].name}?", shown[0].colour),
            ):
                row = {"question_id": number, "question": text, "image_id": image_id, "answers": [answer] * 10}
                questions.append({**row, "image_width": SIZE[0], "image_height": SIZE[1]})
                number += 1
        (folder / f"TextVQA_0.5.1_{split}.json").write_text(json.dumps({"data": questions}))
        (folder / f"TextVQA_Rosetta_OCR_v0.2_{split}.json").write_text(json.dumps({"data": words}))
