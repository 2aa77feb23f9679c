"""`ground(model, processor, examples)`: score every head, pick heads, measure them on other images.

Axes: E examples, I images, L layer, H head, C = L·H, T image tokens with a place, M measures, B
baselines, F folds, K heads picked, N sets of boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from attention_atlas.data.phrase_boxes import Example, checked
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.ground.attend import MapFile, RowCapture
from attention_atlas.ground.heads import best_heads, folds_of, picked
from attention_atlas.ground.result import Grounded, Shown
from attention_atlas.ground.scene import Scene, VisionScene
from attention_atlas.ground.scores import MEASURES, chances, scores
from attention_atlas.look.vision import GLOBS, Vision
from attention_atlas.measures.places import Places, Target
from attention_atlas.progress import progress

PROMPT = "Where is the {phrase}?"
QUERIES = ("phrase", "last")
BEST = 3  # heads whose maps are averaged, as in Kang et al. (2025)
FOLDS = 5
CONTROLS = 8  # sets of boxes of other images, per example
SHOWN = 4  # images on the page


def ground(
    model: Any,
    processor: Any,
    examples: Sequence[Example],
    prompt: str = PROMPT,
    query: str = "phrase",
    layers: Sequence[int] | None = None,
    best: int = BEST,
    folds: int = FOLDS,
    seed: int = 0,
) -> Grounded:
    """Score each attention head of the language model by how well it finds the boxes of phrases.

    model, processor: a transformers model for images and text (AutoModelForImageTextToText) and its
    processor; or a `look.vision.Vision` and None, whose class token (or all patches, without one) attends in
    place of a phrase, so that prompt and query do not apply. prompt: has {phrase} in it; used as in
    `Atlas.look`. query: that of the phrase's tokens, averaged, or that of the prompt's last token (as in Kang
    et al. 2025). layers: those that are scored, from 0; default: all. best: heads whose maps are averaged.
    folds: of images; each is measured with the heads that were best on the others. seed: of folds, intervals
    and the control.

    Raises AtlasError for bad examples (see `checked`), a phrase that is not in the tokenised prompt, and a
    model whose image tokens have no known place; ConfigError for a wrong argument.
    """
    check_arguments(prompt, query, best, folds)
    examples = checked(examples)
    vision = model if isinstance(model, Vision) else None
    scene = Scene(model, processor, prompt, query)
    capture = RowCapture(model) if vision is None else RowCapture(vision.net, GLOBS)
    if vision is not None:
        scene, model, prompt = VisionScene(vision), vision.net, ""
    found = _first_pass(capture, scene, examples, layers, seed)
    with found.maps:
        image_E, values_EMC = found.image_E, found.values_EMC
        fold_I = folds_of(int(image_E.max()) + 1, min(folds, int(image_E.max()) + 1), seed)
        held_FMK = picked(values_EMC, image_E, fold_I, best)
        whole_MK = np.stack([best_heads(values_EC, best) for values_EC in values_EMC.swapaxes(0, 1)])
        return _second_pass(found, model, prompt, scene.query, fold_I, held_FMK, whole_MK, seed)


def check_arguments(prompt: str, query: str, best: int, folds: int) -> None:
    if prompt.count("{phrase}") != 1:
        raise ConfigError(
            f"--prompt: '{prompt}' has no {{phrase}}, or several; write it once, as in '{PROMPT}'"
        )
    if query not in QUERIES:
        raise ConfigError(f"--query: '{query}' is unknown; give {' or '.join(QUERIES)}")
    if best < 1:
        raise ConfigError(f"--best: {best} is less than 1; give the number of heads to average")
    if folds < 2:
        raise ConfigError(f"--folds: {folds} is less than 2; heads are measured on other images")


class _Found:
    """Results of the first pass: scores and geometry of each example that the model sees."""

    def __init__(self) -> None:
        self.examples: list[Example] = []
        self.places: list[tuple[Places, list[Any]]] = []  # with boxes: its own, those of other images
        self.maps, self.layers, self.heads = MapFile(), list[int](), 0
        self.notes: list[str] = []
        self.values: list[np.ndarray] = []
        self.controls: list[np.ndarray] = []
        self.chances: list[np.ndarray] = []
        self.shares: list[np.ndarray] = []

    def done(self) -> None:
        number = {key: n for n, key in enumerate(dict.fromkeys(e.key for e in self.examples))}
        if len(number) < 2:
            raise AtlasError("boxes: fewer than 2 images have one in the part that the model sees; give more")
        self.image_E = np.array([number[e.key] for e in self.examples])
        self.values_EMC, self.control_EMC = np.stack(self.values), np.stack(self.controls)
        self.chance_EMB, self.share_EC = np.stack(self.chances), np.stack(self.shares)


def _first_pass(
    capture: RowCapture, scene: Scene, examples: list[Example], layers: Sequence[int] | None, seed: int
) -> _Found:
    found, unseen = _Found(), 0
    rng = np.random.default_rng(seed)
    known: dict[bytes, Places] = {}
    for example in progress(examples, "ground"):
        inputs, rows, placed, places = scene.of(example)
        places = known.setdefault(places.boxes_T4.tobytes(), places)
        target = Target.of(places, example.boxes)
        if target.area <= 0:
            unseen += 1
            continue
        numbers, map_LHT = capture.maps(inputs, rows, placed, scene.keys)
        found.layers, keep = _kept(numbers, layers)
        map_LHT = map_LHT[keep]
        if not bool((map_LHT > 0).any()):
            raise AtlasError(
                f"--prompt: '{scene.prompt}': no head sees the image from its query; put the image first"
            )
        found.heads, map_CT = map_LHT.shape[1], map_LHT.flatten(0, 1)
        others = _of_others(example, examples, places, rng)
        value_MCN = scores(map_CT, places, [target, *others.values()])
        found.examples.append(example)
        found.places.append((places, [example.boxes, *others]))
        found.maps.add(map_CT)
        found.values.append(value_MCN[..., 0].astype(np.float32))
        found.controls.append(_control(value_MCN))
        found.chances.append(chances(places, example.size, target))
        found.shares.append(map_CT.sum(-1).numpy())
    if unseen:
        found.notes.append(
            f"{unseen} of {len(examples)} phrases are left out: the processor cuts off the "
            "part of the image where their boxes are"
        )
    found.notes += [*scene.notes, *capture.notes]
    found.done()
    return found


def _kept(numbers: list[int], layers: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """(layers that are scored, their places in the capture)."""
    wanted = numbers if layers is None else sorted(set(layers))
    wrong = [layer for layer in wanted if layer not in numbers]
    if wrong or not wanted:
        raise ConfigError(
            f"--layers: {wrong or 'none'}: is no layer with attention; known: {numbers[0]}..{numbers[-1]}"
        )
    return wanted, [numbers.index(layer) for layer in wanted]


def _of_others(
    example: Example, examples: list[Example], places: Places, rng: np.random.Generator
) -> dict[Any, Target]:
    """Boxes of other images, drawn at random, stretched to this one's size."""
    found: dict[Any, Target] = {}
    for index in rng.permutation(len(examples)).tolist():
        other = examples[index]
        if other.key != example.key:
            scale = [own / theirs for own, theirs in zip(example.size, other.size)] * 2
            boxes = tuple(tuple(edge * s for edge, s in zip(box, scale)) for box in other.boxes)
            target = Target.of(places, boxes)
            if target.area > 0:
                found[boxes] = target
        if len(found) == CONTROLS:
            break
    return found


def _control(value_MCN: np.ndarray) -> np.ndarray:
    """(M,C) the mean over boxes of other images; NaN without any."""
    if value_MCN.shape[2] == 1:
        return np.full(value_MCN.shape[:2], np.nan, np.float32)
    return value_MCN[..., 1:].mean(-1).astype(np.float32)


def _second_pass(
    found: _Found,
    model: Any,
    prompt: str,
    query: str,
    fold_I: np.ndarray,
    held_FMK: np.ndarray,
    whole_MK: np.ndarray,
    seed: int,
) -> Grounded:
    """Scores of the mean of the best heads' maps, and the maps that the page shows."""
    fold_E = fold_I[found.image_E]
    groups = ("held_out", "in_sample")
    mean = {name: np.zeros((2, len(fold_E), len(MEASURES))) for name in groups}  # values, controls
    shown = _to_show(found.image_E)
    pages = []
    for e, (places, boxes) in enumerate(found.places):
        map_CT, targets = found.maps[e], [Target.of(places, given) for given in boxes]
        for name, heads_MK in zip(groups, (held_FMK[fold_E[e]], whole_MK)):
            mean_MT = torch.stack([map_CT[torch.from_numpy(heads_K)].mean(0) for heads_K in heads_MK])
            value_MN = np.stack([scores(mean_MT, places, targets)[m, m] for m in range(len(MEASURES))])
            mean[name][0, e] = value_MN[:, 0]
            mean[name][1, e] = _control(value_MN[:, None])[:, 0]
        if e in shown:
            top_KT = map_CT[torch.from_numpy(whole_MK[-1])]
            maps_KT = torch.cat([top_KT, top_KT.mean(0, keepdim=True)])
            pages.append(Shown(found.examples[e], places, maps_KT.numpy()))
    return Grounded(
        model=model.config.name_or_path or type(model).__name__,
        prompt=prompt,
        query=query,
        seed=seed,
        examples=found.examples,
        layers=found.layers,
        heads=found.heads,
        image_E=found.image_E,
        values_EMC=found.values_EMC,
        control_EMC=found.control_EMC,
        chance_EMB=found.chance_EMB,
        share_EC=found.share_EC,
        fold_I=fold_I,
        held_FMK=held_FMK,
        whole_MK=whole_MK,
        mean_2EM=mean,
        shown=pages,
        notes=found.notes,
    )


def _to_show(image_E: np.ndarray) -> set[int]:
    """The first example of some images, evenly spaced."""
    images = np.unique(np.linspace(0, image_E.max(), SHOWN).round())
    return {int(np.flatnonzero(image_E == p)[0]) for p in images}
