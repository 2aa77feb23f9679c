"""Do the models of study 2 predict text equally well? Their perplexity on the reference captions of the test
images, which none of them wrote.

An image tells a captioner the nouns, which no text-only model can know. The other words show better what
both have learned about language, although some of them (colours, numbers) are visible too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.studies.metric_table import MetricTable

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from omegaconf import DictConfig

    from attention_atlas.language.parsed import Parse
    from attention_atlas.workflow.stage import Job

NOUNS, OTHERS, EVERY = "nouns", "other words", "all words"
NOMINAL = ("NOUN", "PROPN")


class Perplexity(MetricTable):
    """Perplexity per word of each run's model on the captions of `split`, and the ratio of each pair of
    `compare`.

    A word's probability is the product of those of its pieces, so models with different vocabularies can be
    compared. The end of a caption does not count, nor does a word that a captioner does not know (UNK).
    """

    def __init__(
        self,
        runs: Mapping[str, Mapping[str, Any]],
        compare: Sequence[Sequence[str]],
        split: str = "test",
        name: str = "perplexity",
    ) -> None:
        self.runs = {str(n): dict(run) for n, run in runs.items() if run.get("convention", "used") == "used"}
        self.compare = [(str(a), str(b)) for a, b in compare if {a, b} <= set(self.runs)]
        self.split, self.name = split, name

    def measure(self, cfg: DictConfig, job: Job, out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        from hydra.utils import instantiate

        from attention_atlas.dumps.runs import forced
        from attention_atlas.language.parse import read_parses
        from attention_atlas.measures.table import make_table
        from attention_atlas.models.load import load_model, source_of
        from attention_atlas.regions.features_file import FeaturesFile, with_regions

        corpus = instantiate(cfg.data.reader)
        parses = {p.id: p for p in read_parses(job.input(cfg.paths.parses))}
        found: dict[str, dict[str, np.ndarray]] = {}
        with FeaturesFile(job.input(cfg.paths.features), check_values=False) as features:
            seen = with_regions(corpus, features)
            for name, run in self.runs.items():
                model, vocab, config = load_model(source_of(cfg, job, str(run["model"])), job.device)
                task = forced(vocab, split=self.split, image=str(run.get("image", "own")), seed=int(cfg.seed))
                task.prepare(seen, features, vocab, config)
                found[name] = word_log_probs(task, model, job.device)
        images = {e.id: e.image_id for e in corpus.examples}
        about = {"study": cfg.study.name, "data": cfg.data.name}
        return make_table(
            about | row for row in perplexity_rows(found, self.compare, parses, images, int(cfg.seed))
        ), {}


def word_log_probs(task: Any, model: Any, device: str = "cpu") -> dict[str, np.ndarray]:
    """{example: (W,) log-probability of each word, nats; NaN for UNK}. task: a prepared dumps.runs.forced."""
    import torch

    from attention_atlas.dumps.images import ImageDump
    from attention_atlas.language.vocabulary import UNK

    found: dict[str, np.ndarray] = {}
    for batch in task.batches(()):
        inputs = {name: value.to(device) for name, value in batch.inputs.items()}
        next_BT = inputs["ids_BT"][:, 1:]
        with torch.no_grad():
            log_BTV = task.forward(model, inputs)[:, : next_BT.shape[1]].log_softmax(-1)
        log_BT = log_BTV.gather(-1, next_BT[..., None])[..., 0].double().cpu().numpy()
        if isinstance(task, ImageDump):
            log_BT[next_BT.cpu().numpy() == UNK] = np.nan
        for id_, axes, log_T in zip(batch.ids, batch.axes, log_BT, strict=True):
            word_T = np.array(axes["target"].word[: len(log_T)])
            log_W = np.zeros(word_T.max(initial=-1) + 1)
            np.add.at(log_W, word_T[word_T >= 0], log_T[: len(word_T)][word_T >= 0])
            found[id_] = log_W
    return found


def perplexity_rows(
    found: Mapping[str, Mapping[str, np.ndarray]],
    compare: Sequence[tuple[str, str]],
    parses: Mapping[str, Parse],
    images: Mapping[str, str],
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Rows of a metric table: the perplexity of each model, and for each pair (a, b) that of a over that of b
    (statistic `ratio`), 95 % bootstrap over images. found: `word_log_probs` by model.

    Raises AtlasError if an example has no parse, or nothing to count.
    """
    from attention_atlas.measures.bootstrap import interval, ratio, resampled_ratio, resampling_matrix

    ids = sorted(set.intersection(*(set(words) for words in found.values())))
    missing = next((i for i in ids if i not in parses), None)
    if missing is not None:
        raise AtlasError(
            f"perplexity: example '{missing}' has no parse; run the parse stage of this data set"
        )
    order = {image: n for n, image in enumerate(dict.fromkeys(images[i] for i in ids))}
    counts_BI = resampling_matrix(len(order), seed=seed)
    for condition in (OTHERS, NOUNS, EVERY):
        lost = {name: np.zeros(len(order)) for name in found}
        count_I = np.zeros(len(order))
        for i in ids:
            log_MW = [words[i] for words in found.values()]
            length = min(len(log_W) for log_W in log_MW)  # a captioner reads at most max_words
            known_W = np.all([np.isfinite(log_W[:length]) for log_W in log_MW], axis=0)
            noun_W = np.array([t.pos in NOMINAL for t in parses[i].tokens[:length]])
            kept_W = known_W & {NOUNS: noun_W, OTHERS: ~noun_W, EVERY: np.full(length, True)}[condition]
            count_I[order[images[i]]] += kept_W.sum()
            for name, log_W in zip(found, log_MW):
                lost[name][order[images[i]]] -= log_W[:length][kept_W].sum()
        if not count_I.any():
            raise AtlasError(f"perplexity: no caption has {condition} that every model knows")
        base = {"kind": "text", "measure": "perplexity", "condition": condition, "n": int(count_I.sum())}
        differences = [
            ({"model": a, "against": b, "statistic": "ratio"}, lost[a] - lost[b]) for a, b in compare
        ]
        for named, loss_I in [*(({"model": name}, lost[name]) for name in found), *differences]:
            low, high = np.exp(interval(resampled_ratio(loss_I, count_I, counts_BI)))
            limits = {"ci_low": float(low), "ci_high": float(high)}
            yield base | named | {"value": float(np.exp(ratio(loss_I, count_I)))} | limits
