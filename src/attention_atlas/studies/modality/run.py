"""Study 2 from its dumps: one table for all runs, the captions for figures, the page of head views."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attention_atlas.data.corpus import Corpus
from attention_atlas.language.parse import read_parses
from attention_atlas.measures.analysed import Study
from attention_atlas.measures.compare import compare
from attention_atlas.measures.metric import Metric
from attention_atlas.measures.results import write_results
from attention_atlas.recording import AttentionStore
from attention_atlas.studies.modality.examples import choose_half, collect, write_examples
from attention_atlas.studies.modality.page import write_page
from attention_atlas.studies.modality.words import WordStore


def open_studies(
    study: Mapping[str, Any], attention: Path, parses: Path, corpus: Corpus, data: str, seed: int
) -> dict[str, Study]:
    """One Study per run of conf/study/modality.yaml, all over words."""
    known = {p.id: p for p in read_parses(parses)}
    images = {e.id: e.image_id for e in corpus.examples}
    return {
        name: Study(
            store=WordStore(AttentionStore(attention / name / "attention.h5")),
            parses=known,
            image_ids=images,
            name=study["name"],
            model=name,
            data=data,
            seed=seed,
        )
        for name in study["runs"]
    }


def run_modality(
    metrics: Mapping[str, Metric],
    study: Mapping[str, Any],
    attention: Path,
    parses: Path,
    corpus: Corpus,
    features: Any,
    out: Path,
    data: str = "",
    seed: int = 0,
) -> dict[str, float]:
    """Write `out`/tables/metrics.csv, tables/examples.json, heads.html and metrics.json; return the numbers
    for MLflow."""
    studies = open_studies(study, attention, parses, corpus, data, seed)
    pairs = [(str(a), str(b)) for a, b in study["compare"]]
    frame = compare(metrics, studies, pairs)
    shown = [str(name) for name in study["pair"]]
    titles = {name: str(run.get("title", name)) for name, run in study["runs"].items()}
    first = studies[shown[0]]
    chosen = choose_half({i: first.parses[i] for i in first.ids}, int(study.get("examples", 4)), seed)
    content = collect({n: studies[n] for n in shown}, titles, corpus, features, chosen, shown[0])
    write_examples(out / "tables" / "examples.json", content)
    write_page(out / "heads.html", content)
    own = {name: _own_share(study) for name, study in studies.items()}
    about = {
        "captions": len(first.ids),
        "runs": len(studies),
        "resamples": first.resamples,
        "share on own earlier pieces": {k: v for k, v in own.items() if v},
    }
    numbers = write_results(out, frame, about)
    for opened in studies.values():
        opened.store.close()  # type: ignore[attr-defined]
    return numbers


def _own_share(study: Study) -> float:
    """Attention of a generated word's later pieces to its earlier ones, which no metric counts: mean over
    captions."""
    store: Any = study.store
    return round(sum(store.own(i, "decoder_self") for i in study.ids) / len(study.ids), 4)
