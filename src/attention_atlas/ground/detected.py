"""Phrases with boxes from an object detector: its predictions in place of annotations."""

from __future__ import annotations

from pathlib import Path

from attention_atlas.data.pictures import read_rgb
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import files_under
from attention_atlas.ground.examples import Example
from attention_atlas.progress import progress
from attention_atlas.regions.hf_detector import detect, load_detector

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MOST = 100  # detections of a picture


def detected(detector: str, folder: str | Path, device: str = "cpu", score: float = 0.5) -> list[Example]:
    """One example for each picture below `folder` and class that the detector finds there: the name of the
    class, and the boxes of its detections with at least `score` (0..1).

    detector: hub id or folder of any object detector of transformers. device: a torch device. Raises
    AtlasError for a folder without pictures or detections, ConfigError for a detector that cannot be loaded.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"--data: {folder}: no such folder; give the folder of the pictures")
    paths = [path for path in files_under(folder) if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise AtlasError(f"--data: {folder}: has no pictures ({', '.join(SUFFIXES)}); give their folder")
    net, processor = load_detector(detector)
    net = net.to(device).eval()
    names = {int(n): str(name) for n, name in net.config.id2label.items()}
    examples = []
    for path in progress(paths, "detect"):
        (regions,) = detect(net, processor, [read_rgb(path)], MOST, device)
        assert regions.label is not None and regions.label_confidence is not None
        by_class: dict[int, list[tuple[float, ...]]] = {}
        for label, sure, box in zip(regions.label.tolist(), regions.label_confidence, regions.boxes.tolist()):
            if sure >= score:
                by_class.setdefault(label, []).append(tuple(box))
        for label, boxes in by_class.items():
            name = names.get(label, f"class {label}")
            where = tuple(f"{path}: {name} {n}" for n in range(len(boxes)))
            examples.append(Example(path, name, tuple(boxes), where))  # type: ignore[arg-type]
    if not examples:
        raise AtlasError(f"--detector: '{detector}' finds nothing with a score of {score:g}; lower --score")
    return examples
