"""Sizes of picture files, with the errors that every reader shares."""

from __future__ import annotations

from pathlib import Path

from attention_atlas.errors import AtlasError


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels, from the header only. Raises AtlasError when absent or no picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        raise AtlasError(f"{path}: no such image; correct the path or add the file") from None
    except (UnidentifiedImageError, OSError):
        raise AtlasError(f"{path}: not a picture that can be read; save it anew as PNG or JPEG") from None
