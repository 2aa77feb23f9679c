"""Layout and valid values of `features.h5`, shared by its writer and its reader.

Axes: I images, N regions per image (padded), D feature dimensions. See docs/features.md. Padded regions
(index >= count) contain zeros, and -1 for every index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError

SCHEMA = "atlas.features/1"

# name -> (dtype, trailing shape in letters, value of padded regions)
PER_REGION: dict[str, tuple[str, str, int]] = {
    "boxes": ("float32", "N4", 0),
    "label": ("int32", "N", -1),
    "label_confidence": ("float16", "N", 0),
    "attribute": ("int32", "N", -1),
    "attribute_confidence": ("float16", "N", 0),
    "gold": ("int32", "N", -1),
}


def check_arrays(
    arrays: dict[str, np.ndarray], image_ids: Sequence[str], labels: int, attributes: int, path: str
) -> None:
    """Raise AtlasError for the first image with invalid values. Arrays have a leading I axis."""
    count_I = arrays["count"]
    regions = next(a.shape[1] for name, a in arrays.items() if name != "count")
    real_IN = np.arange(regions)[None, :] < count_I[:, None]

    def refuse(bad_I: Any, name: str, message: str) -> None:
        if bad_I.any():
            raise AtlasError(f"{path}: image '{image_ids[int(np.argmax(bad_I))]}': {name}: {message}")

    again = "run the features stage again"
    refuse(count_I < 1, "count", "has 0 objects; remove the image or lower the detector's threshold")
    refuse(count_I > regions, "count", f"exceeds the {regions} regions of the file; {again}")
    if "features" in arrays:
        # A sum is NaN or infinite if any entry is: one pass, no boolean copy of the features.
        total_I = arrays["features"].sum(axis=(1, 2), dtype="float32")
        refuse(~np.isfinite(total_I), "features", f"not finite (NaN or overflow of float16); {again}")
    if "boxes" in arrays:
        boxes = arrays["boxes"]
        refuse(~np.isfinite(boxes).all(axis=(1, 2)), "boxes", f"not finite; {again}")
        flat_IN = (boxes[..., 2] <= boxes[..., 0]) | (boxes[..., 3] <= boxes[..., 1])
        refuse((flat_IN & real_IN).any(1), "boxes", f"a box has no area (expected x1<x2, y1<y2); {again}")
    if "label" in arrays:
        label = arrays["label"]
        low = 0 if labels else -1  # without label names every label is -1
        bad_IN = ((label < low) | (label >= labels)) & real_IN
        refuse(bad_IN.any(1), "label", f"index outside the file's {labels} labels; {again}")
    if "attribute" in arrays:
        bad_IN = ((arrays["attribute"] < -1) | (arrays["attribute"] >= attributes)) & real_IN
        refuse(bad_IN.any(1), "attribute", f"index outside the file's {attributes} attributes; {again}")
    for name in ("label_confidence", "attribute_confidence"):
        if name in arrays:
            inside_IN = (arrays[name] >= 0) & (arrays[name] <= 1)  # also excludes NaN
            refuse((~inside_IN & real_IN).any(1), name, f"not within 0..1; {again}")
