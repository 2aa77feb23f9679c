"""The dump of the layer-wise study: statistics of many questions, whole matrices of those that are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.capture.dump import DumpSettings, dump
from attention_atlas.capture.dumps.vqa import VqaDump
from attention_atlas.errors import AtlasError
from attention_atlas.vqa.accuracy import vqa_accuracy
from attention_atlas.vqa.answer import group, read_given
from attention_atlas.vqa.batches import of_run

if TYPE_CHECKING:
    from torch import nn

    from attention_atlas.corpus import Example

SMALLEST, LARGEST = 0.04, 0.35  # share of the patches that a shown question's things take


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
) -> dict[str, float]:
    """Write `out`/statistics.h5 and, of one question of each group in `shown` that is answered right,
    `out`/attention.h5. `task` is prepared."""
    identity: dict[str, Any] = {"model_name": model_name, "config_hash": config_hash, "device": device}
    found = dump(task, model, settings, out, work / "statistics", **identity)
    chosen = choose(task, read_given(answers), shown)
    few = dataclasses.replace(task)
    few.data = of_run(task.data.corpus, chosen, task.vocab, task.config, [])
    few.vocab, few.config = task.vocab, task.config
    maps = dataclasses.replace(settings, statistics=["attn"], check=False)
    dump(few, model, maps, out, work / "maps", **identity)
    return found | {"shown": float(len(chosen))}


def choose(task: VqaDump, given: dict[str, str], groups: Sequence[str]) -> list[Example]:
    """The first question by id of each group that is answered quite right and names things neither tiny nor
    as large as the room; failing that, the first of the group. Raises AtlasError when no group has a
    question."""
    found: dict[str, Example] = {}
    any_of: dict[str, Example] = {}
    for example in task.data.examples:
        name = group(example)
        if name not in groups or name in found or example.id not in given:
            continue
        any_of.setdefault(name, example)
        asked = task.data.asked(example)
        if asked is None or not SMALLEST <= asked.mean() <= LARGEST:
            continue
        if vqa_accuracy(given[example.id], example.answers) >= 0.9:
            found[name] = example
    found = any_of | found
    if not found:
        raise AtlasError(
            f"conf/experiment: shown: no question of {', '.join(groups)}; name other groups of questions"
        )
    return [found[name] for name in groups if name in found]
