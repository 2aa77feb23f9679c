"""The dump of the layer-wise study: statistics of many questions, full matrices of the questions in
figures."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.dumps.dump import DumpSettings, dump
from attention_atlas.dumps.vqa import VqaDump
from attention_atlas.errors import AtlasError
from attention_atlas.files import write_json
from attention_atlas.measures.vqa_accuracy import vqa_accuracy
from attention_atlas.studies.vilt_layers.answers import CHOSEN, group, read_given
from attention_atlas.training.questions import of_run

if TYPE_CHECKING:
    from torch import nn

    from attention_atlas.data.corpus import Example

SMALLEST, LARGEST = 0.04, 0.35  # share of the patches covered by the things of a shown question
BY_RULE = "the first of its type that is answered right and asks about something of middle size"
AT_RANDOM = "drawn at random from its type"


def dump_questions(
    task: VqaDump,
    model: nn.Module,
    settings: DumpSettings,
    shown: Any,
    answers: Path,
    out: Path,
    work: Path,
    *,
    model_name: str,
    config_hash: str,
    device: str,
    seed: int = 0,
) -> dict[str, float]:
    """Write `out`/statistics.h5 and, for one question of each group in `shown`, `out`/attention.h5 and
    `out`/chosen.json (how it was chosen). `task` is prepared."""
    identity: dict[str, Any] = {"model_name": model_name, "config_hash": config_hash, "device": device}
    found = dump(task, model, settings, out, work / "statistics", **identity)
    chosen = choose(task, read_given(answers), shown, seed)
    few = dataclasses.replace(task)
    few.data = of_run(task.data.corpus, [e for e, _ in chosen], task.vocab, task.config, [])
    few.vocab, few.config = task.vocab, task.config
    maps = dataclasses.replace(settings, statistics=["attn"], check=False)
    dump(few, model, maps, out, work / "maps", **identity)
    write_json(out / CHOSEN, {example.id: how for example, how in chosen})
    return found | {"shown": float(len(chosen))}


def choose(
    task: VqaDump, given: dict[str, str], groups: Sequence[str], seed: int = 0
) -> list[tuple[Example, str]]:
    """One question of each group, and how it was chosen, alternately by rule and at random.

    The first, third, … group with questions shows the first by id that is answered correctly and names things
    that are neither tiny nor as large as the room (otherwise the first of the group); the second, fourth, … a
    random one. Raises AtlasError if no group has a question.
    """
    found: dict[str, Example] = {}
    every: dict[str, list[Example]] = {}
    for example in task.data.examples:
        name = group(example)
        if name not in groups or example.id not in given:
            continue
        every.setdefault(name, []).append(example)
        if name in found:
            continue
        asked = task.data.asked(example)
        if asked is None or not SMALLEST <= asked.mean() <= LARGEST:
            continue
        if vqa_accuracy(given[example.id], example.answers) >= 0.9:
            found[name] = example
    if not every:
        raise AtlasError(
            f"conf/study: shown: no question of {', '.join(groups)}; name other groups of questions"
        )
    chosen = []
    for place, name in enumerate(name for name in groups if name in every):
        if place % 2:
            # The group's name is part of the seed, so that the draw does not depend on the list of groups.
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            chosen.append((every[name][rng.integers(len(every[name]))], AT_RANDOM))
        else:
            chosen.append((found.get(name, every[name][0]), BY_RULE))
    return chosen
