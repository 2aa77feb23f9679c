"""Attention over images for the best and worst alignment side by side (as in Figs. 3 to 19 of the
paper)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.data.images import image_from_base64
from attention_atlas.errors import AtlasError
from attention_atlas.files import read_json
from attention_atlas.measures.examples import AT_RANDOM
from attention_atlas.plotting.overlay import overlay
from attention_atlas.plotting.style import GREY, PAGE, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SCHEMA = "atlas.alignment_shown/2"


def paint(shape: tuple[int, int], boxes_N4: np.ndarray, attn_N: np.ndarray, scale: float) -> np.ndarray:
    """Attention over boxes as one value per pixel (H,W): the highest value where boxes overlap."""
    pixels = np.zeros(shape)
    for (x1, y1, x2, y2), value in zip(np.asarray(boxes_N4) * scale, attn_N, strict=True):
        rows = slice(max(0, int(np.floor(y1))), max(0, int(np.ceil(y2))))
        columns = slice(max(0, int(np.floor(x1))), max(0, int(np.ceil(x2))))
        pixels[rows, columns] = np.maximum(pixels[rows, columns], value)
    return pixels


def side_by_side(table: pd.DataFrame, shown: str, example: int = 0, words: int = 5) -> Figure:
    """One example of shown_<panel>.json: a row for each alignment, first the image, then a map for each of
    `words` words (see `chosen_words`). Below each map: its highest value, in per cent; each map has its own
    scale. The last line shows how the example was chosen."""
    content = read_json(shown, schema=SCHEMA)
    if example >= len(content["examples"]):
        many = len(content["examples"])
        raise AtlasError(f"{shown}: has {many} examples, not {example + 1}; ask for fewer")
    entry = content["examples"][example]
    maps, meant = entry["maps"], entry["meant"]
    columns = min(words, max(len(m["words"]) for m in maps))
    cell = (PAGE - 0.25) / (columns + 1)
    width, height = maps[0]["size"]
    shape = height / width if width else 1.0
    figure = new_figure(PAGE, len(maps) * (cell * min(shape, 1.2) + 0.62) + 0.15)
    how = "drawn at random" if entry["chosen"] == AT_RANDOM else f"chosen by rule: {content['rule']}"
    figure.supxlabel(f"example {how}", fontsize=6.5, color=GREY)
    parts = figure.subfigures(len(maps), 1, squeeze=False)[:, 0]
    alike = [m for m in maps if m["words"] == maps[0]["words"]]
    for part, shown_map, alignment, role in zip(parts, maps, content["alignments"], ("best", "worst")):
        axes = part.subplots(1, columns + 1, squeeze=False)[0]
        image = image_from_base64(shown_map["image"])
        axes[0].imshow(image)
        _bare(axes[0])
        for ax, place in zip(axes[1:], chosen_words(shown_map, alike, meant, columns)):
            attn = np.array(shown_map["attention"][place])
            overlay(ax, image, attention_map(shown_map, attn, image), float(attn.max()))
            ax.set_title(_short(shown_map["words"][place]), fontsize=7, pad=2)
            peak = 100 * attn.max()
            ax.set_xlabel(f"{peak:.{0 if peak >= 1 else 1}f} %", fontsize=6, labelpad=1)
        for ax in axes[1 + min(columns, len(shown_map["words"])) :]:
            ax.set_axis_off()
        text = textwrap.shorten(shown_map["text"], 105, placeholder=" …")
        score = f"{content['score']} {alignment['score']:.1f}"
        part.suptitle(f"{role}: {alignment['title']} ({score})\n{text}", fontsize=7.5)
    return figure


def chosen_words(
    entry: Mapping[str, Any], maps: Sequence[Mapping[str, Any]], meant: Sequence[str], count: int
) -> list[int]:
    """Indices of `count` words, in text order: first words that refer to a region, then those with the
    highest peaks in any of `maps` with the same words, so that all alignments show the same words;
    punctuation last."""
    peers = [m["attention"] for m in maps if m["words"] == entry["words"]] or [entry["attention"]]
    peaks = [max(max(rows[i]) for rows in peers) for i in range(len(entry["words"]))]

    def rank(i: int) -> tuple[bool, bool, float, int]:
        word = entry["words"][i]
        return word not in meant, not any(c.isalnum() for c in word), -peaks[i], i

    return sorted(sorted(range(len(peaks)), key=rank)[:count])


def attention_map(entry: Mapping[str, Any], attn_N: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Attention as a grid over the image: the model's own grid, or its boxes drawn on the pixels."""
    if entry["grid"] is not None:
        return attn_N.reshape(entry["grid"])
    scale = image.shape[1] / (entry["size"][0] or image.shape[1])
    return paint(image.shape[:2], np.array(entry["boxes"]), attn_N, scale)


def _bare(ax: Any) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _short(word: str) -> str:
    return word if len(word) <= 18 else word[:17] + "…"
