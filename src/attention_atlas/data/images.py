"""The only module that opens image files, so that all models and figures see the same pixels.

`read_rgb` applies the EXIF orientation, converts samples to 8 bits and returns RGB:

- integers by their full range: 16-bit samples are divided by 257, so that 65535 becomes 255. 32-bit samples
  are treated as 16-bit if within 0..65535 (Pillow returns some 16-bit files in this form), else as floats;
- floats within 0..1 are multiplied by 255. Otherwise the smallest value becomes 0 and the largest 255. NaN
  and -inf become 0 and inf becomes 255; none of them affects the range;
- palettes, CMYK, YCbCr and Lab are converted to RGB. An alpha channel is dropped, as torchvision and
  transformers do. Only the first frame is read.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.data.corpus import Corpus, Example, Scene, check_examples
from attention_atlas.data.tar_members import read_member
from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from PIL.Image import Image

ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height


def read_rgb(path: str | Path) -> Image:
    """The image in RGB, upright, 8 bits per channel.

    Raises AtlasError for a file that is missing, truncated, too large or not an image.
    """
    from PIL import ImageOps

    with _opened(path) as image:
        try:
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image, path)
        except AtlasError:
            raise
        except Exception as error:  # Pillow's decoders raise almost any exception for damaged files
            raise AtlasError(
                f"{path}: is truncated or damaged ({_first_line(error)}); replace the file"
            ) from None


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of `read_rgb(path)` in pixels. Decodes the pixels only if the image is rotated.

    Raises AtlasError for a file that is missing or not an image.
    """
    with _opened(path) as image:
        try:
            turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        except Exception:  # a damaged EXIF block: read_rgb reports or ignores it
            turned = True
        size: tuple[int, int] = image.size
    return read_rgb(path).size if turned else size


def image_to_base64(image: str | Path | np.ndarray, longest: int | None = None) -> str:
    """PNG in base64 of a file or of (H,W,3) uint8 pixels, at most `longest` pixels wide and high."""
    from PIL.Image import fromarray

    small = fromarray(image) if isinstance(image, np.ndarray) else read_rgb(image)
    if longest is not None:
        small.thumbnail((longest, longest))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def image_from_base64(encoded: str) -> np.ndarray:
    """The (H,W,3) uint8 pixels of a result of `image_to_base64`."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(encoded))) as opened:
        return np.asarray(opened.convert("RGB"))


def _opened(path: str | Path) -> Image:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(read_member(Path(path)) or path)
    except AtlasError:
        raise
    except FileNotFoundError:
        raise AtlasError(f"{path}: no such image; correct the path or add the file") from None
    except UnidentifiedImageError:
        raise AtlasError(f"{path}: not an image that can be read; save it again as PNG or JPEG") from None
    except Image.DecompressionBombError as error:
        raise AtlasError(f"{path}: {_first_line(error)}; save it smaller") from None
    except Exception as error:  # as above
        raise AtlasError(
            f"{path}: not an image that can be read ({_first_line(error)}); save it again as PNG or JPEG"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _to_rgb(image: Image, path: str | Path) -> Image:
    from PIL.Image import fromarray

    if image.mode[0] in "IF":  # I, I;16, I;16B, ..., F
        return fromarray(_eight_bits(np.asarray(image), path)).convert("RGB")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # a palette's transparent colour, about which Pillow warns
    return image.convert("RGB")


def _eight_bits(values: Any, path: str | Path) -> np.ndarray:
    """(H,W) uint8 from one channel with more than 8 bits, by the rules of this module."""
    if values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 65535:
        return np.rint(values / 257).astype(np.uint8)
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise AtlasError(f"{path}: no pixel has a finite value; replace the file")
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    scaled = np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(255 * scaled).astype(np.uint8)


def used_corpus(
    root: str | Path,
    scenes: Mapping[str, Scene],
    examples: list[Example],
    name: str,
    parts: Mapping[str, Mapping[str, Any]],
    require_images: bool,
) -> Corpus:
    """The checked corpus of some questions, with the images that they use; with `require_images` their
    sizes are read from the files."""
    used = {e.image_id for e in examples}
    kept = {i: s for i, s in scenes.items() if i in used}
    if require_images:
        for scene in kept.values():
            scene.width, scene.height = image_size(Path(root) / scene.path)
    check_examples(examples, kept, ", ".join(str(f.get("questions")) for f in parts.values()))
    return Corpus(Path(root), kept, examples, name)
