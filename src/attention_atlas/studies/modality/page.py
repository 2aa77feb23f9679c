"""A page of head views that needs no network: choose caption, model and head; hover a word to see its lines.

Each head is drawn as in "How Vision Affects Language", Figure 6: generated words (target) on the left, what
they attend to (source) on the right, a line's opacity is the attention.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.data.images import image_to_base64
from attention_atlas.files import write_text
from attention_atlas.measures.entropy import row_entropy
from attention_atlas.studies.modality.page_template import PAGE

START = "START"
LONGEST = 640  # pixels: larger images are scaled down for the page


def write_page(path: str | Path, content: Mapping[str, Any]) -> None:
    """content: the content of the examples file (examples.py). Raises AtlasError for a missing image."""
    import jinja2

    captions = []
    for caption in content["captions"]:
        models = {name: np.asarray(values) for name, values in caption["models"].items()}
        captions.append(
            {
                "words": caption["words"],
                "chosen": caption["chosen"],
                "image": image(caption["image"]),
                "models": {
                    name: {
                        "attention": np.round(a, 3).tolist(),
                        "entropy": np.round(dispersion(a), 3).tolist(),
                    }
                    for name, a in models.items()
                },
            }
        )
    # Inside a script element, only "</" could close it early.
    data = json.dumps({"models": content["models"], "captions": captions}, separators=(",", ":")).replace(
        "</", "<\\/"
    )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    write_text(path, environment.from_string(PAGE).render(data=data))


def image(path: str) -> str:
    """A data URI. Re-encoded, as browsers cannot show every format of a corpus (TIFF, 16-bit samples)."""
    return f"data:image/png;base64,{image_to_base64(path, LONGEST)}"


def dispersion(attn_LHTS: np.ndarray) -> np.ndarray:
    """(L,H) mean normalised entropy of one caption's rows without START, over rows that see two words or
    more.

    The metric `entropy` with `bos: drop, normaliser: visible` for a single caption; NaN becomes 0.
    """
    rows = attn_LHTS.shape[2]
    counted_TS = np.tri(rows, attn_LHTS.shape[3], dtype=bool)
    counted_TS[:, 0] = False
    kept = np.flatnonzero(counted_TS.sum(1) > 1)
    if not len(kept):
        return np.zeros(attn_LHTS.shape[:2])
    masked = (attn_LHTS * counted_TS)[:, :, kept]
    entropy_LHT, seen_LHT = row_entropy(masked)
    share_LHT = entropy_LHT / np.log(counted_TS[kept].sum(1))
    return (share_LHT * seen_LHT).sum(-1) / np.maximum(seen_LHT.sum(-1), 1)
