"""The world `birds`: one parametric bird in each picture, every part with a colour of its own."""

from attention_atlas.synthetic.birds.world import Birds

__all__ = ["Birds"]
