"""Summary of study 1's data for metrics.json."""

from __future__ import annotations

from collections import Counter
from typing import Any

from attention_atlas.measures.annotated import AnnotatedAttention


def about(attention: AnnotatedAttention) -> dict[str, Any]:
    """Sizes, model, linker, regions and texts of the measured data."""
    return {
        "examples": len(attention.ids),
        "images": attention.images,
        "capture": str(attention.store.attrs.get("convention", "")),
        "linker": attention.linker,
        "model": attention.model,
        "regions": attention.regions,
        "resamples": attention.resamples,
    } | _language(attention)


def _language(attention: AnnotatedAttention) -> dict[str, Any]:
    """Means per text of words, noun phrases (all nesting levels), linked phrases and relations, by type."""
    n = len(attention.ids)
    parses = [attention.parses[id_] for id_ in attention.ids]
    linked = sum(len(attention.links.get(id_, ())) for id_ in attention.ids)
    types = Counter(relation.type for parse in parses for relation in parse.relations)
    return {
        "words_per_text": _short(sum(len(p.tokens) for p in parses) / n),
        "phrases_per_text": _short(sum(len(p.phrases) for p in parses) / n),
        "linked_phrases_per_text": _short(linked / n),
        "relations": dict(sorted(types.items())),
        "relations_per_text": _short(sum(types.values()) / n),
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")
