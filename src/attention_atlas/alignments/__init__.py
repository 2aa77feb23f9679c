"""Alignment functions: the score of a query and a key, before the softmax."""
