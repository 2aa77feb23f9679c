"""The world `tabletop`: shapes of several colours, materials and sizes on a table, after CLEVR."""

from attention_atlas.synthetic.tabletop.world import Tabletop

__all__ = ["Tabletop"]
