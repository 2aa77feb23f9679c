"""Random sampling of a room: its plan, and the triangles and lights to render it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attention_atlas.synthetic.render import View
from attention_atlas.synthetic.rooms.categories import CATEGORIES
from attention_atlas.synthetic.rooms.layout import Layout
from attention_atlas.synthetic.rooms.plan import Plan
from attention_atlas.synthetic.rooms.shell import build_shell
from attention_atlas.synthetic.rooms.view import choose_camera, choose_lights
from attention_atlas.synthetic.rooms.ways import furnish


@dataclass(frozen=True)
class Room:
    plan: Plan
    view: View


def sample_room(rng: np.random.Generator) -> Room:
    """Sample a furnished room, deterministically in the generator's state."""
    names = list(CATEGORIES)
    weights = np.array([CATEGORIES[n].weight for n in names])
    category = CATEGORIES[str(rng.choice(names, p=weights / weights.sum()))]
    size = (
        round(float(rng.uniform(3.8, 5.2)), 3),
        round(float(rng.uniform(3.6, 4.8)), 3),
        round(float(rng.uniform(2.5, 2.8)), 3),
    )
    camera = choose_camera(size, rng)
    lights, ambient = choose_lights(size, rng)
    shell = build_shell(category, size, rng)
    layout = Layout(category, size, camera, rng, first_id=len(shell))
    for step in category.steps:
        furnish(layout, step)
    layout.settle()
    objects = [placed for placed, _ in shell] + [t.placed for t in layout.things]
    solids = [(placed.id, parts) for placed, parts in shell]
    solids += [(t.placed.id, t.parts) for t in layout.things]
    view = View(solids, camera.eye, camera.target, camera.angle, lights, ambient)
    return Room(Plan(category.name, size, camera, objects), view)
