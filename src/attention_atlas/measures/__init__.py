"""Metrics of stored attention, one file each, as tidy rows (see docs/metrics.md)."""
