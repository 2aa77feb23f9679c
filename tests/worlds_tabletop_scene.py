"""A hand-made table, sampled tables without images, and a reader of noun phrases.

from above, the viewer below        id  what                          side   depth
    1                               0   large red metal cube          -0.5   6.0
             3                      1   small blue rubber sphere      -0.7   8.0
      0                             2   small red rubber ring          0.6   5.0
                 2                  3   large blue metal cube          0.3   7.0
"""

import dataclasses
import json
from functools import lru_cache

import numpy as np

from attention_atlas.data.corpus import Scene, SceneObject
from attention_atlas.synthetic.tabletop.describe import describe
from attention_atlas.synthetic.tabletop.layout import lay_table
from attention_atlas.synthetic.tabletop.looks import ATTRIBUTES
from attention_atlas.synthetic.tabletop.table import Item, Table, table_row
from attention_atlas.synthetic.tabletop.telling import NUMBERS, matching

BASIC = {"ball": "sphere", "block": "cube", "big": "large", "little": "small"}
KIND_OF = {word: kind for kind, words in ATTRIBUTES.items() for word in words}

CUBE = Item(0, "large", "red", "metal", "cube", -0.5, 6.0)
SPHERE = Item(1, "small", "blue", "rubber", "sphere", -0.7, 8.0)
RING = Item(2, "small", "red", "rubber", "ring", 0.6, 5.0)
BLUE_CUBE = Item(3, "large", "blue", "metal", "cube", 0.3, 7.0)
TABLE = Table("wooden", (CUBE, SPHERE, RING, BLUE_CUBE))


@lru_cache
def table_of(seed):
    return lay_table(np.random.default_rng(seed)).table


def tables(number, start=0):
    return [table_of(start + i) for i in range(number)]


def understood(phrase, table):
    """The shapes a noun phrase fits, read by its words alone, and the number it says (1 for an article)."""
    words = [w if w in KIND_OF else w.removesuffix("s") for w in phrase.lower().split()]
    words = [BASIC.get(w, w) for w in words]
    number = NUMBERS.index(words[0]) if words[0] in NUMBERS else 1
    return matching(table, {KIND_OF[w]: w for w in words if w in KIND_OF}), number


def write_corpus(root, number, split):
    """A corpus without images: what the annotators read."""
    scenes, texts, rows = [], [], []
    for i, table in enumerate(tables(number, start=0)):
        image_id = f"{split}_{i:05d}"
        objects = [SceneObject(o.id, o.shape, o.attributes, (0, 0, 9, 9), 50) for o in table.items]
        scenes.append(Scene(image_id, f"images/{image_id}.png", 96, 96, split, objects))
        texts.append(describe(image_id, table, np.random.default_rng(i)))
        rows.append(table_row(image_id, table, {}, [[0, 0, 0]] * len(table.items)))
    for stem, content in (("scenes", scenes), ("descriptions", texts)):
        lines = [json.dumps(dataclasses.asdict(c)) + "\n" for c in content]
        (root / f"{stem}.jsonl").write_text("".join(lines))
    (root / "tables.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return {row["image_id"]: table for row, table in zip(rows, tables(number, start=0), strict=True)}
