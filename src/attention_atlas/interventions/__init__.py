"""What a model's answer depends on: cut attention (knock-out), hide parts of the image (faithfulness).

    from attention_atlas.interventions import faithfulness, knock_out

    knock_out(model, processor, "kitchen.jpg", "What is on the table?", other="street.jpg").save("out")
    faithfulness(model, processor, [("kitchen.jpg", "What is on the table?", None)]).save("out")

Builds on `look` for prompts, answers and words.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attention_atlas.interventions.knockout import knock_out
    from attention_atlas.interventions.league import faithfulness

_WHERE = {"knock_out": "knockout", "faithfulness": "league"}
__all__ = ["faithfulness", "knock_out"]


def __getattr__(name: str) -> Any:
    # The commands import this package before they check their arguments; torch is slow to load.
    if name in _WHERE:
        return getattr(importlib.import_module(f"attention_atlas.interventions.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'attention_atlas.interventions' has no attribute '{name}'")
