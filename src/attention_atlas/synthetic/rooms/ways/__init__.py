"""The ways of placing objects. Every module here is imported, so a new module adds its ways."""

import importlib
import pkgutil

from attention_atlas.synthetic.rooms.ways.base import WAYS, furnish

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["WAYS", "furnish"]
