"""The world `birds`: one parametric bird per image, each part with its own colour."""

from attention_atlas.synthetic.birds.world import Birds

__all__ = ["Birds"]
