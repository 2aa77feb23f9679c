"""Roles of the positions of a query or key axis."""

ROLES = (
    "text",
    "image",  # a token, patch or key that shows a part of an image
    "video",
    "audio",
    "bos",
    "eos",
    "special",
    "class",  # the class token of an image or tile, in a vision model or among the keys of cross-attention
    "register",  # a register token of a vision model
    "empty",  # a key of cross-attention that shows only what the processor added around the image
    "pad",
)
