"""Regions of an image: proposals, features, labels and attributes, all ending in `features.h5`."""
