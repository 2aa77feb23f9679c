"""Vision LLMs of transformers' own classes: trained here at small size, or loaded by hub id or path."""
