"""Tables of the studies that are no attention metrics: each builds metric-table rows (metrics/table.py)."""
