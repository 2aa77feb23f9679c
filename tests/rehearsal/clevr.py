"""CLEVR v1.0: images, scenes, questions with programs, and ResNet features of whole images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from attention_atlas.data.clevr_program import run

from .drawn import COLOURS, KINDS, Thing, draw

ATTRIBUTES = {
    "size": ("large", "small"),
    "color": ("red", "blue", "green", "yellow"),
    "material": ("rubber", "metal"),
    "shape": ("cube", "sphere", "cylinder"),
}
WIDTH, HEIGHT = 480, 320
# Published images of each set; half of val, by number, is the test split of conf/data/clevr.yaml.
NUMBERS = {"train": range(24), "val": [*range(12), *range(7500, 7514)]}
COUNTS = {"train": 70_000, "val": 15_000}
STEP = dict[str, Any]


def write_clevr(folder: Path, features: Path) -> None:
    """`features`: the folder of {train,val}_features.h5, as clevr-iep's extract_features.py writes them."""
    rng = np.random.default_rng(6)
    for part, numbers in NUMBERS.items():
        scenes, questions = [], []
        for number in numbers:
            scene = _scene(part, number, rng)
            scenes.append(scene)
            _draw(folder / "images" / part / scene["image_filename"], scene["objects"])
            questions += _questions(scene, len(questions), rng)
        for kind, rows in (("scenes", scenes), ("questions", questions)):
            path = folder / kind / f"CLEVR_{part}_{kind}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"info": {"split": part}, kind: rows}))
        # The published shape; rows that nobody wrote take no room.
        with h5py.File(features / f"{part}_features.h5", "w") as file:
            shape = (COUNTS[part], 1024, 14, 14)
            rows = file.create_dataset("features", shape, "float32", chunks=(1, *shape[1:]))
            for scene in scenes:
                rows[scene["image_index"]] = _grid(scene["objects"], rng)


def _scene(part: str, number: int, rng: np.random.Generator) -> dict[str, Any]:
    objects: list[dict[str, Any]] = []
    for k in range(int(rng.integers(3, 6))):
        x, y = 60 + 80 * k + int(rng.integers(-15, 15)), int(rng.integers(120, 260))
        chosen = {name: values[int(rng.integers(len(values)))] for name, values in ATTRIBUTES.items()}
        objects.append(
            {**chosen, "pixel_coords": [x, y, 10.0], "3d_coords": [x / 100, y / 100, 0.35], "rotation": 0}
        )
    order = range(len(objects))
    y = [o["pixel_coords"][1] for o in objects]
    relations = {
        "left": [[j for j in order if j < i] for i in order],
        "right": [[j for j in order if j > i] for i in order],
        "front": [[j for j in order if y[j] > y[i]] for i in order],
        "behind": [[j for j in order if y[j] < y[i]] for i in order],
    }
    file = f"CLEVR_{part}_{number:06d}.png"
    about = {"split": part, "image_index": number, "image_filename": file}
    return {**about, "objects": objects, "relationships": relations}


def _draw(path: Path, objects: list[dict[str, Any]]) -> None:
    shapes = dict(zip(ATTRIBUTES["shape"], KINDS))
    shown = []
    for o in objects:
        x, y, half = *o["pixel_coords"][:2], 36 if o["size"] == "large" else 18
        shown.append(Thing(shapes[o["shape"]], o["color"], (x - half, y - half, x + half, y + half)))
    draw(path, shown, size=(WIDTH, HEIGHT))


def _grid(objects: list[dict[str, Any]], rng: np.random.Generator) -> np.ndarray:
    grid = np.maximum(rng.normal(0, 0.1, (1024, 14, 14)), 0).astype("float32")
    for o in objects:
        x, y = (int(v * 14 / size) for v, size in zip(o["pixel_coords"], (WIDTH, HEIGHT)))
        grid[list(COLOURS).index(o["color"]), y, x] = 3
        grid[10 + ATTRIBUTES["shape"].index(o["shape"]), y, x] = 3
    return grid


def _step(function: str, *inputs: int, value: str = "") -> STEP:
    return {"function": function, "inputs": list(inputs), "value_inputs": [value] if value else []}


def _questions(scene: dict[str, Any], first: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """One of each of the paper's five types."""
    objects = scene["objects"]
    colour, other = (ATTRIBUTES["color"][int(rng.integers(4))] for _ in range(2))
    shape = ATTRIBUTES["shape"][int(rng.integers(3))]
    filtered = [_step("scene"), _step("filter_color", 0, value=colour)]
    programs = [
        (f"Is there a {colour} thing?", [*filtered, _step("exist", 1)]),
        (
            f"How many {shape}s are there?",
            [_step("scene"), _step("filter_shape", 0, value=shape), _step("count", 1)],
        ),
        (
            f"Are there more {colour} things than {other} things?",
            [
                *filtered,
                _step("count", 1),
                _step("scene"),
                _step("filter_color", 3, value=other),
                _step("count", 4),
                _step("greater_than", 2, 5),
            ],
        ),
    ]
    alone = next((o for o in objects if _same(objects, o) == 1), None)
    if alone is not None:
        one = [_step("scene"), _step("filter_color", 0, value=alone["color"])]
        one += [_step("filter_shape", 1, value=alone["shape"]), _step("unique", 2)]
        name = f"the {alone['color']} {alone['shape']}"
        programs.append((f"What size is {name}?", [*one, _step("query_size", 3)]))
        twice = [{**step, "inputs": [i + 5 for i in step["inputs"]]} for step in one]
        compared = [*one, _step("query_material", 3), *twice, _step("query_material", 8)]
        programs.append(
            (f"Is {name} made of the same stuff as {name}?", [*compared, _step("equal_material", 4, 9)])
        )
    rows = []
    for k, (text, program) in enumerate(programs):
        answer, _ = run(program, objects, scene["relationships"])
        row = {name: scene[name] for name in ("image_index", "image_filename", "split")}
        rows.append({**row, "question_index": first + k, "question_family_index": k, "question": text})
        rows[-1] |= {"answer": answer, "program": program}
    return rows


def _same(objects: list[dict[str, Any]], one: dict[str, Any]) -> int:
    return sum((o["color"], o["shape"]) == (one["color"], one["shape"]) for o in objects)
