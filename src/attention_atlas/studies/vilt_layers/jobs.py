"""What the pipeline runs for study 4: answers, the dumps, and the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import ConfigError
from attention_atlas.studies.metric_table import Measure, MetricTable, table_of

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from omegaconf import DictConfig

    from attention_atlas.workflow.stage import Job


class Answers:
    """Answers of `cfg.model` to all questions of the split, with their own and with another image."""

    def __init__(self, name: str = "answers", split: str = "test") -> None:
        self.name, self.split = name, split

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, float]:
        from hydra.utils import instantiate

        from attention_atlas.files import write_jsonl
        from attention_atlas.models.run_folder import load_run
        from attention_atlas.studies.vilt_layers.answers import answer_split, score

        corpus = instantiate(cfg.data.reader)
        job.input(corpus.root)
        folder = job.input(cfg.paths.model)
        model, vocab, config = load_run(folder, job.device)
        rows = answer_split(model, corpus, self.split, vocab, config, folder, job.device)
        write_jsonl(job.out(cfg.paths.text), rows)
        return score(rows, corpus)


class QuestionsDump:
    """statistics.h5 of many questions, attention.h5 of those that are shown (dump.py). shown: groups of
    questions; one question of each is shown (see dump.choose)."""

    def __init__(self, shown: Sequence[str]) -> None:
        self.shown = list(shown)

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, float]:
        from hydra.utils import instantiate

        from attention_atlas.dumps.dump import read_settings
        from attention_atlas.models.run_folder import load_run
        from attention_atlas.studies.vilt_layers.dump import dump_questions
        from attention_atlas.workflow.digests import config_hash

        if cfg.capture.get("shards", 1) != 1 or cfg.capture.get("engine", "local") != "local":
            raise ConfigError(
                "capture: this dump chooses questions to show as well; it takes no shards and no engine"
            )
        corpus = instantiate(cfg.data.reader)
        folder = job.input(cfg.paths.model)
        given = job.input(cfg.paths.text)
        model, vocab, config = load_run(folder, job.device)
        task = instantiate(cfg.capture.dump)
        task.prepare(corpus, None, vocab, config)
        return dump_questions(
            task,
            model,
            read_settings(cfg.capture.settings),
            self.shown,
            given,
            job.out(cfg.paths.attention),
            job.work(),
            model_name=cfg.model.name,
            config_hash=config_hash(cfg),
            device=job.device,
            seed=cfg.seed,
        )


class HeadsDump:
    """heads.npz (head_file.py). splits, examples: for judging single heads, and for pruning."""

    def __init__(self, splits: Sequence[str], examples: Sequence[int]) -> None:
        self.splits, self.examples = (splits[0], splits[1]), (examples[0], examples[1])

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, float]:
        from hydra.utils import instantiate

        from attention_atlas.models.run_folder import load_run
        from attention_atlas.studies.vilt_layers.head_file import mask_heads, save_heads

        corpus = instantiate(cfg.data.reader)
        job.input(corpus.root)
        folder = job.input(cfg.paths.model)
        model, vocab, config = load_run(folder, job.device)
        found = mask_heads(
            model,
            corpus,
            vocab,
            config,
            folder,
            splits=self.splits,
            examples=self.examples,
            device=job.device,
            seed=cfg.seed,
        )
        save_heads(job.out(f"{cfg.paths.texts}/heads.npz"), found)
        return {"accuracy": 100 * float(found["whole"][..., 0].mean())}


class Metrics(MetricTable):
    """metrics.csv, distribution.json, shown.json and metrics.json: `measures` over the attention, answers and
    silenced heads. least, optional: see record.Record. distribution: the [measure, condition] pairs whose
    values by question distribution.json holds."""

    def __init__(
        self,
        measures: Mapping[str, Measure],
        distribution: Sequence[Sequence[str]],
        least: int = 10,
        optional: Sequence[str] = ("asked",),
    ) -> None:
        self.measures = {str(name): measure for name, measure in measures.items()}
        self.distribution, self.least, self.optional = distribution, least, list(optional)

    def measure(self, cfg: DictConfig, job: Job, out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        from hydra.utils import instantiate

        from attention_atlas.studies.vilt_layers.answer_rows import Who
        from attention_atlas.studies.vilt_layers.answers import majority, read_given
        from attention_atlas.studies.vilt_layers.head_file import read_heads
        from attention_atlas.studies.vilt_layers.record import Record
        from attention_atlas.studies.vilt_layers.shown import write_distribution, write_shown

        corpus = instantiate(cfg.data.reader)
        job.input(corpus.root)
        study, attention = cfg.study, job.input(cfg.paths.attention)
        model = cfg.model.name
        given, blind = (job.input(f"{cfg.paths.texts}/{name}.jsonl") for name in (model, study.blind))
        answers = {Who(model): read_given(given), Who(study.blind): read_given(blind)}
        answers[Who(model, input="other")] = read_given(given, "other")
        questions = corpus.split(study.split)
        for by in study.baselines:
            answers[Who("majority", condition=by)] = majority(corpus.split("train"), questions, by)
        record = Record(
            model,
            corpus,
            study.split,
            attention / "statistics.h5",
            answers,
            read_heads(job.input(f"{cfg.paths.texts}/heads.npz")),
            least=self.least,
            optional=self.optional,
            seed=cfg.seed,
        )
        frame = table_of(self.measures, [record], study=study.name, data=cfg.data.name, model=model)
        write_distribution(record, self.distribution, out / "tables" / "distribution.json")
        write_shown(attention / "attention.h5", corpus, answers[Who(model)], out / "tables")
        return frame, {}
