"""OCR: the file and what it refuses, splitting lines, colours, error rates by hand, real recognition."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from attention_atlas.data.corpus import Corpus, Example, Scene, SceneObject
from attention_atlas.data.ocr_file import LOOK, OcrImage, OcrToken, look_of, read_ocr, write_ocr
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.regions.ocr import RapidOcr, split_line, words_on
from attention_atlas.regions.phoc import BIGRAMS, LEVELS, SIZE, SYMBOLS, phoc


def token(text, *box):
    return OcrToken(text, box or (0.0, 0.0, 10.0, 5.0), 0.9)


def test_what_is_written_is_read_again(tmp_path):
    images = [
        OcrImage("b", (40, 30), [OcrToken("EXIT", (1.0, 2.0, 9.5, 6.0), 0.5, [7] * LOOK)], "me"),
        OcrImage("a", (40, 30), []),
    ]
    write_ocr(tmp_path / "x.jsonl", images)
    found = read_ocr(tmp_path / "x.jsonl")
    assert list(found) == ["a", "b"] and found["b"] == images[0] and found["a"].tokens == []


@pytest.mark.parametrize(
    "change, message",
    [
        ({"text": "NO ENTRY"}, "text: 'NO ENTRY' is not one word"),
        ({"box": [1, 2, 1, 6]}, "box.*has no area"),
        ({"box": [1, 2, float("nan"), 6]}, "box: is NaN"),
        ({"confidence": 1.5}, "confidence: 1.5"),
        ({"look": [1, 2]}, "look: is .* not 48 numbers"),
        ({"box": [1, 2, 3]}, "box: is .* not 4 numbers"),
        ({"confidence": None}, "confidence: is null"),
    ],
)
def test_broken_files_are_named(tmp_path, change, message):
    row = {"text": "EXIT", "box": [1, 2, 9, 6], "confidence": 0.5, "look": []}
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"image_id": "a", "size": [9, 9], "tokens": [row | change]}) + "\n")
    with pytest.raises(AtlasError, match=f"x.jsonl: line 1.*{message}"):
        read_ocr(path)


def test_a_double_image_and_a_missing_file_are_named(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text((json.dumps({"image_id": "a", "size": [9, 9], "tokens": []}) + "\n") * 2)
    with pytest.raises(AtlasError, match=r"line 2.*'a' occurs twice"):
        read_ocr(path)
    with pytest.raises(AtlasError, match="no such file"):
        read_ocr(tmp_path / "y.jsonl")


def test_a_line_is_split_by_its_letters():
    assert split_line("A  BC", (0.0, 0.0, 50.0, 8.0)) == [
        ("A", (0.0, 0.0, 10.0, 8.0)),
        ("BC", (30.0, 0.0, 50.0, 8.0)),
    ]
    assert split_line("   ", (0.0, 0.0, 50.0, 8.0)) == []


def test_look_is_the_mean_of_cells():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:2, :2] = (200, 100, 0)
    image[0, 0] = (0, 100, 0)
    look = np.array(look_of(image, (0, 0, 8, 8))).reshape(4, 4, 3)
    assert look[0, 0].tolist() == [150, 100, 0] and look[1:].sum() == 0
    assert look_of(image, (20, 20, 30, 30)) == []


def test_words_on_a_sign_are_read_by_lines_then_columns():
    image = OcrImage(
        "a",
        (100, 100),
        [
            token("two", 10, 21, 30, 30),
            token("one", 12, 10, 30, 19),
            token("far", 60, 10, 80, 20),
            token("too", 31, 20, 45, 29),
        ],
    )
    assert [image.tokens[i].text for i in words_on(image, (0, 0, 50, 50))] == ["one", "two", "too"]


def naive_phoc(word: str) -> np.ndarray:
    """Almazán et al. 2014, with fractions of the word's length."""
    from fractions import Fraction as F

    word = "".join(c for c in word.lower() if c in SYMBOLS)
    rows = []
    for units, width, levels in ((list(SYMBOLS), 1, LEVELS), (list(BIGRAMS), 2, (2,))):
        for level in levels:
            for part in range(level):
                for unit in units:
                    hit = 0
                    for k in range(len(word) - width + 1):
                        low, high = F(k, len(word)), F(k + width, len(word))
                        inside = min(high, F(part + 1, level)) - max(low, F(part, level))
                        if word[k : k + width] == unit and inside >= (high - low) / 2:
                            hit = 1
                    rows.append(hit)
    return np.array(rows, np.float32)


@pytest.mark.parametrize("word", ["beyond", "the", "A", "", "re-open24", "mississippi"])
def test_phoc_equals_the_definition(word):
    assert phoc(word).shape == (SIZE,) and SIZE == 604 and len(set(BIGRAMS)) == 50
    assert np.array_equal(phoc(word), naive_phoc(word))


def test_phoc_of_beyond_at_level_two():
    # The paper's example: at level 2 "bey" and "ond".
    halves = phoc("beyond")[: 2 * len(SYMBOLS)].reshape(2, -1)
    assert ["".join(SYMBOLS[i] for i in np.flatnonzero(h)) for h in halves] == ["bey", "dno"]


def image_of(lines, size=(160, 96)):
    image = Image.new("RGB", size, (250, 250, 245))
    draw = ImageDraw.Draw(image)
    for k, line in enumerate(lines):
        draw.text((12, 8 + 42 * k), line, fill=(10, 10, 30), font=ImageFont.load_default(26))
    return image


def test_words_are_recognised_in_a_drawn_image(tmp_path):
    image_of(["RED COUCH", "2024"]).save(tmp_path / "i0.png")
    image_of([]).save(tmp_path / "i1.png")
    scenes = {
        "i0": Scene("i0", "i0.png", 160, 96, "test", [SceneObject(0, "sign", [], (0, 0, 9, 9), 81, 0, "X")]),
        "i1": Scene("i1", "i1.png", 160, 96, "test"),
    }
    corpus = Corpus(tmp_path, scenes, [Example(i, i, "what does it say?") for i in scenes])
    RapidOcr(scale=2, side=192).extract(corpus, tmp_path / "all.jsonl", tmp_path / "w")
    found = read_ocr(tmp_path / "all.jsonl")
    assert [t.text.lower() for t in found["i0"].tokens] == ["red", "couch", "2024"] and not found["i1"].tokens
    red, couch, year = found["i0"].tokens
    assert red.box[2] <= couch.box[0] and year.box[1] > red.box[3] - 4 and red.confidence > 0.6
    assert 5 < red.box[0] < 20 and len(red.look) == LOOK and np.mean(red.look) > 100
    # What is in the work folder is not read again; only images with words when asked so.
    (tmp_path / "w" / "ocr.jsonl").write_text(
        json.dumps({"image_id": "i0", "size": [160, 96], "tokens": []}) + "\n"
    )
    RapidOcr(only_texts=True).extract(corpus, tmp_path / "some.jsonl", tmp_path / "w")
    assert {i: p.tokens for i, p in read_ocr(tmp_path / "some.jsonl").items()} == {"i0": []}


def test_wrong_settings_and_images_are_named(tmp_path):
    with pytest.raises(ConfigError, match="scale must be above 0"):
        RapidOcr(scale=0)
    empty = Corpus(tmp_path, {"a": Scene("a", "a.png", 9, 9, "test")}, [Example("a", "a", "what?")])
    with pytest.raises(AtlasError, match="no image with words"):
        RapidOcr(only_texts=True).extract(empty, tmp_path / "x.jsonl", tmp_path)
    with pytest.raises(AtlasError, match=r"a.png: no such image"):
        RapidOcr().extract(empty, tmp_path / "x.jsonl", tmp_path)
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(AtlasError, match="not an image"):
        RapidOcr().extract(empty, tmp_path / "x.jsonl", tmp_path)
