"""Any vision-language model, any image: what each word of a prompt and of its answer attends to.

    from attention_atlas.look import Atlas

    look = Atlas(model, processor).look("kitchen.jpg", "What is on the table?")
    look.save("out")                              # statistics.h5, summary.json, index.html

`python -m attention_atlas look` does the same for a hub id or a folder. `diagnose(model, processor)`, the
command `doctor`, compares attention implementations. It is a separate package because it combines independent
packages: it loads a model (`models`), captures it (`capture`), stores statistics (`recording`) and draws one
HTML page. No study, measure or stage needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attention_atlas.look.atlas import Atlas
    from attention_atlas.look.doctor import diagnose
    from attention_atlas.look.doctor_result import Diagnosis
    from attention_atlas.look.result import Look
    from attention_atlas.look.vision_atlas import VisionAtlas

_WHERE = {
    "Atlas": "atlas",
    "Diagnosis": "doctor_result",
    "Look": "result",
    "VisionAtlas": "vision_atlas",
    "diagnose": "doctor",
}
__all__ = ["Atlas", "Diagnosis", "Look", "VisionAtlas", "diagnose"]


def __getattr__(name: str) -> Any:
    # The command imports this package before it knows whether its arguments are right; torch is slow to load.
    if name in _WHERE:
        return getattr(importlib.import_module(f"attention_atlas.look.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'attention_atlas.look' has no attribute '{name}'")
