"""The annotation of a scene for the texts: every shape with its attributes and position.

`tables.jsonl` holds the positions; `scenes.jsonl` holds the attributes, boxes and hidden fractions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attention_atlas.data.corpus import Scene, read_corpus
from attention_atlas.errors import AtlasError
from attention_atlas.files import read_jsonl
from attention_atlas.synthetic.tabletop.looks import ATTRIBUTES

# Relation -> its inverse. Left, right, front and behind are the viewer's.
OPPOSITE = {"left": "right", "right": "left", "front": "behind", "behind": "front"}
RELATIONS = tuple(OPPOSITE)


@dataclass(frozen=True)
class Item:
    """One shape. `side`: horizontal position of its centre in the image, -1 (left edge) to 1; `depth`:
    distance of its foot from the viewer along the line of sight, in metres."""

    id: int
    size: str
    color: str
    material: str
    shape: str
    side: float
    depth: float

    @property
    def attributes(self) -> list[str]:
        """Size, colour, material; the shape is the label."""
        return [self.size, self.color, self.material]


@dataclass(frozen=True)
class Table:
    """The shapes of one scene, and what they stand on (wooden, white, black, beige)."""

    kind: str
    items: tuple[Item, ...]

    def item(self, item_id: int) -> Item:
        return next(i for i in self.items if i.id == item_id)

    def related(self, landmark: Item, relation: str) -> list[Item]:
        """The shapes in this relation to the landmark; front: nearer to the viewer."""
        return [i for i in self.items if i.id != landmark.id and holds(i, relation, landmark)]


def holds(target: Item, relation: str, landmark: Item) -> bool:
    """Whether the target is in this relation to the landmark, as seen by the viewer."""
    if relation == "left":
        return target.side < landmark.side
    if relation == "right":
        return target.side > landmark.side
    if relation == "front":
        return target.depth < landmark.depth
    if relation == "behind":
        return target.depth > landmark.depth
    raise AtlasError(f"tabletop: relation: '{relation}' is not one of {', '.join(RELATIONS)}")


def table_row(image_id: str, table: Table, camera: dict[str, Any], centers: list[Any]) -> dict[str, Any]:
    """One row of tables.jsonl; `centers` (x, y, z) in metres, in the order of the items."""
    objects = [
        {"id": i.id, "side": i.side, "depth": i.depth, "center": center}
        for i, center in zip(table.items, centers, strict=True)
    ]
    return {"image_id": image_id, "table": table.kind, "camera": camera, "objects": objects}


def read_tables(root: str | Path) -> dict[str, tuple[Scene, Table]]:
    """Scenes with their tables by image id, in file order.

    Raises AtlasError for a missing or bad row, a position without an object or vice versa.
    """
    file = Path(root) / "tables.jsonl"
    scenes = read_corpus(root).scenes
    tables: dict[str, tuple[Scene, Table]] = {}
    for line, row in read_jsonl(file):
        where = f"{file}: line {line}"
        try:
            scene, places = scenes[row["image_id"]], {o["id"]: o for o in row["objects"]}
            items = tuple(_item(o, places[o.id]) for o in scene.objects)
            kind = str(row["table"])
        except (KeyError, TypeError, ValueError) as error:
            raise AtlasError(
                f"{where}: not the places of a scene's objects ({error}); render the world again"
            ) from None
        if len(places) != len(items) or row["image_id"] in tables:
            raise AtlasError(f"{where}: objects: not one place for each object; render the world again")
        tables[row["image_id"]] = (scene, Table(kind, items))
    lacking = sorted(set(scenes) - set(tables))
    if lacking:
        raise AtlasError(f"{file}: image_id: no row for '{lacking[0]}'; render the world again")
    return tables


def _item(seen: Any, place: dict[str, Any]) -> Item:
    size, color, material = seen.attributes
    for word, kind in zip((size, color, material, seen.label), ATTRIBUTES, strict=True):
        if word not in ATTRIBUTES[kind]:
            raise ValueError(f"'{word}' is no {kind}")
    return Item(seen.id, size, color, material, seen.label, float(place["side"]), float(place["depth"]))
