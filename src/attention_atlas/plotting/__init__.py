"""Figures drawn from metric tables only: one file per study."""
