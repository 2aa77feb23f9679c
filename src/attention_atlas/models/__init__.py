"""Models, one file each. Axis letters: B batch, T words, N regions, H heads, D dim, V vocabulary."""
