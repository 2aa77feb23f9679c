"""Alignment functions: how a query and a key make the score that softmax turns into attention."""
