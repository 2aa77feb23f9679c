"""Scores of generated text against references: BLEU, METEOR, CIDEr, Word Mover's Distance."""
