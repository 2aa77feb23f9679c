"""What study 1 says about its data, for metrics.json."""

from __future__ import annotations

from collections import Counter
from typing import Any

from attention_atlas.measures.analysed import Study


def about(study: Study) -> dict[str, Any]:
    """Sizes, model, linker, regions and texts of what was measured."""
    return {
        "examples": len(study.ids),
        "images": study.images,
        "capture": str(study.store.attrs.get("convention", "")),
        "linker": study.linker,
        "model": study.model,
        "regions": study.regions,
        "resamples": study.resamples,
    } | _language(study)


def _language(study: Study) -> dict[str, Any]:
    """Means per text of words, noun phrases (all nesting levels), linked phrases and relations, by type."""
    n = len(study.ids)
    parses = [study.parses[id_] for id_ in study.ids]
    types = Counter(relation.type for parse in parses for relation in parse.relations)
    return {
        "words_per_text": _short(sum(len(p.tokens) for p in parses) / n),
        "phrases_per_text": _short(sum(len(p.phrases) for p in parses) / n),
        "linked_phrases_per_text": _short(sum(len(study.links.get(id_, ())) for id_ in study.ids) / n),
        "relations": dict(sorted(types.items())),
        "relations_per_text": _short(sum(types.values()) / n),
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")
