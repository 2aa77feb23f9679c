"""Overlays: attention of each word of a question over the image, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attention_atlas.data.images import image_from_base64
from attention_atlas.errors import AtlasError
from attention_atlas.files import read_json
from attention_atlas.measures.vqa_accuracy import consensus
from attention_atlas.plotting.overlay import overlay
from attention_atlas.plotting.style import GREY, PAGE, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SCHEMA = "atlas.vilt_shown/2"
BOX = "#D55E00"


def words_by_layers(
    table: pd.DataFrame, shown: str, question: int = 0, layers: Sequence[int] = (), words: int = 6
) -> Figure:
    """One question of shown.json: rows are its words (CLS first), columns are layers (counted from 1; none:
    every other one). Each map is scaled to its highest patch; the box is the thing asked about."""
    from matplotlib.patches import Rectangle

    content = read_json(shown, schema=SCHEMA)
    if question >= len(content["questions"]):
        many = len(content["questions"])
        raise AtlasError(f"{shown}: has {many} questions, not {question + 1}; ask for fewer")
    item = content["questions"][question]
    image = image_from_base64(item["image"])
    maps = item["maps"][:words]
    depth = len(maps[0]["map"])
    columns = list(layers) or list(range(2, depth + 1, 2))
    columns = [c for c in columns if 1 <= c <= depth]
    cell = (PAGE - 0.7) / (len(columns) + 1)
    figure = new_figure(PAGE, len(maps) * cell * image.shape[0] / image.shape[1] + 0.75)
    axes = figure.subplots(len(maps), len(columns) + 1, squeeze=False)
    scale = image.shape[1] / item["size"][0]
    for row, entry in enumerate(maps):
        ax = axes[row, 0]
        if row == 0:
            overlay(ax, image, np.zeros((1, 1)), 0.0)
            ax.images[1].remove()
            for x1, y1, x2, y2 in item["boxes"]:
                corner, size = (x1 * scale, y1 * scale), ((x2 - x1) * scale, (y2 - y1) * scale)
                ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=BOX, linewidth=1.2))
        else:
            ax.set_axis_off()
        for column, layer in enumerate(columns, start=1):
            ax = axes[row, column]
            grid = np.array(entry["map"][layer - 1], dtype=float)
            overlay(ax, image, grid, float(grid.max()))
            share = 100 * float(grid.sum())
            ax.set_xlabel(f"{share:.0f} %", fontsize=6, labelpad=1)
            if row == 0:
                ax.set_title(f"layer {layer}")
        axes[row, 1].set_ylabel(entry["word"], fontsize=7)
    agreed = consensus(item["people"])
    verdict = "" if agreed == item["answer"] else f" (people: {agreed})"
    note = "below each map: share of the word's attention that goes to the image; "
    note += "each map has its own scale; box: what the question asks about"
    note += f"\nquestion: {item['chosen']}"
    figure.supxlabel(note, fontsize=6.5, color=GREY)
    figure.suptitle(f"{item['question']}  –  {item['answer']}{verdict}", fontsize=8)
    return figure
