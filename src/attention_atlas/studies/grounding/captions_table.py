"""Table 1 of "Attention as Grounding": quality of the generated texts per model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError
from attention_atlas.studies.metric_table import MetricTable

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from omegaconf import DictConfig

    from attention_atlas.workflow.stage import Job

SHOWN = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "CIDEr", "WMD")


class Captions(MetricTable):
    """BLEU-1..4, METEOR, CIDEr and WMD of each model in `models` (run names under data/generated).

    `drop_unknown`: remove the word `<unk>` from a generated text before scoring.
    """

    def __init__(self, models: list[str], drop_unknown: bool = False, name: str = "captions") -> None:
        if not models:
            raise AtlasError("models: the list is empty; name at least one model")
        self.name, self.models = name, list(models)
        self.drop_unknown = drop_unknown

    def measure(self, cfg: DictConfig, job: Job, out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        from hydra.utils import instantiate

        from attention_atlas.data.generated import read_generated
        from attention_atlas.regions.features_file import FeaturesFile, with_regions

        with FeaturesFile(job.input(cfg.paths.features), check_values=False) as features:
            corpus = with_regions(instantiate(cfg.data.reader), features)
        texts = {m: read_generated(job.input(f"{cfg.paths.texts}/{m}.jsonl")) for m in self.models}
        if self.drop_unknown:
            texts = {
                m: {i: " ".join(w for w in t.split() if w != "<unk>") for i, t in rows.items()}
                for m, rows in texts.items()
            }
        return caption_table(corpus, cfg.study.split, texts, cfg.study.name, int(cfg.seed)), {}


def caption_table(
    corpus: Corpus, split: str, texts: Mapping[str, Mapping[str, str]], study: str, seed: int = 0
) -> pd.DataFrame:
    """One row per model and metric, per cent, with a 95 % bootstrap interval over images.

    All texts about an image are its references. Each model has a second set of rows with input `other`: its
    texts about the next picture, scored as texts about this one.
    """
    from attention_atlas.measures.table import make_table
    from attention_atlas.measures.text.score import score_models

    references: dict[str, list[str]] = {}
    for example in corpus.split(split):
        references.setdefault(example.image_id, []).append(example.text)
    rows = []
    both = {
        (model, shown): captions for model, own in texts.items() for shown, captions in _both(own).items()
    }
    named = {" ".join(filter(None, key)): captions for key, captions in both.items()}
    scores = score_models(references, named).values()
    for (model, shown), result in zip(both, scores, strict=True):
        for metric in SHOWN:
            value = result["scores"].get(metric)
            row: dict[str, Any] = {"study": study, "model": model, "data": corpus.name, "kind": "text"}
            row |= {"measure": metric, "input": shown, "n": result["n"], "value": value}
            if value is None:
                row["condition"] = "not computed: needs Java"
            else:
                low, high = _interval(metric, float(value), result, sorted(references), seed)
                row |= {"ci_low": low, "ci_high": high}
            rows.append(row)
    return make_table(rows)


def _both(own: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """By input: a model's texts and, for two pictures or more, each picture with the text about the next
    one."""
    images = sorted(own)
    if len(images) < 2:
        return {"": own}
    turned = {image: own[after] for image, after in zip(images, [*images[1:], images[0]])}
    return {"": own, "other": turned}


def _interval(
    metric: str, value: float, result: Mapping[str, Any], images: list[str], seed: int
) -> tuple[float, float]:
    """BLEU is recomputed from the n-gram counts of each resample. METEOR aggregates its own statistics, so
    its interval is that of the mean over images, shifted to the corpus value; CIDEr and WMD are means. A
    single image has no interval (NaN)."""
    from attention_atlas.measures.bootstrap import LEAST_IMAGES, interval, resampling_matrix

    if len(images) < LEAST_IMAGES:
        return float("nan"), float("nan")
    counts_BI = resampling_matrix(len(images), seed=seed)
    if metric.startswith("BLEU"):
        from attention_atlas.measures.text.bleu import corpus_bleu

        stats_IC = np.array([result["bleu_counts"][i] for i in images], float)
        low, high = interval(100 * corpus_bleu(counts_BI @ stats_IC, int(metric[-1]))[:, None])
        return float(low[0]), float(high[0])
    per_image = np.array([result["per_example"][metric][i] for i in images])
    low, high = interval((counts_BI @ per_image / len(images))[:, None])
    moved = value - float(per_image.mean())
    return float(low[0]) + moved, float(high[0]) + moved
