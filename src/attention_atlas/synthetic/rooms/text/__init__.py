"""What people would say of a room: a grammar over facts that are true of its plan."""

from attention_atlas.synthetic.rooms.text.describe import describe

__all__ = ["describe"]
