"""`plans.jsonl`: the plan of every room, so that later text layers need no sampling."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError
from attention_atlas.files import read_jsonl
from attention_atlas.synthetic.rooms.plan import Camera, Placed, Plan, Vector


def plan_row(image_id: str, plan: Plan) -> dict[str, Any]:
    """One row of plans.jsonl: the fields of Plan, and the image id."""
    return {"image_id": image_id, **dataclasses.asdict(plan)}


def read_plans(path: str | Path) -> dict[str, Plan]:
    """Plans by image id, in file order. Raises AtlasError for a missing file, a duplicated id, a bad row."""
    plans: dict[str, Plan] = {}
    for line, row in read_jsonl(path, may_be_empty=True):
        where = f"{path}: line {line}"
        try:
            image_id, plan = row["image_id"], _plan(row)
        except (KeyError, TypeError, ValueError) as error:
            raise AtlasError(f"{where}: not the plan of a room ({error}); render the world again") from None
        if image_id in plans:
            raise AtlasError(f"{where}: image_id: '{image_id}' occurs twice; render the world again")
        plans[image_id] = plan
    return plans


def plans_of(corpus_root: str | Path, image_ids: Iterable[str]) -> dict[str, Plan]:
    """The plans of a world. Raises AtlasError if it lacks one of these images."""
    plans = read_plans(Path(corpus_root) / "plans.jsonl")
    for image_id in image_ids:
        if image_id not in plans:
            raise AtlasError(
                f"{corpus_root}/plans.jsonl: no plan of image '{image_id}'; render the world again"
            )
    return plans


def _plan(row: dict[str, Any]) -> Plan:
    camera = row["camera"]
    return Plan(
        category=row["category"],
        size=_vector(row["size"]),
        camera=Camera(_vector(camera["eye"]), _vector(camera["target"]), float(camera["angle"])),
        objects=[
            Placed(**{**o, "center": _vector(o["center"]), "size": _vector(o["size"])})
            for o in row["objects"]
        ],
    )


def _vector(values: list[float]) -> Vector:
    x, y, z = values
    return (x, y, z)
