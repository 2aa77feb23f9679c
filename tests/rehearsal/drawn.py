"""Images of a few coloured things, and what people might say about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (210, 40, 40),
    "blue": (40, 70, 210),
    "green": (30, 150, 60),
    "yellow": (230, 210, 40),
    "black": (20, 20, 20),
    "white": (245, 245, 245),
}
# Names of things with COCO's super-category; a thing of a name has always the same form.
KINDS = {
    "person": "person",
    "dog": "animal",
    "cat": "animal",
    "car": "vehicle",
    "bus": "vehicle",
    "chair": "furniture",
    "couch": "furniture",
    "cup": "kitchen",
    "bowl": "kitchen",
    "clock": "indoor",
    "book": "indoor",
    "laptop": "electronic",
}
SIZE = (96, 80)
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Thing:
    """`box`: x1, y1, x2, y2 in pixels."""

    name: str
    colour: str
    box: Box

    @property
    def noun_phrase(self) -> str:
        return f"the {self.colour} {self.name}"

    @property
    def new(self) -> str:
        return f"a {self.colour} {self.name}"


def things(rng: np.random.Generator, count: int = 3, names: tuple[str, ...] = tuple(KINDS)) -> list[Thing]:
    """From left to right, all of other names."""
    chosen = rng.choice(len(names), count, replace=False)
    wide, high = SIZE[0] // count, SIZE[1]
    found = []
    for k, number in enumerate(chosen.tolist()):
        side = int(rng.integers(wide // 2, wide - 2))
        x, y = k * wide + int(rng.integers(wide - side)), int(rng.integers(high - side))
        colour = list(COLOURS)[int(rng.integers(len(COLOURS)))]
        found.append(Thing(names[number], colour, (x, y, x + side, y + side)))
    return found


def draw(path: Path, shown: list[Thing], text: str = "", size: tuple[int, int] = SIZE) -> None:
    """A grey image with the things on it; `text` stands at its lower left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (150, 150, 150))
    pen = ImageDraw.Draw(image)
    for thing in shown:
        fill, number = COLOURS[thing.colour], list(KINDS).index(thing.name) if thing.name in KINDS else 0
        form = (pen.rectangle, pen.ellipse, pen.rounded_rectangle)[number % 3]
        form(thing.box, fill=fill, outline=(0, 0, 0))
        x1, y1, x2, y2 = thing.box
        for k in range(number // 3):  # stripes tell things of one form apart
            y = y1 + (k + 1) * (y2 - y1) // 5
            pen.line((x1, y, x2, y), fill=(90, 90, 90), width=1)
    if text:
        pen.text((4, size[1] - 14), text, fill=(255, 255, 255))
    image.save(path)


def captions(shown: list[Thing], count: int = 5) -> list[str]:
    """One-sentence captions with compounds, numbers, verbs and prepositions."""
    a, b, c = (shown * 3)[:3]
    return [
        f"A {a.colour} {a.name} is standing next to {b.new} on the floor.",
        f"Two people look at {a.new} and {c.new} in a room.",
        f"There is {b.new} to the left of {c.new}.",
        f"A photo of {a.new} with {b.new} behind it on a kitchen table.",
        f"{c.new.capitalize()} sits near {a.new} in front of a brick wall.",
        f"The small {b.name} is {b.colour} and lies under {a.new}.",
        f"A {c.name} that is {c.colour} stands between two walls.",
        f"{a.new.capitalize()} and {b.new} are lying on the street.",
        f"Someone has put {c.new} beside {b.new}.",
        f"The picture shows {a.new}, {b.new} and {c.new}.",
    ][:count]


def paragraph(shown: list[Thing]) -> list[str]:
    """Five sentences about a room, with spatial relations."""
    a, b, c = (shown * 3)[:3]
    return [
        f"This is a small room with {a.new} and {b.new}.",
        f"{a.noun_phrase.capitalize()} is to the left of {b.noun_phrase}.",
        f"There is {c.new} next to {b.noun_phrase}.",
        f"I can see a lamp above {c.noun_phrase} and a rug under {a.noun_phrase}",
        f"{b.noun_phrase.capitalize()} stands in front of a large window.",
    ]
