"""Boxes of a frozen SSD graph: decoding and labels with a stub for OpenCV's network, and bad files."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image

from attention_atlas.errors import AtlasError
from attention_atlas.regions.ssd_detector import COCO, detect_ssd, load_ssd


class Stub:
    """Returns fixed rows and keeps its input."""

    def __init__(self, rows):
        self.rows = rows

    def setInput(self, blob):
        self.blob = blob

    def forward(self):
        return np.array(self.rows, np.float32)[None, None]


def test_rows_become_named_boxes_in_pixels():
    net = Stub([[0, 17, 0.4, 0, 0, 0.5, 0.5], [0, 90, 0.9, 0.25, -0.1, 1.2, 0.5], [0, 12, 0.1, 0, 0, 1, 1]])
    image = Image.new("RGB", (200, 100), (255, 0, 10))
    found = detect_ssd(net, image)
    assert [(name, round(score, 3)) for name, score, _ in found] == [
        ("toothbrush", 0.9),
        ("cat", 0.4),
        ("class 12", 0.1),  # an id that COCO never used
    ]
    assert found[0][2] == pytest.approx((50, 0, 200, 50)) and found[1][2] == pytest.approx((0, 0, 100, 50))
    assert net.blob.shape == (1, 3, 300, 300) and net.blob[0, :, 7, 7].tolist() == [255, 0, 10]


def test_the_names_are_cocos_eighty():
    assert len(COCO) == len(set(COCO.values())) == 80
    assert (COCO[1], COCO[44], COCO[67], COCO[90]) == ("person", "bottle", "dining table", "toothbrush")


def test_bad_graphs_are_one_line(tmp_path):
    graph = tmp_path / "net.pb"
    with pytest.raises(AtlasError, match=r"net\.pb"):
        load_ssd(str(graph))
    graph.write_bytes(b"no graph")
    with pytest.raises(AtlasError, match=r"0 \.pbtxt files beside it"):
        load_ssd(str(graph))
    if importlib.util.find_spec("cv2") is None:
        pytest.skip("needs OpenCV of the extra 'photos'")
    (tmp_path / "net.pbtxt").write_text("no text")
    with pytest.raises(AtlasError, match=r"OpenCV cannot read it"):
        load_ssd(str(graph))
