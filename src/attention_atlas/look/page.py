"""index.html of a look: one page with its images and numbers inside, which needs no server or network.

Numbers are embedded as deflated base64. Maps are one byte per word, layer, head and image token: share =
scale · (byte / 255)², with one scale per word, layer and head; the root spreads out small shares. Sinks are
floats beside them, because one sink would take the whole scale.

Axes: M kept layer, H head, W word, S position, T token of an image, N image sinks.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from attention_atlas.look.result import Look

LONGEST = 1200  # pixels of an embedded image


def page(look: Look) -> str:
    """The text of the page."""
    folder = files("attention_atlas.look") / "page"
    text = (folder / "page.html").read_text(encoding="utf-8")
    for name in ("style.css", "data.js", "paint.js", "page.js"):
        text = text.replace(f"%%{name}%%", (folder / name).read_text(encoding="utf-8"))
    data = json.dumps(payload(look), ensure_ascii=False, separators=(",", ":"))
    # "</script>" in a prompt would end the element.
    return text.replace("%%data%%", data.replace("</", "<\\/").replace("<!--", "<\\u0021--"))


def payload(look: Look) -> dict[str, Any]:
    """The data for the page's script."""
    image_T = look.image_T
    sink_N = np.flatnonzero(np.isin(image_T, look.sinks))
    rows = look.word_values["rows"]
    maps = {"raw": _map(rows, look, sink_N)}
    if "norm_rows" in look.word_values:
        norm = look.word_values["norm_rows"]
        maps["norm"] = _map(norm / norm.sum(-1, keepdims=True), look, sink_N)
    if "rollout" in look.word_values:
        rollout_WMT = look.word_values["rollout"].transpose(1, 0, 2)[:, :, None]
        maps["rollout"] = _quantised(rollout_WMT, sink_N)
    is_image_S1 = (np.array(look.key_roles) == "image")[:, None]
    at_M = [look.layers.index(layer) for layer in look.kept]
    entropy_WMH = look.statistics["entropy"][at_M].transpose(2, 0, 1)
    chance = {
        name: look.uniform(is_image_S1, without)[at_M, :, 0].T
        for name, without in (("all", ()), ("rest", look.sinks))
    }
    return {
        "model": look.model,
        "prompt": look.prompt,
        "answer": look.answer,
        "generated": look.generated,
        "notes": look.notes,
        "vision": look.is_vision,
        "words": [{"text": w.text, "part": w.part, "space": w.space, "image": w.image} for w in look.words],
        "things": [{"name": t.name, "image": t.image, "box": list(t.box)} for t in look.things],
        "predicted_by": look.predicted_by,
        "layers": look.kept,
        "depth": len(look.layers),
        "heads": int(rows.shape[1]),
        "tokens": len(image_T),
        "boxes": [
            None if np.isnan(box).any() else np.round(box, 2).tolist() for box in look.boxes_S4[image_T]
        ],
        "image": look.image_S[image_T].tolist(),
        "sinks": sink_N.tolist(),
        "sink_tokens": _sink_tokens(look),
        "images": [_image(p.name, p.pixels) for p in look.images],
        "maps": maps,
        "entropy": packed(entropy_WMH),
        "chance": {name: packed(value) for name, value in chance.items()},
    }


def _sink_tokens(look: Look) -> list[str]:
    """Sinks outside the images; each image of a vision model has its own class token."""
    found = [s for s in look.sinks if look.key_roles[s] != "image"]
    if look.is_vision:
        return list(dict.fromkeys(f"{look.tokens[s]} token" for s in found))
    return [f"{look.key_tokens[s]} ({look.key_roles[s]})" for s in found]


def _map(rows_MHWS: np.ndarray, look: Look, sink_N: np.ndarray) -> dict[str, Any]:
    """One measure by head: its bytes, and the shares of the image and of all sinks in the row."""
    rows_WMHS = rows_MHWS.transpose(2, 0, 1, 3)
    out = _quantised(rows_WMHS[..., look.image_T], sink_N)
    out["share"] = packed(rows_WMHS[..., look.image_T].sum(-1))
    out["sunk"] = packed(rows_WMHS[..., look.sinks].sum(-1))
    return out


def _quantised(values_WMHT: np.ndarray, sink_N: np.ndarray) -> dict[str, Any]:
    sinks = values_WMHT[..., sink_N]
    values = values_WMHT.copy()
    values[..., sink_N] = 0
    scale = values.max(-1)
    safe = np.where(scale > 0, scale, 1)[..., None]
    return {
        "bytes": packed(np.rint(255 * np.sqrt(values / safe)).astype(np.uint8)),
        "scale": packed(scale),
        "sinks": packed(sinks),
        "top": packed(values_WMHT.max(-1)),
    }


def packed(values: np.ndarray) -> str:
    """Deflated bytes in base64, of uint8 or little-endian float32, last axis fastest."""
    kind = np.uint8 if values.dtype == np.uint8 else np.dtype("<f4")
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values, kind).tobytes(), 6)).decode()


def _image(name: str, pixels: Any) -> dict[str, Any]:
    small = pixels.copy()
    small.thumbnail((LONGEST, LONGEST))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=90)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"name": name, "width": pixels.width, "height": pixels.height, "source": source}
