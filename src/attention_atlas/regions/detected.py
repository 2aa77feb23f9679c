"""Phrases with boxes from an object detector: its predictions in place of annotations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attention_atlas.data.images import read_rgb
from attention_atlas.data.phrase_boxes import Example
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import files_under
from attention_atlas.progress import progress
from attention_atlas.regions.hf_detector import detect, load_detector

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MOST = 100  # detections per image


Found = tuple[str, float, tuple[float, float, float, float]]  # name, score, box in pixels


def detected(detector: str, folder: str | Path, device: str = "cpu", score: float = 0.5) -> list[Example]:
    """One example for each image below `folder` and class that the detector finds there: the name of the
    class, and the boxes of its detections with at least `score` (0..1).

    detector: hub id or folder of any transformers object detector, or a frozen SSD graph for COCO (a path
    or `package:NAME/FILE.pb`). device: a torch device, for the former. Raises AtlasError for a folder without
    images or detections, ConfigError for a detector that cannot be loaded.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"--data: {folder}: no such folder; give the folder of the images")
    paths = [path for path in files_under(folder) if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise AtlasError(f"--data: {folder}: has no images ({', '.join(SUFFIXES)}); give their folder")
    examples = detected_in(detector, paths, device, score)
    if not examples:
        raise AtlasError(f"--detector: '{detector}' finds nothing with a score of {score:g}; lower --score")
    return examples


def detected_in(
    detector: str, paths: Sequence[Path], device: str = "cpu", score: float = 0.5
) -> list[Example]:
    """The same for the images `paths`; [] if the detector finds nothing."""
    find, examples = _finder(detector, device), []
    for path in progress(paths, "detect"):
        by_class: dict[str, list[tuple[float, ...]]] = {}
        for name, sure, box in find(read_rgb(path)):
            if sure >= score:
                by_class.setdefault(name, []).append(box)
        for name, boxes in by_class.items():
            where = tuple(f"{path}: {name} {n}" for n in range(len(boxes)))
            examples.append(Example(path, name, tuple(boxes), where))  # type: ignore[arg-type]
    return examples


def _finder(detector: str, device: str) -> Callable[[Any], list[Found]]:
    if detector.endswith(".pb"):
        from attention_atlas.regions.ssd_detector import detect_ssd, load_ssd

        graph = load_ssd(detector)
        return lambda image: detect_ssd(graph, image)
    net, processor = load_detector(detector)
    net = net.to(device).eval()
    names = {int(n): str(name) for n, name in net.config.id2label.items()}

    def find(image: Any) -> list[Found]:
        (regions,) = detect(net, processor, [image], MOST, device)
        assert regions.label is not None and regions.label_confidence is not None
        return [
            (names.get(label, f"class {label}"), float(sure), tuple(box))
            for label, sure, box in zip(
                regions.label.tolist(), regions.label_confidence, regions.boxes.tolist()
            )
        ]

    return find
