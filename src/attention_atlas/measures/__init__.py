"""Metrics over stored attention: one file each, tidy rows out (see docs/metrics.md)."""
