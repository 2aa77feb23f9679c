"""Table 1 of "Attention as Grounding": quality of the generated texts per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    `drop_unknown`: remove the word `<unk>` from a generated text before scoring. `compare`: pairs of models
    whose differences are reported; pairs with a model that is not in `models` are left out.
    """

    def __init__(
        self,
        models: list[str],
        drop_unknown: bool = False,
        name: str = "captions",
        compare: Sequence[Sequence[str]] = (),
    ) -> None:
        if not models:
            raise AtlasError("models: the list is empty; name at least one model")
        self.name, self.models = name, list(models)
        self.drop_unknown = drop_unknown
        self.compare = [(a, b) for a, b in compare if {a, b} <= set(models)]

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
        split, study, seed = cfg.study.split, cfg.study.name, int(cfg.seed)
        return caption_table(corpus, split, texts, study, seed, self.compare), {}


def caption_table(
    corpus: Corpus,
    split: str,
    texts: Mapping[str, Mapping[str, str]],
    study: str,
    seed: int = 0,
    compare: Sequence[tuple[str, str]] = (),
) -> pd.DataFrame:
    """One row per model and metric, per cent, with a 95 % bootstrap interval over images.

    All texts about an image are its references. Each model has a second set of rows with input `other`: its
    texts about the next image, scored as texts about this one. Measure `different`: the share of pairs of
    images with different texts. compare: pairs (a, b) of models; rows with `against` hold the difference
    a − b, from the same resamples.
    """
    from attention_atlas.measures.bootstrap import LEAST_IMAGES, interval, resampling_matrix
    from attention_atlas.measures.table import make_table
    from attention_atlas.measures.text.score import score_models

    references: dict[str, list[str]] = {}
    for example in corpus.split(split):
        references.setdefault(example.image_id, []).append(example.text)
    both = {
        (model, shown): captions for model, own in texts.items() for shown, captions in _both(own).items()
    }
    named = {" ".join(filter(None, key)): captions for key, captions in both.items()}
    results = dict(zip(both, score_models(references, named).values(), strict=True))
    images = sorted(references)
    counts_BI = resampling_matrix(len(images), seed=seed)
    rows: list[dict[str, Any]] = []

    def add(scored: tuple[float, np.ndarray], **row: Any) -> None:
        value, value_B = scored
        low, high = interval(value_B) if len(images) >= LEAST_IMAGES else (np.nan, np.nan)
        if row["measure"] == "METEOR" and np.isnan(value):
            row["condition"] = "not computed: needs Java"
        about = {"study": study, "data": corpus.name, "kind": "text", "n": len(images)}
        rows.append(about | row | {"value": value, "ci_low": float(low), "ci_high": float(high)})

    found = {
        (model, shown, measure): _scored(measure, result, images, counts_BI)
        for (model, shown), result in results.items()
        for measure in SHOWN
    }
    for (model, shown, measure), scored in found.items():
        add(scored, model=model, measure=measure, input=shown)
    for model, own in texts.items():
        share, share_B = (
            different([own[i] for i in images], c) for c in (np.ones((1, len(images))), counts_BI)
        )
        add((float(share[0]), share_B), model=model, measure="different")
    for first, second in compare:
        for measure in SHOWN:
            (a, a_B), (b, b_B) = found[first, "", measure], found[second, "", measure]
            add((a - b, a_B - b_B), model=first, against=second, measure=measure)
    return make_table(rows)


def different(texts: Sequence[str], counts_BI: np.ndarray) -> np.ndarray:
    """(B,) per cent of the pairs of different images whose texts differ, in each resample of the images;
    NaN without such a pair."""
    known = {text: n for n, text in enumerate(dict.fromkeys(texts))}
    one_IT = np.eye(len(known))[[known[text] for text in texts]]
    total_B, same_B = counts_BI.sum(1) ** 2, ((counts_BI @ one_IT) ** 2).sum(1)
    pairs_B = total_B - (counts_BI**2).sum(1)
    return np.divide(100 * (total_B - same_B), pairs_B, out=np.full(len(pairs_B), np.nan), where=pairs_B > 0)


def _both(own: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """By input: a model's texts and, for two images or more, each image with the text about the next
    one."""
    images = sorted(own)
    if len(images) < 2:
        return {"": own}
    turned = {image: own[after] for image, after in zip(images, [*images[1:], images[0]])}
    return {"": own, "other": turned}


def _scored(
    measure: str, result: Mapping[str, Any], images: list[str], counts_BI: np.ndarray
) -> tuple[float, np.ndarray]:
    """The score and that of each resample (B,); NaN if it was not computed. BLEU is recomputed from the
    n-gram counts. METEOR aggregates its own statistics, so its resamples are those of the mean over images,
    shifted to the corpus value; CIDEr and WMD are means."""
    if result["scores"].get(measure) is None:
        return float("nan"), np.full(len(counts_BI), np.nan)
    value = float(result["scores"][measure])
    if measure.startswith("BLEU"):
        from attention_atlas.measures.text.bleu import corpus_bleu

        stats_IC = np.array([result["bleu_counts"][i] for i in images], float)
        return value, 100 * corpus_bleu(counts_BI @ stats_IC, int(measure[-1]))
    per_image = np.array([result["per_example"][measure][i] for i in images])
    return value, counts_BI @ per_image / len(images) + (value - float(per_image.mean()))
