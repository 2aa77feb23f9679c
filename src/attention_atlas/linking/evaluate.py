"""Table 2 of "Attention as Grounding": mAP@K and accuracy of a linking method against gold.

*All phrases* are all noun phrases of the parser, including pronouns and stopped ones: an unlinkable one
counts as wrong, as in the paper (27, 82 and 87 of 196 are its 13.78, 41.84 and 44.39 %). *Linkable phrases*
are those that are not stopped and refer to at least one region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError
from attention_atlas.language.parsed import Parse
from attention_atlas.linking.base import Linker, link
from attention_atlas.linking.gold_file import GoldSpan, gold_of_context, gold_spans
from attention_atlas.linking.run import similarities
from attention_atlas.regions.features_file import FeaturesFile


@dataclass
class LinkScores:
    """Per-phrase results of one method; arrays over all parsed phrases of the evaluated examples.

    `right`: a linked region is gold; `strict`: all linked regions are gold; `ap`: average precision;
    `chance_right`, `chance_ap`: their expectation for a random ranking. All are 0 for unlinkable phrases.
    """

    method: str
    measure: str
    image: list[str] = field(default_factory=list)
    linkable: list[bool] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    strict: list[float] = field(default_factory=list)
    ap: list[float] = field(default_factory=list)
    chance_right: list[float] = field(default_factory=list)
    chance_ap: list[float] = field(default_factory=list)
    how: list[str] = field(default_factory=list)  # alignment of each phrase with gold
    regions: int = 0  # K: maximum number of regions of an image

    def rows(self, draws: int = 2000, seed: int = 0) -> list[dict[str, object]]:
        """Tidy rows: measure, condition (all | linkable), value, ci_low, ci_high, n, chance.

        Values are shares (0..1); the interval is a 95 % bootstrap over images.
        """
        table: list[dict[str, object]] = []
        metrics = (
            (f"mAP@{self.regions}", self.ap, self.chance_ap),
            ("accuracy", self.right, self.chance_right),
            ("accuracy_strict", self.strict, self.chance_right),
        )
        for condition, kept in (("all", np.ones(len(self.image), bool)), ("linkable", self.linkable)):
            chosen = np.flatnonzero(np.asarray(kept))
            images = np.asarray(self.image, dtype=object)[chosen]
            for metric, values, chance in metrics:
                kept_values = np.asarray(values, float)[chosen]
                low, high = bootstrap_mean(kept_values, images, draws, seed)
                table.append(
                    {
                        "measure": metric,
                        "condition": condition,
                        "value": float(kept_values.mean()) if len(chosen) else float("nan"),
                        "ci_low": low,
                        "ci_high": high,
                        "n": len(chosen),
                        "chance": float(np.asarray(chance)[chosen].mean()) if len(chosen) else float("nan"),
                    }
                )
        return table

    def coverage(self) -> dict[str, float]:
        """Fractions of parsed phrases aligned by span, head word or members, or without gold."""
        n = max(1, len(self.how))
        return {name or "none": self.how.count(name) / n for name in ("span", "head", "members", "")}


def evaluate(
    parses: Sequence[Parse],
    corpus: Corpus,
    features: FeaturesFile,
    linker: Linker,
    gold: dict[str, list[GoldSpan]] | None = None,
    threshold: float = 0.1,
) -> LinkScores:
    """Score `linker` against gold: `read_gold_csv(...)`, or None for the gold of a rendered world.

    Uses only examples with gold; raises AtlasError if there are none.
    """
    if gold is None:
        gold = {e.id: gold_spans(e.phrases) for e in corpus.examples if e.phrases}
    else:
        unknown = sorted(set(gold) - {e.id for e in corpus.examples})
        if unknown:
            raise AtlasError(
                f"gold: example_id: '{unknown[0]}' is not in data set '{corpus.name}'; correct the gold file"
            )
    chosen = [p for p in parses if p.id in gold]
    if not chosen:
        raise AtlasError(
            f"gold: no parsed example of data set '{corpus.name}' has gold links; give a gold file "
            "(CSV: example_id,start,end,regions)"
        )
    scores = LinkScores(linker.name, linker.measure)
    for context, similarity_PN in similarities(chosen, corpus, features, linker, threshold):
        linked = link(similarity_PN, linker.tolerance)
        row_of = {(p.start, p.end): i for i, p in enumerate(context.phrases)}
        count = context.regions.count
        scores.regions = max(scores.regions, count)
        phrases = context.parse.phrases
        golds = gold_of_context(context, phrases, gold[context.parse.id])
        for phrase, right in zip(phrases, golds, strict=True):
            row = row_of.get((phrase.start, phrase.end))
            linkable = row is not None and bool(right.regions)
            scores.image.append(context.regions.image_id)
            scores.how.append(right.how)
            scores.linkable.append(linkable)
            if row is None or not right.regions:
                for values in (scores.right, scores.strict, scores.ap):
                    values.append(0.0)
                scores.chance_right.append(0.0)
                scores.chance_ap.append(0.0)
                continue
            relevant_N = np.zeros(count, bool)
            relevant_N[sorted(right.regions)] = True
            found = set(linked[row])
            scores.right.append(float(bool(found & right.regions)))
            scores.strict.append(float(bool(found) and found <= right.regions))
            scores.ap.append(average_precision(similarity_PN[row], relevant_N))
            scores.chance_right.append(len(right.regions) / count)
            scores.chance_ap.append(chance_average_precision(len(right.regions), count))
    return scores


def average_precision(similarity_N: np.ndarray, relevant_N: np.ndarray) -> float:
    """AP@K = sum over k of P_k (R_k - R_(k-1)), K = all N regions by decreasing similarity (eq. 4).

    The paper writes m, the number of phrases, as the upper bound, but the sum is over ranks. Regions with
    equal similarity share one cut-off, so their order in the file has no effect. NaN ranks last. Raises
    AtlasError if no region is relevant.
    """
    total = int(relevant_N.sum())
    if total == 0:
        raise AtlasError("average precision: no region is relevant; exclude the phrase")
    score_N = np.where(np.isnan(similarity_N), -np.inf, similarity_N)
    order = np.argsort(-score_N, kind="stable")
    hits_K = np.cumsum(relevant_N[order])
    sorted_K = score_N[order]
    last_K = np.append(sorted_K[1:] != sorted_K[:-1], True)  # end of each group of ties
    hits = hits_K[last_K]
    precision = hits / (np.flatnonzero(last_K) + 1)
    recall = hits / total
    return float((precision * np.diff(recall, prepend=0.0)).sum())


def chance_average_precision(relevant: int, regions: int) -> float:
    """Expected AP of a random order without ties, with R = `relevant` of N = `regions` relevant.

    Up to and including a relevant region at rank k there are on average 1 + (k-1)(R-1)/(N-1) relevant ones;
    averaged over ranks: (H_N + (R-1)/(N-1) (N - H_N)) / N with the harmonic number H_N.
    """
    if regions == 1:
        return float(relevant)
    harmonic = float((1 / np.arange(1, regions + 1)).sum())
    return (harmonic + (relevant - 1) / (regions - 1) * (regions - harmonic)) / regions


def bootstrap_mean(
    values: np.ndarray, images: np.ndarray, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean of `values`, resampling images."""
    from attention_atlas.measures.bootstrap import interval, resampled_ratio, resampling_matrix

    if len(values) == 0:
        return float("nan"), float("nan")
    _, index = np.unique(images.astype(str), return_inverse=True)
    sums_IC, counts_IC = np.bincount(index, values)[:, None], np.bincount(index)[:, None].astype(float)
    low, high = interval(resampled_ratio(sums_IC, counts_IC, resampling_matrix(len(sums_IC), draws, seed)))
    return float(low[0]), float(high[0])
