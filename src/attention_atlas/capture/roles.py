"""Roles of the positions of a query or key axis."""

ROLES = ("text", "image", "video", "audio", "bos", "eos", "special", "class", "register", "pad")
