"""Attention Atlas: where vision-and-language models look."""

__version__ = "0.1.0"
