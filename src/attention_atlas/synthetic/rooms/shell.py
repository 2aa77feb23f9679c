"""Walls, floor and ceiling of a room, seen from inside only."""

from __future__ import annotations

import numpy as np

from attention_atlas.synthetic.mesh import Color, Material, Part, moved, panel, turned
from attention_atlas.synthetic.rooms.categories import Category
from attention_atlas.synthetic.rooms.kinds import COLORS
from attention_atlas.synthetic.rooms.looks import jittered
from attention_atlas.synthetic.rooms.plan import Placed, Vector

FRONT = -2.5  # front end of the shell, behind the viewer, so that no image shows its edge

# name: (colour word, pattern word, material word, texture, tile in metres)
FLOORS: dict[str, tuple[str, str, str, str, float]] = {
    "planks": ("brown", "", "wooden", "planks", 0.7),
    "dark_planks": ("brown", "", "wooden", "planks", 0.7),
    "tiles": ("", "", "tiled", "tiled", 0.9),
    "checker": ("", "checkered", "tiled", "checkered", 0.9),
    "carpet": ("", "", "carpeted", "carpet", 0.8),
}
CARPETS = ("gray", "beige", "red", "blue", "green", "brown")
TILES = ("white", "gray", "beige", "blue")
PAPER = ("blue", "green", "red", "yellow", "purple", "beige")
WALLPAPERS = {"striped": 0.5, "floral": 0.5, "dotted": 0.4}  # pattern: tile in metres


def _pale(color: Color, share: float) -> Color:
    r, g, b = (c + (1 - c) * share for c in color)
    return (r, g, b)


def _floor(style: str, rng: np.random.Generator) -> tuple[Material, str, str, str]:
    word, pattern, material, texture, scale = FLOORS[style]
    seed = int(rng.integers(8))
    second: Color = (0.6, 0.58, 0.55)
    if style in ("planks", "dark_planks"):
        rgb: Color = (0.66, 0.46, 0.28) if style == "planks" else (0.36, 0.22, 0.13)
    elif style == "carpet":
        word = str(rng.choice(CARPETS))
        rgb = _pale(COLORS[word], 0.0 if word in ("brown", "red") else 0.1)
    elif style == "tiles":
        word = str(rng.choice(TILES))
        rgb = _pale(COLORS[word], 0.3)
    else:
        word = str(rng.choice(["black", "red", "green", "blue"]))
        rgb, second = COLORS[word], COLORS["white"]
    look = Material(jittered(rgb, rng), second, texture, scale, 0.15 if material == "tiled" else 0.0, seed)
    return look, word, pattern, material


def _wall(style: str, rng: np.random.Generator) -> tuple[Material, str, str, str]:
    if style in WALLPAPERS:
        word = str(rng.choice(PAPER))
        rgb = _pale(COLORS[word], 0.35)
        return Material(jittered(rgb, rng), (0.95, 0.94, 0.9), style, WALLPAPERS[style]), word, style, ""
    if style == "brick":
        return Material((0.66, 0.33, 0.25), (0.8, 0.77, 0.72), "brick", 0.8), "red", "", "brick"
    if style == "tiled":
        word = str(rng.choice(["white", "blue", "green", "pink"]))
        look = Material(jittered(_pale(COLORS[word], 0.45), rng), (0.97, 0.97, 0.97), "tiled", 0.5, 0.2)
        if word == "white":
            look = Material(look.color, (0.6, 0.62, 0.64), "tiled", 0.5, 0.2)
        return look, word, "", "tiled"
    share = {"white": -0.06, "gray": 0.25, "beige": 0.2, "brown": 0.2}.get(style, 0.4)
    return Material(jittered(_pale(COLORS[style], share), rng)), style, "", ""


def build_shell(
    category: Category, size: Vector, rng: np.random.Generator
) -> list[tuple[Placed, list[Part]]]:
    """The five inner surfaces, ids 0..4: floor, ceiling, back, left and right wall."""
    width, depth, height = size
    long, middle = depth - FRONT, (depth + FRONT) / 2
    floor_look, *floor_words = _floor(str(rng.choice(category.floors)), rng)
    style = str(rng.choice(category.walls))
    wall_look, *wall_words = _wall(style, rng)
    back_look, *back_words = wall_look, *wall_words
    if rng.random() < 0.2:  # one wall in another colour
        back_look, *back_words = _wall(str(rng.choice(category.walls)), rng)
    top_look = Material(_pale(jittered(COLORS["white"], rng), 0.3), glow=0.35)
    surfaces = [
        ("floor", (0, middle, 0), (width, long, 0), "", floor_look, floor_words),
        ("ceiling", (0, middle, height), (width, long, 0), "", top_look, ["white", "", ""]),
        ("wall", (0, depth, height / 2), (width, 0, height), "back", back_look, back_words),
        ("wall", (-width / 2, middle, height / 2), (0, long, height), "left", wall_look, wall_words),
        ("wall", (width / 2, middle, height / 2), (0, long, height), "right", wall_look, wall_words),
    ]
    shell = []
    for number, (label, center, extent, wall, look, words) in enumerate(surfaces):
        color, pattern, material = words
        placed = Placed(
            number, label, center, extent, color=color, material=material, pattern=pattern, wall=wall
        )
        shell.append((placed, [_surface(placed, look)]))
    return shell


def _surface(placed: Placed, look: Material) -> Part:
    width, depth, height = placed.size
    if placed.label in ("floor", "ceiling"):
        part = turned(panel(width, depth, (0, 0, 0), look), -90 if placed.label == "floor" else 90, "x")
    elif placed.wall == "back":
        part = panel(width, height, (0, 0, 0), look)
    else:
        part = turned(panel(depth, height, (0, 0, 0), look), 90 if placed.wall == "left" else -90)
    return moved(part, placed.center)
