"""A description of everything on a table, from left to right or from front to back."""

from __future__ import annotations

import numpy as np

from attention_atlas.data.corpus import Example
from attention_atlas.synthetic.tabletop.looks import ATTRIBUTES
from attention_atlas.synthetic.tabletop.table import Table
from attention_atlas.synthetic.tabletop.telling import NUMBERS, SIDE_WORDS, Telling, a, article

FIRST = {"right": "On the left", "behind": "In front"}


def describe(image_id: str, table: Table, rng: np.random.Generator) -> Example:
    """One sentence that counts the shapes, then one for each shape with all its attributes."""
    out = Telling()
    many = len(table.items)
    number = NUMBERS[many].capitalize()
    out.name([i.id for i in table.items], f"{number} objects" if many > 1 else f"{number} object")
    out.say(f"{'are' if many > 1 else 'is'} on {article(table.kind)} {table.kind} table.")
    relation = str(rng.choice(list(FIRST)))
    items = sorted(table.items, key=lambda i: i.side if relation == "right" else i.depth)
    for place, item in enumerate(items):
        words = {kind: getattr(item, kind) for kind in ATTRIBUTES}
        if place == 0:
            out.say(f"{FIRST[relation]} is")
            out.name([item.id], a(words))
        else:
            relation_words = out.say(SIDE_WORDS[relation][0].capitalize())
            landmark = out.name([items[place - 1].id], "it")
            out.phrases[-1].kind = "pronoun"
            out.say("is")
            out.relate(relation, out.name([item.id], a(words)), relation_words, landmark)
        out.say(".", glue="")
    return Example(image_id, image_id, out.text, out.phrases, out.relations)
