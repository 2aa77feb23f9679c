"""Capturing a model's attention: the seam that own models call, routes into other models, statistics."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attention_atlas.capture.boxes import token_boxes
    from attention_atlas.capture.checks import validate
    from attention_atlas.capture.engine import Capture
    from attention_atlas.capture.groups import Groups, role_groups, word_of_tokens
    from attention_atlas.capture.knockout import cut_edges, knocked_out
    from attention_atlas.capture.result import Captured
    from attention_atlas.capture.token_roles import roles_of, roles_of_ids
    from attention_atlas.capture.videos import video_boxes

_WHERE = {
    "Capture": "engine",
    "Captured": "result",
    "Groups": "groups",
    "cut_edges": "knockout",
    "knocked_out": "knockout",
    "role_groups": "groups",
    "roles_of": "token_roles",
    "roles_of_ids": "token_roles",
    "token_boxes": "boxes",
    "word_of_tokens": "groups",
    "validate": "checks",
    "video_boxes": "videos",
}
__all__ = [
    "Capture",
    "Captured",
    "Groups",
    "cut_edges",
    "knocked_out",
    "role_groups",
    "roles_of",
    "roles_of_ids",
    "token_boxes",
    "validate",
    "video_boxes",
    "word_of_tokens",
]


def __getattr__(name: str) -> Any:
    # Models import the seam from here; the rest is loaded on first use.
    if name in _WHERE:
        return getattr(importlib.import_module(f"attention_atlas.capture.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'attention_atlas.capture' has no attribute '{name}'")
