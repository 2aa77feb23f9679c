"""The study of alignment functions: cells (model, data, alignment, seed), their results, tables, grounding."""
