"""Roles of the positions of a query or key axis."""

# class, empty: keys of a cross-attention to pictures (cross_boxes.py).
ROLES = ("text", "image", "video", "audio", "bos", "eos", "special", "class", "empty", "pad")
