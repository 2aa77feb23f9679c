"""index.html: the scores as one page without scripts, which needs no server or network."""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attention_atlas.data.images import read_rgb
from attention_atlas.ground.scores import MEASURES
from attention_atlas.measures.places import Places

if TYPE_CHECKING:
    from attention_atlas.ground.result import Grounded, Shown

LONGEST = 320  # pixels of a drawn image
TITLES = {"pointing": "Pointing game", "mass": "Mass in box", "iou": "IoU"}
ROWS = {
    ("best_head", "held_out"): "best head, other images",
    ("mean_of_best", "held_out"): "mean map of the best {}, other images",
    ("best_head", "in_sample"): "best head, same images",
    ("mean_of_best", "in_sample"): "mean map of the best {}, same images",
}
LISTED = 10


def page(found: Grounded) -> str:
    """The text of the page."""
    from jinja2 import Environment

    text = (files("attention_atlas.ground") / "page.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)
    heads = [head_name(*pair) for pair in found.picks["iou"]["mean_of_best"]["in_sample"]["heads"]]
    return template.render(
        style=(files("attention_atlas.look") / "page" / "style.css").read_text(encoding="utf-8"),
        found=found,
        folds=int(found.fold_I.max()) + 1,
        measures=[_measure(found, m, name) for m, name in enumerate(MEASURES)],
        columns=[*heads, f"mean of the {len(heads)}"],
        shown=[_drawn(shown) for shown in found.shown],
    )


def head_name(layer: int, head: int) -> str:
    return f"layer {layer}, head {head}"


def _measure(found: Grounded, m: int, name: str) -> dict[str, Any]:
    """The page's data for one measure."""
    value_C = found.estimates["value"][m]
    low, high = float(value_C.min()), float(value_C.max())
    rows = [row for row in found.rows() if row["measure"] == name]
    in_sample = {tuple(pair) for pair in found.picks[name]["mean_of_best"]["in_sample"]["heads"]}
    held_out = {tuple(heads[0]) for heads in found.picks[name]["best_head"]["held_out"]["heads"]}
    cells = [
        {
            "strength": round((row["value"] - low) / (high - low), 3) if high > low else 0.0,
            "title": f"{head_name(row['layer'], row['head'])}: {_interval(row)}",
            "best": (row["layer"], row["head"]) in in_sample,
            "picked": (row["layer"], row["head"]) in held_out,
        }
        for row in rows
    ]
    count = found.whole_MK.shape[1]
    return {
        "title": TITLES[name],
        "low": f"{low:.3f}",
        "high": f"{high:.3f}",
        "chance": {b: f"{value:.3f}" for b, value in found.chance[name].items()},
        "picks": [
            (label.format(count), _pick(found.picks[name][kind][sample]))
            for (kind, sample), label in ROWS.items()
        ],
        "layers": [
            (layer, cells[n * found.heads : (n + 1) * found.heads]) for n, layer in enumerate(found.layers)
        ],
        "first": [
            row | {"name": head_name(row["layer"], row["head"]), "shown": _interval(row)}
            for row in sorted(rows, key=lambda row: row["rank"])[:LISTED]
        ],
    }


def _pick(pick: dict[str, Any]) -> dict[str, str]:
    out = {"value": _interval(pick)}
    return out | {name: _interval(less, signed=True) for name, less in pick["above"].items()}


def _interval(found: dict[str, Any], signed: bool = False) -> str:
    sign = "+" if signed else ""
    numbers = [f"{found[name]:{sign}.3f}".replace("-", "−") for name in ("value", "ci_low", "ci_high")]
    return "{} [{}, {}]".format(*numbers)


def _drawn(shown: Shown) -> dict[str, Any]:
    example = shown.example
    given = example.image
    image = read_rgb(given) if isinstance(given, str | Path) else given.convert("RGB")
    return {
        "name": example.name,
        "phrase": example.phrase,
        "images": [overlay(image, shown.places, map_T, example.boxes) for map_T in shown.maps_KT],
    }


def overlay(image: Any, places: Places, map_T: np.ndarray, boxes: Any) -> str:
    """A data URI of the image with the map over it, brightest where the attention per pixel is highest, and
    the boxes as frames."""
    from PIL import Image, ImageDraw

    width, height = image.size
    small = image.copy()
    small.thumbnail((LONGEST, LONGEST))
    scale_x, scale_y = small.width / width, small.height / height
    density_YX = places.density(torch.from_numpy(map_T[None])).numpy().reshape(places.shape)
    padded = np.pad(density_YX, ((0, 1), (0, 1)))  # outside the cells there is nothing
    column = np.searchsorted(places.x, (np.arange(small.width) + 0.5) / scale_x, "right") - 1
    row = np.searchsorted(places.y, (np.arange(small.height) + 0.5) / scale_y, "right") - 1
    strength = padded[row][:, column] / max(float(density_YX.max()), 1e-12)
    alpha = 0.85 * np.sqrt(np.clip(strength, 0, 1))[..., None]
    dark = np.asarray(small, dtype=np.float32) * 0.6
    pixels = dark * (1 - alpha) + np.array([255, 217, 0], dtype=np.float32) * alpha
    painted = Image.fromarray(pixels.astype(np.uint8))
    draw = ImageDraw.Draw(painted)
    for left, top, right, bottom in boxes:
        frame = (left * scale_x, top * scale_y, right * scale_x - 1, bottom * scale_y - 1)
        if frame[2] >= frame[0] and frame[3] >= frame[1]:
            draw.rectangle(frame, outline=(64, 196, 255), width=2)
    buffer = io.BytesIO()
    painted.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
