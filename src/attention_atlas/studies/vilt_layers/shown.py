"""Data of single questions for figures: text, answer, boxes and maps of words and CLS over the patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.data.corpus import Corpus
from attention_atlas.data.images import image_to_base64
from attention_atlas.data.patches import asked_objects
from attention_atlas.errors import AtlasError
from attention_atlas.files import read_json, write_json
from attention_atlas.recording import AttentionStore, Axis
from attention_atlas.studies.vilt_layers.answers import CHOSEN, group

if TYPE_CHECKING:
    from attention_atlas.studies.vilt_layers.record import Record

SCHEMA = "atlas.vilt_shown/2"
KIND, AXIS = "joint", "sequence"


def patch_grid(axis: Axis) -> tuple[int, int]:
    """Number of rows and columns of the patches, from the name of the last patch."""
    patches = [token for token, role in zip(axis.tokens, axis.roles) if role == "image"]
    try:
        rows, columns = (int(part) for part in patches[-1].split(","))
    except (IndexError, ValueError):
        raise AtlasError(
            "attention: the axis does not name patches by row and column; run the dump again"
        ) from None
    if rows * columns != len(patches):
        raise AtlasError(f"attention: {len(patches)} patches are not {rows} × {columns}; run the dump again")
    return rows, columns


def write_shown(attention: Path, corpus: Corpus, given: Mapping[str, str], folder: Path) -> None:
    """Write `folder`/shown.json: per question its text, how it was chosen, answers, image (PNG as base64),
    boxes of the things asked about, and `maps` {word: (L, rows, columns)}, attention averaged over heads (not
    renormalised). Raises AtlasError if the dump lacks the file of how its questions were chosen."""
    examples = {e.id: e for e in corpus.examples}
    path = attention.with_name(CHOSEN)
    chosen = read_json(path, "run the dump of questions again")
    out = []
    with AttentionStore(attention) as store:
        for id in store.ids:
            example = examples[id]
            scene = corpus.scene(example)
            objects = asked_objects([p.objects for p in example.phrases], scene)
            attn_LHQK = store.read(id, KIND)
            entry: dict[str, Any] = {
                "id": id,
                "chosen": chosen[id],
                "question": example.text,
                "group": group(example),
                "answer": given[id],
                "people": example.answers,
                "size": [scene.width, scene.height],
                "boxes": [list(o.box) for o in objects],
                "image": image_to_base64(corpus.image_path(example.image_id)),
                "maps": word_maps(attn_LHQK, store.axis(id, AXIS)),
            }
            out.append(entry)
    write_json(folder / "shown.json", {"schema": SCHEMA, "questions": out})


def word_maps(attn_LHQK: np.ndarray, axis: Axis) -> list[dict[str, Any]]:
    """[{word, map (L, rows, columns) as lists}] of the words and of CLS."""
    rows, columns = patch_grid(axis)
    patches = np.array([role == "image" for role in axis.roles])
    mean_LQK = attn_LHQK.mean(1)
    maps = []
    for place, (token, role) in enumerate(zip(axis.tokens, axis.roles)):
        if role in ("bos", "text") and any(c.isalnum() for c in token):
            grid = mean_LQK[:, place][:, patches].reshape(-1, rows, columns)
            maps.append({"word": token, "map": np.round(grid.astype(float), 5).tolist()})
    return maps


def write_distribution(record: Record, pairs: Sequence[Sequence[str]], path: Path) -> None:
    """Write {"groups": N names, "values": {measure: {condition: (N,L) means over heads}}} of the [measure,
    condition] pairs, for figures of the distribution over questions; NaN as null."""
    table: dict[str, dict[str, Any]] = {}
    for measure, condition in record.present(pairs, "distribution"):
        value_NLH, _ = record.values[measure, condition]
        rows = np.round(value_NLH.mean(2).astype(float), 4).tolist()
        table.setdefault(measure, {})[condition] = [[v if v == v else None for v in row] for row in rows]
    groups = [group(e) for e in record.captured]
    write_json(path, {"schema": "atlas.distribution/2", "groups": groups, "values": table})
