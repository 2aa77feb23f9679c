"""Study 4 from its attention statistics, answers and silenced heads: the metric tables and a summary."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.data.patches import asked_objects, patches_of
from attention_atlas.errors import AtlasError
from attention_atlas.measures.bootstrap import RESAMPLES
from attention_atlas.measures.distribution import check_shares
from attention_atlas.measures.means import Sample, head_mean_rows, mean_rows
from attention_atlas.measures.table import make_table
from attention_atlas.measures.vqa_accuracy import vqa_accuracy
from attention_atlas.progress import progress
from attention_atlas.recording import StatisticsStore
from attention_atlas.studies.vilt_layers.answer_rows import Who, accuracy_rows
from attention_atlas.studies.vilt_layers.answers import group
from attention_atlas.studies.vilt_layers.heads import importance
from attention_atlas.studies.vilt_layers.measures import Question, measure, stack
from attention_atlas.studies.vilt_layers.rows import difference_rows, rank_correlation_rows
from attention_atlas.studies.vilt_layers.shown import patch_grid

if TYPE_CHECKING:
    import pandas as pd

    from attention_atlas.data.corpus import Corpus, Example, Scene

KIND, AXIS = "joint", "sequence"
RIGHT = 0.5


@dataclass
class LayerStudy:
    """conf/metrics/vilt_layers.yaml. compare: measures [metric, condition] to compare between each group of
    questions and all others, and between right and wrong answers. correlate: measures to correlate with the
    heads' importance. optional: measures that need annotated scenes; without them, `compare` and `correlate`
    leave these out."""

    compare: Sequence[Sequence[str]] = (("mass", "text → image"),)
    correlate: Sequence[Sequence[str]] = (("mass", "text → image"),)
    optional: Sequence[str] = ("asked",)
    permutations: int = 2000
    resamples: int = RESAMPLES
    least: int = 10  # minimum questions of a group to report it
    names: dict[str, str] = field(default_factory=dict)

    def __call__(
        self,
        statistics: Path,
        answers: Mapping[Who, Mapping[str, str]],
        heads: Mapping[str, np.ndarray],
        corpus: Corpus,
        *,
        model: str,
        split: str,
        seed: int = 0,
    ) -> pd.DataFrame:
        """answers: {who: {question id: answer}}; heads: the arrays of heads.npz."""
        examples = {e.id: e for e in corpus.examples}
        rows = self.attention_rows(statistics, answers[Who(model)], corpus, seed)
        rows += self.importance_rows(heads, examples, rows, seed)
        rows = [{"model": model} | row for row in rows]
        questions = sorted(corpus.split(split), key=lambda e: e.id)
        rows += accuracy_rows(questions, answers, model, self.resamples, seed)
        names = dict(self.names)
        return make_table(names | row for row in rows)

    def attention_rows(
        self, statistics: Path, given: Mapping[str, str], corpus: Corpus, seed: int
    ) -> list[dict[str, Any]]:
        """Every measure over all questions, by group, and for right and wrong answers; and the differences.
        Stores the values by question in `distribution`."""
        examples = {e.id: e for e in corpus.examples}
        with StatisticsStore(statistics) as store:
            ids = list(store.ids)
            for what, known in (("answers", given), ("questions", examples)):
                absent = [i for i in ids if i not in known]
                if absent:
                    raise AtlasError(f"{statistics}: '{absent[0]}' has no {what}; run the stages again")
            measured = [
                measure(read_question(store, examples[i], corpus.scene(examples[i])))
                for i in progress(ids, "measure")
            ]
        chosen = [examples[i] for i in ids]
        sample = Sample.of([e.image_id for e in chosen], self.resamples, seed)
        subsets = self.subsets(chosen, given)
        values = stack(measured)
        rows: list[dict[str, Any]] = []
        for (name, condition), (value_NLH, chance_N) in values.items():
            for subset, chosen_N in subsets.items():
                base = {"kind": KIND, "measure": name, "condition": condition, "group": subset}
                rows += head_mean_rows(sample, value_NLH, chosen_N, chance_N, base)
        compared = self.present(self.compare, {m for m, _ in values})
        for name, condition in compared:
            if (name, condition) not in values:
                raise AtlasError(
                    f"conf/metrics: compare: no measure [{name}, {condition}]; known: "
                    + "; ".join(f"{m}, {c}" for m, c in values)
                )
        self.distribution = (
            {(m, c): values[m, c][0] for m, c in compared},
            [group(e) for e in chosen],
        )
        everyone = np.ones(len(chosen), dtype=bool)
        for name, condition in compared:
            value_NLH = values[name, condition][0]
            for subset, chosen_N in subsets.items():
                if subset in ("", "wrong"):
                    continue
                against = "wrong" if subset == "right" else "others"
                second_N = subsets.get("wrong", ~everyone) if subset == "right" else ~chosen_N
                base = {"kind": KIND, "measure": name, "condition": condition}
                base |= {"group": subset, "against": against}
                rows += difference_rows(sample, value_NLH, chosen_N, second_N, base, self.permutations, seed)
        return rows

    def present(self, wanted: Sequence[Sequence[str]], measured: Collection[str]) -> list[tuple[str, str]]:
        """The [measure, condition] pairs, without optional measures that have no values."""
        return [(m, c) for m, c in wanted if m in measured or m not in self.optional]

    def subsets(self, chosen: Sequence[Example], given: Mapping[str, str]) -> dict[str, np.ndarray]:
        """{"": all, group: its questions, "right", "wrong"}; those with too few questions are left out."""
        groups = np.array([group(e) for e in chosen])
        right = np.array([vqa_accuracy(given[e.id], e.answers) >= RIGHT for e in chosen])
        found = {"": np.ones(len(chosen), dtype=bool)}
        found |= {str(name): groups == name for name in sorted(set(groups))}
        found |= {"right": right, "wrong": ~right}
        return {name: n for name, n in found.items() if n.sum() >= self.least}

    def importance_rows(
        self,
        heads: Mapping[str, np.ndarray],
        examples: Mapping[str, Example],
        attention: Sequence[Mapping[str, Any]],
        seed: int,
    ) -> list[dict[str, Any]]:
        """`importance` (conditions loss, accuracy; by group), its rank correlation with attention
        statistics, and `pruned` accuracy."""
        chosen = [examples[str(i)] for i in heads["ids"]]
        sample = Sample.of([e.image_id for e in chosen], self.resamples, seed)
        groups = np.array([group(e) for e in chosen])
        drop_NLH, loss_NLH = importance({k: heads[k] for k in ("whole", "without")})
        rows: list[dict[str, Any]] = []
        none = np.zeros(len(chosen))
        for condition, value_NLH in (("loss", loss_NLH), ("accuracy", 100 * drop_NLH)):
            for name in ["", *sorted(set(groups))]:
                chosen_N = groups == name if name else np.ones(len(chosen), dtype=bool)
                if not name or chosen_N.sum() >= self.least:
                    base = {"kind": KIND, "measure": "importance", "condition": condition, "group": name}
                    rows += head_mean_rows(sample, value_NLH, chosen_N, none, base)
        rows += rank_correlation_rows(
            {
                (m, c): matrix(attention, m, c, loss_NLH.shape[1:])
                for m, c in self.present(self.correlate, {str(row["measure"]) for row in attention})
            },
            loss_NLH.mean(0),
            {"kind": "importance correlation"},
        )
        return rows + self.pruned_rows(heads, examples, seed)

    def pruned_rows(
        self, heads: Mapping[str, np.ndarray], examples: Mapping[str, Example], seed: int
    ) -> list[dict[str, Any]]:
        """Accuracy (per cent) by number of silenced heads (setting); condition: the order of the heads."""
        chosen = [examples[str(i)] for i in heads["pruned_ids"]]
        sample = Sample.of([e.image_id for e in chosen], self.resamples, seed)
        groups = np.array([group(e) for e in chosen])
        rows = []
        for order in ("importance", "random"):
            for column, count in enumerate(heads["steps"].tolist()):
                for name in ["", *sorted(set(groups))]:
                    chosen_N = groups == name if name else np.ones(len(chosen), dtype=bool)
                    if not name or chosen_N.sum() >= self.least:
                        base = {"kind": KIND, "measure": "pruned", "condition": order}
                        base |= {"group": name, "setting": str(count)}
                        values_N = 100 * heads[f"pruned_{order}"][:, column]
                        rows += mean_rows(sample, values_N[:, None], base, chosen_N=chosen_N)
        return rows


def read_question(store: StatisticsStore, example: Example, scene: Scene) -> Question:
    """One question's statistics, and the number of patches that show what it asks about."""
    id = example.id
    mass_LHQG, axis = store.read(id, KIND, "mass"), store.axis(id, AXIS)
    objects = asked_objects([p.objects for p in example.phrases], scene)
    asked = 0
    if objects:
        boxes = [o.box for o in objects]
        asked = int(patches_of(boxes, (scene.width, scene.height), patch_grid(axis)).sum())
    where = f"{store.path}: examples/{id}/{KIND}"
    check_shares(mass_LHQG, f"{where}/mass")
    norm_LHQ = store.read(id, KIND, "head_norm") if "head_norm" in store.names(id, KIND) else None
    entropy_LHQ = store.read(id, KIND, "entropy")
    check_shares(entropy_LHQ / np.log(max(len(axis), 2)), f"{where}/entropy over its maximum")
    return Question(mass_LHQG, entropy_LHQ, axis, store.groups[AXIS], asked, norm_LHQ)


def matrix(
    rows: Sequence[Mapping[str, Any]], measure: str, condition: str, shape: tuple[int, ...]
) -> np.ndarray:
    """(L,H) values of one measure over all questions, among the rows."""
    out = np.full(shape, np.nan)
    for row in rows:
        of = (row["measure"], row["condition"], row["group"], row.get("against", ""))
        if of == (measure, condition, "", "") and row["head"] >= 0:
            out[row["layer"], row["head"]] = row["value"]
    if np.isnan(out).any():
        raise AtlasError(f"conf/metrics: correlate: no measure [{measure}, {condition}] per head")
    return out
