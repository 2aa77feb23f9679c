"""Study 2 from its dumps: one table for all runs, the captions for figures, the page of head views."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.data.corpus import Corpus
from attention_atlas.language.parse import read_parses
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.compare import compare
from attention_atlas.measures.metric import Metric
from attention_atlas.measures.table import make_table
from attention_atlas.recording import AttentionStore
from attention_atlas.studies.modality.examples import choose_half, collect, write_examples
from attention_atlas.studies.modality.page import write_page
from attention_atlas.studies.modality.pos import word_shares
from attention_atlas.studies.modality.words import WordStore

if TYPE_CHECKING:
    import pandas as pd


def open_runs(
    study: Mapping[str, Any], attention: Path, parses: Path, corpus: Corpus, data: str, seed: int
) -> dict[str, AnnotatedAttention]:
    """The attention of each run of conf/study/modality.yaml, all over words."""
    known = {p.id: p for p in read_parses(parses)}
    images = {e.id: e.image_id for e in corpus.examples}
    return {
        name: AnnotatedAttention(
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
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table and its notes; writes `out`/tables/examples.json and heads.html."""
    import pandas as pd

    runs = open_runs(study, attention, parses, corpus, data, seed)
    pairs = [(str(a), str(b)) for a, b in study["compare"]]
    frame = compare(metrics, runs, pairs)
    shown = [str(name) for name in study["pair"]]
    titles = {name: str(run.get("title", name)) for name, run in study["runs"].items()}
    first = runs[shown[0]]
    frame = pd.concat([frame, make_table(word_shares(first))], ignore_index=True)
    chosen = choose_half({i: first.parses[i] for i in first.ids}, int(study.get("examples", 4)), seed)
    content = collect({n: runs[n] for n in shown}, titles, corpus, features, chosen, shown[0])
    write_examples(out / "tables" / "examples.json", content)
    write_page(out / "heads.html", content)
    own = {name: _own_share(attention) for name, attention in runs.items()}
    about = {
        "captions": len(first.ids),
        "runs": len(runs),
        "resamples": first.resamples,
        "share on own earlier pieces": {k: v for k, v in own.items() if v},
    }
    for opened in runs.values():
        opened.store.close()  # type: ignore[attr-defined]
    return frame, about


def _own_share(attention: AnnotatedAttention) -> float:
    """Attention of a generated word's later pieces to its earlier ones, which no metric counts: mean over
    captions."""
    store: Any = attention.store
    return round(sum(store.own(i, "decoder_self") for i in attention.ids) / len(attention.ids), 4)
