"""The study of alignment functions: cells (model, data, alignment, seed), results, tables, grounding."""
