"""The world `rooms`: furnished rooms in perspective, described in paragraphs.

Importing this package fills the registry of kinds (kinds.KINDS).
"""

from attention_atlas.synthetic.rooms import furniture as furniture
from attention_atlas.synthetic.rooms.world import Rooms

__all__ = ["Rooms"]
