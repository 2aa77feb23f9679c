"""The commands on bad images, weights and places: one line, exit code 2, nothing written."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from look_tiny import ANSWER, PROMPT, llava, photo
from PIL import Image
from test_bad_input_files import Bomb

from attention_atlas.__main__ import main
from attention_atlas.errors import AtlasError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("llava"))


def noise(width: int = 30, height: int = 20, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise().save(path, exif=exif)


def cut(path: Path) -> None:
    noise().save(path)
    path.write_bytes(path.read_bytes()[:-200])


GOOD: dict[str, Callable[[Path], None]] = {
    "one pixel.png": lambda p: noise(1, 1).save(p),
    "16 bit.png": lambda p: Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(p),
    "cmyk.jpg": lambda p: noise(mode="CMYK").save(p),
    "palette.png": lambda p: noise(mode="P").save(p),
    "grey and alpha.png": lambda p: noise(mode="LA").save(p),
    "animated.gif": lambda p: noise().save(p, save_all=True, append_images=[noise(mode="L").convert("RGB")]),
    "turned.jpg": turned,
    "wide.png": lambda p: noise(20_000, 2).save(p),
    "a jpeg named.png": lambda p: noise().save(p, format="JPEG"),
    "with é and %20?.png": lambda p: noise().save(p),
}
BAD: dict[str, Callable[[Path], None]] = {
    "cut.png": cut,
    "cut.jpg": cut,
    "empty.png": lambda p: p.write_bytes(b""),
    "zeros.png": lambda p: p.write_bytes(bytes(999)),
    "text.jpg": lambda p: p.write_text("<html>moved</html>"),
    "folder.png": lambda p: p.mkdir(),
    "loop.png": lambda p: p.symlink_to(p),
    "absent.png": lambda p: None,
    "svg.svg": lambda p: p.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "pickle.png": lambda p: p.write_bytes(pickle.dumps(Bomb())),
}


def words_of(command: str, image: Path) -> list[str]:
    """The command line of a command on one image, or on it and a good one, with the files that it needs."""
    here = image.parent
    if command == "ground":
        (here / "boxes.csv").write_text(
            f"image,phrase,x,y,w,h\ngood.png,block,1,1,5,5\n{image.name},block,0,0,1,1\n"
        )
        return ["--data", str(here)]
    if command == "phases":
        (here / "texts.csv").write_text(f"image,text\ngood.png,A block.\n{image.name},A red block.\n")
        return ["--data", str(here)]
    if command == "faithfulness from a file":
        (here / "few.csv").write_text(f"image,prompt,answer\n{image.name},{PROMPT},{ANSWER}\n")
        return ["--data", str(here / "few.csv")]
    return ["--image", str(image), "--prompt", PROMPT, "--answer", ANSWER]


COMMANDS = ("look", "ground", "doctor", "knockout", "faithfulness", "faithfulness from a file", "phases")


class Reached(AtlasError):
    """What was given is accepted: the model would be loaded now."""


@pytest.mark.parametrize("name", [*GOOD, *BAD])
@pytest.mark.parametrize("command", COMMANDS)
def test_images(command: str, name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    import attention_atlas.look.load as load
    import attention_atlas.look.vision as vision
    import attention_atlas.studies.vlm_phases.any_model  # noqa: F401  (else it would keep what is patched here)

    def reached(*_: object, **__: object) -> None:
        raise Reached("reached")

    monkeypatch.setattr(load, "load", reached)
    monkeypatch.setattr(vision, "is_vision", lambda *_: False)
    monkeypatch.chdir(tmp_path)
    noise().save("good.png")
    (GOOD | BAD)[name](tmp_path / name)
    given = words_of(command, tmp_path / name)
    before = sorted(tmp_path.iterdir())
    assert main([command.split()[0], "model", *given, "--out", "out"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    # These read the sizes of many images, and decode each one when it is its turn.
    accepted = name in GOOD or (command in ("ground", "phases") and name == "cut.jpg")
    assert (line == "error: reached") == accepted and (accepted or name in line), line
    assert sorted(tmp_path.iterdir()) == before and not Path("opened").exists()


@pytest.mark.parametrize("name", ["one pixel.png", "16 bit.png", "cmyk.jpg", "animated.gif", "wide.png"])
def test_an_unusual_image_is_looked_at(name: str, folder: Path, tmp_path: Path) -> None:
    GOOD[name](tmp_path / name)
    assert (
        main(["look", str(folder), *words_of("look", tmp_path / name), "--out", str(tmp_path / "out")]) == 0
    )
    assert len(list((tmp_path / "out").iterdir())) == 3


def settings(path: Path, **changed: object) -> None:
    values = json.loads((path / "config.json").read_text())
    values["text_config"] |= changed
    (path / "config.json").write_text(json.dumps(values))


def as_pickle(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))


def without_layer(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    kept = {k: v for k, v in load_file(path / "model.safetensors").items() if ".layers.1.self_attn." not in k}
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})


WEIGHTS: dict[str, Callable[[Path], object]] = {
    "other size": lambda p: settings(p, hidden_size=32),
    "other heads": lambda p: settings(p, num_attention_heads=8, head_dim=4),
    "heads that do not divide": lambda p: settings(p, num_attention_heads=3),
    "no heads": lambda p: settings(p, num_attention_heads=0),
    "a layer is missing": without_layer,
    "more layers": lambda p: settings(p, num_hidden_layers=5),
    "pickle": as_pickle,
    "cut": lambda p: (p / "model.safetensors").write_bytes((p / "model.safetensors").read_bytes()[:900]),
    "empty": lambda p: (p / "model.safetensors").write_bytes(b""),
    "no weights": lambda p: (p / "model.safetensors").unlink(),
    "settings are a list": lambda p: (p / "config.json").write_text("[]"),
    "settings are null": lambda p: (p / "config.json").write_text("null"),
    "settings are cut": lambda p: (p / "config.json").write_text('{"model_type":'),
    "tokenizer is cut": lambda p: (p / "tokenizer.json").write_text("{"),
    "processor is cut": lambda p: (p / "processor_config.json").write_text("{"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_do_not_fit(name: str, folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    WEIGHTS[name](shutil.copytree(folder, tmp_path / "model"))
    photo(tmp_path / "a.png")
    assert main(["look", "model", *words_of("look", tmp_path / "a.png"), "--out", "out"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "model" in line and len(line) < 500
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "model"] and not Path("opened").exists()


def obey_permissions() -> None:
    """Linux: from the next exec on, root too needs the permission to write."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "attention_atlas", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)  # type: ignore[call-overload]


def test_a_full_disk_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))  # noqa: E731
    given = words_of("look", tmp_path / "a.png")
    done = run("look", folder, *given, "--out", tmp_path / "out", preexec_fn=small)
    lines = [line for line in done.stderr.splitlines() if "no space" in line or "Traceback" in line]
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ") and "make space" in lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("command", ["look", "ground", "doctor", "knockout", "faithfulness", "phases"])
def test_a_place_that_cannot_be_written(command: str, tmp_path: Path) -> None:
    noise().save(tmp_path / "good.png")
    given = words_of(command, tmp_path / "good.png")
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    done = run(command, "model", *given, "--out", closed / "out", preexec_fn=obey_permissions)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == f"error: --out: {closed}: is not writable; give another folder"
