"""The patches of an image that show an object, by its box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from attention_atlas.data.corpus import Scene, SceneObject

HALF = 0.5
SHELL = ("wall", "floor", "ceiling")
SIDES = ("left", "middle", "right")
MIDDLE = 0.12  # fraction of the width to either side of the centre that people call the middle


def coverage(boxes: Sequence[Sequence[float]], size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """(N, rows, columns): fraction of each patch inside each box (pixels x1,y1,x2,y2, exclusive).

    size: width, height of the image that the boxes refer to. Patches divide the image evenly, so the
    boxes also hold for a resized image.
    """
    rows, columns = shape
    box_N4 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)

    def along(low_N: np.ndarray, high_N: np.ndarray, length: int, cells: int) -> np.ndarray:
        edges = np.linspace(0, length, cells + 1)
        inside = np.minimum(high_N[:, None], edges[1:]) - np.maximum(low_N[:, None], edges[:-1])
        return np.clip(inside, 0, None) / (length / cells)

    across = along(box_N4[:, 0], box_N4[:, 2], size[0], columns)
    down = along(box_N4[:, 1], box_N4[:, 3], size[1], rows)
    return down[:, :, None] * across[:, None, :]


def patches_of(boxes: Sequence[Sequence[float]], size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """(rows · columns,) bool: patches at least half inside a box; for a box without any, its best patch."""
    out = np.zeros(shape, dtype=bool)
    for share in coverage(boxes, size, shape):
        chosen = share >= HALF
        if not chosen.any() and share.max() > 0:
            chosen = share >= share.max() - 1e-9
        out |= chosen
    return out.ravel()


def shown_on_patches(scene: Scene, shape: tuple[int, int], words: Mapping[str, int]) -> np.ndarray:
    """(rows · columns, W) 0/1: the words true of a patch: labels and attributes of the objects it shows, and
    its position (left, middle or right).

    A patch shows an object if the object's box covers a quarter of it (walls, floor and ceiling: half), or if
    it contains half of the box. Boxes include objects in front.
    """
    out = np.zeros((shape[0] * shape[1], len(words)), dtype=np.float32)
    for patch in range(len(out)):
        aside = (patch % shape[1] + 0.5) / shape[1] - 0.5
        side = SIDES[int(aside > -MIDDLE) + int(aside > MIDDLE)]
        if side in words:
            out[patch, words[side]] = 1
    if not scene.objects:
        return out
    covered = coverage([o.box for o in scene.objects], (scene.width, scene.height), shape)
    for item, share in zip(scene.objects, covered.reshape(len(scene.objects), -1)):
        least = HALF if item.label in SHELL else HALF / 2
        seen = (share >= least) | (share >= HALF * share.sum())
        for word in (item.label, *item.attributes):
            if word in words:
                out[seen & (share > 0), words[word]] = 1
    return out


def asked_objects(example_phrases: Sequence[Sequence[int]], scene: Scene) -> list[SceneObject]:
    """The visible objects that a question's phrases refer to, in the scene's order."""
    wanted = {i for objects in example_phrases for i in objects}
    return [o for o in scene.objects if o.id in wanted]
