"""The one opener of images: orientation, sample depths, modes, damaged files; that there is no other."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attention_atlas.data.corpus import Corpus, Example, Scene
from attention_atlas.data.folder import read_folder
from attention_atlas.data.images import image_from_base64, image_size, image_to_base64, read_rgb
from attention_atlas.errors import AtlasError

# What EXIF orientation 1 to 8 asks for, as an operation on the stored pixels (H,W,3).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


def stored() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 7, 3)).astype(np.uint8)


def turned(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored()).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_exif_orientation_turns_pixels_and_size(tmp_path: Path, orientation: int, ending: str) -> None:
    path = turned(tmp_path / f"a.{ending}", orientation)
    expected = UPRIGHT[orientation](stored())
    pixels = np.asarray(read_rgb(path))
    assert pixels.shape == expected.shape and image_size(path) == expected.shape[1::-1]
    if ending != "webp":  # lossy
        assert np.array_equal(pixels, expected)
    assert np.array_equal(image_from_base64(image_to_base64(path)), pixels)


def test_every_reader_sees_the_upright_image(tmp_path: Path) -> None:
    from attention_atlas.models.vlm.inputs import VlmInputs
    from attention_atlas.regions.source import open_image
    from attention_atlas.training.tasks.compositional import Cells
    from attention_atlas.training.vilt_images import Images

    (tmp_path / "images").mkdir()
    path = turned(tmp_path / "images/a.png", 6)
    (tmp_path / "t.csv").write_text("image,text\na.png,A lamp.\n")
    corpus = read_folder(tmp_path / "images", tmp_path / "t.csv")
    upright = UPRIGHT[6](stored())
    scene = corpus.scenes["a.png"]
    assert (scene.width, scene.height) == (4, 7)
    assert np.array_equal(np.asarray(open_image(corpus, "a.png")), upright)
    assert np.array_equal(np.asarray(VlmInputs.open_image(path)), upright)
    assert np.array_equal(Images(corpus, patch=1).get("a.png").permute(1, 2, 0).numpy(), upright)
    small = np.asarray(Image.fromarray(upright).resize((8, 8), Image.Resampling.BOX))
    cells = Cells(corpus, 8).batch(["a.png"])["grid_BCHW"][0].permute(1, 2, 0).numpy()
    assert np.allclose((cells + 1) * 127.5, small, atol=1e-3)


def rgb_values(path: Path) -> list[int]:
    pixels = np.asarray(read_rgb(path))
    assert pixels.dtype == np.uint8 and (pixels == pixels[..., :1]).all()
    return pixels[..., 0].ravel().tolist()


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_by_their_full_range(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.array([[0, 257, 32768, 65535]], np.uint16)).save(path)
    assert rgb_values(path) == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.25, 0.5, 1.0], [0, 64, 128, 255]),
        ([0.2, 0.4, np.nan, 0.6], [51, 102, 0, 153]),  # within 0..1: not stretched
        ([-1.0, 0.0, 1.0, np.nan], [0, 128, 255, 0]),
        ([0.0, 100.0, np.inf, -np.inf], [0, 255, 255, 0]),
        ([7.0, 7.0, 7.0, 7.0], [0, 0, 0, 0]),
    ],
)
def test_floats(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rgb_values(tmp_path / "a.tif") == expected


def test_integers_of_32_bits_and_no_finite_value(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-5, 0, 5, 10]], np.int32)).save(tmp_path / "a.tif")
    assert rgb_values(tmp_path / "a.tif") == [0, 85, 170, 255]
    Image.fromarray(np.full((1, 2), np.nan, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(AtlasError, match=r"a.tif: no pixel has a finite value"):
        read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    image = Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode)
    image.save(path, **({"transparency": b"\x00" * 256} if mode == "P" else {}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = np.asarray(read_rgb(path))
    assert pixels.shape == (2, 3, 3) and (pixels >= 254).all()


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp", "gif", "bmp"])
def test_a_truncated_file_is_one_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    content = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(AtlasError, match=rf"a.{ending}: (is truncated|not an image)") as caught:
            read_rgb(path)
        assert "\n" not in str(caught.value)


def test_missing_huge_and_wrong_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AtlasError, match=r"a.png: no such image; correct the path"):
        read_rgb(tmp_path / "a.png")
    with pytest.raises(AtlasError, match=r"not an image that can be read \(.*directory"):
        image_size(tmp_path)
    (tmp_path / "a.png").write_text("a page that says the image has moved")
    with pytest.raises(AtlasError, match=r"a.png: not an image that can be read; save it again"):
        image_size(tmp_path / "a.png")
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(AtlasError, match=r"a.png: Image size .* exceeds"):
        image_size(tmp_path / "a.png")


def test_small_images_of_tables(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), (9, 8, 7)).save(tmp_path / "a.png")
    assert image_from_base64(image_to_base64(tmp_path / "a.png", longest=10)).shape == (5, 10, 3)
    assert np.array_equal(image_from_base64(image_to_base64(stored())), stored())


def test_a_scene_of_another_size_is_named(tmp_path: Path) -> None:
    from attention_atlas.regions.source import open_image

    turned(tmp_path / "a.png", 6)
    corpus = Corpus(tmp_path, {"a": Scene("a", "a.png", 7, 4, "test")}, [Example("e", "a", "A lamp.")])
    with pytest.raises(AtlasError, match=r"'a': is 4x7, but the scene has 7x4"):
        open_image(corpus, "a")


def test_nothing_else_opens_images(root: Path) -> None:
    """`read_rgb` turns and scales; a second opener would not."""
    opener = re.compile(r"\bImage\.open\b|\bimread\b|from PIL\.Image import [^\n]*\bopen\b|\bdecode_image\b")
    files = [p for folder in ("src", "pipeline", "benchmarks") for p in (root / folder).rglob("*.py")]
    found = {p.relative_to(root).as_posix() for p in files if opener.search(p.read_text(encoding="utf-8"))}
    assert found == {"src/attention_atlas/data/images.py"}
    # Files embedded as they are would be shown unturned, beside boxes of the turned image.
    embeds = {p.name for p in files if "b64encode" in p.read_text(encoding="utf-8")}
    # reporting/build.py: figures drawn here; look/page.py: pixels that read_rgb returned.
    assert embeds == {"images.py", "build.py", "page.py"}
