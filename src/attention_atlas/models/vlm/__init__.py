"""Vision LLMs with transformers' classes: small ones trained here, or loaded by hub id or path."""
