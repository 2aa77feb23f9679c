"""The kinds of rooms, one file each. Every file here is imported, so a new file adds its category."""

import importlib
import pkgutil

from attention_atlas.synthetic.rooms.categories.base import CATEGORIES, Category, Step

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["CATEGORIES", "Category", "Step"]
