"""Roles of the positions of a query or key axis."""

ROLES = ("text", "image", "bos", "eos", "special", "pad")
