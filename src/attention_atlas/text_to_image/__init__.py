"""Text to image: pairs to train on, and measures of generated pictures."""
