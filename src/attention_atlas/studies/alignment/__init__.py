"""The study of alignment functions: runs (model, data, alignment, seed), results, tables, grounding."""
