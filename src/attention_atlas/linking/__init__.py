"""Linking noun phrases to image regions, one file per method."""
