"""What a position of a query or key axis can be."""

ROLES = ("text", "image", "bos", "eos", "special", "pad")
