"""The kinds of things, one file per family. Every file here is imported, so a new file adds its kinds.

The furniture is made of boxes, cylinders and ellipsoids, about 5 to 40 of them each.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
