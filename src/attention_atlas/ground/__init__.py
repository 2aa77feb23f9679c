"""Which attention heads of a vision-language model find the things that a phrase names?

    from attention_atlas.ground import Example, ground

    examples = [Example("kitchen.jpg", "red mug", [(40, 10, 120, 90)]), ...]
    found = ground(model, processor, examples)
    found.save("out")                             # heads.csv, summary.json, index.html

`attention-atlas ground` does the same for a hub id or a folder, with boxes from a CSV, COCO or RefCOCO.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attention_atlas.data.phrase_boxes import Example
    from attention_atlas.ground.result import Grounded
    from attention_atlas.ground.run import ground

_WHERE = {"Example": "data.phrase_boxes", "Grounded": "ground.result", "ground": "ground.run"}
__all__ = ["Example", "Grounded", "ground"]


def __getattr__(name: str) -> Any:
    # The command imports this package before it knows whether its arguments are right; torch is slow to load.
    if name in _WHERE:
        return getattr(importlib.import_module(f"attention_atlas.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'attention_atlas.ground' has no attribute '{name}'")
