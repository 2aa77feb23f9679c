"""Figures of study 2: what is written stays in its image."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from attention_atlas.plotting.style import new_figure
from attention_atlas.studies.modality.figures_examples import _box


def test_the_label_of_a_box_at_the_right_edge_ends_within_the_image():
    figure = new_figure(3, 3)
    ax = figure.subplots()
    ax.imshow(np.zeros((64, 64, 3)))
    _box(ax, [2, 2, 20, 20], "1, 5, 8", "blue")
    _box(ax, [58, 30, 63, 40], "1, 5, 8", "blue")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    right = ax.get_window_extent(canvas.get_renderer()).x1
    assert [text.get_window_extent(canvas.get_renderer()).x1 <= right for text in ax.texts] == [True, True]
