"""The colours of feathers, beaks, legs and eyes, different enough to be distinguished in shade."""

from __future__ import annotations

from collections.abc import Iterable

from attention_atlas.synthetic.mesh import Color

COLORS: dict[str, Color] = {
    "white": (0.97, 0.97, 0.95),
    "black": (0.07, 0.07, 0.08),
    "gray": (0.50, 0.51, 0.53),
    "brown": (0.44, 0.25, 0.10),
    "red": (0.82, 0.07, 0.08),
    "orange": (1.00, 0.50, 0.04),
    "yellow": (1.00, 0.90, 0.15),
    "green": (0.12, 0.55, 0.20),
    "blue": (0.12, 0.30, 0.85),
    "pink": (1.00, 0.58, 0.74),
}
FEATHERS = tuple(COLORS)
BEAKS = ("black", "gray", "orange", "yellow", "red", "brown")
LEGS = ("black", "gray", "orange", "yellow", "pink", "brown")
EYES = ("black", "black", "black", "red", "yellow")


def color_of(attributes: Iterable[str]) -> str:
    """The colour in the attributes of a part, "" if none."""
    return next((word for word in attributes if word in COLORS), "")
