"""Furnished rooms."""

from attention_atlas.worlds.rooms import appliances, fittings, seats, small, storage
