"""Descriptions of rooms: a grammar over facts that are true of the plan."""

from attention_atlas.synthetic.rooms.text.describe import describe

__all__ = ["describe"]
