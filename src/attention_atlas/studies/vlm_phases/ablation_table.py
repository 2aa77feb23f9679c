"""Do vision LLMs use the image? Captions with their own image, with another one, and by a blind model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError
from attention_atlas.studies.metric_table import MetricTable

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from omegaconf import DictConfig

    from attention_atlas.workflow.stage import Job


class ImageAblation(MetricTable):
    """Log-probability per token (nats) and CIDEr (per cent) of each of `models` on `split` of the data set.

    blind: run name of the model tuned without images, "" for none. images: number of captions, of
    different images as far as possible; null = all. threads: CPU threads, 0 = all.
    """

    def __init__(
        self,
        models: list[str],
        blind: str | None = None,
        split: str = "test",
        images: int | None = None,
        prompt: str = "describe the picture.",
        batch_size: int = 32,
        threads: int = 0,
        name: str = "image_ablation",
    ) -> None:
        if not models:
            raise AtlasError("models: the list is empty; name at least one model")
        self.models, self.blind, self.split, self.prompt = list(models), blind, split, prompt
        self.images, self.batch_size, self.name, self.threads = images, batch_size, name, threads

    def measure(self, cfg: DictConfig, job: Job, out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:

        from hydra.utils import instantiate

        from attention_atlas.measures.table import make_table
        from attention_atlas.models.load import source_of
        from attention_atlas.models.vlm.load import load_vlm
        from attention_atlas.models.vlm.samples import samples_of
        from attention_atlas.studies.vlm_phases.image_ablation import (
            BLIND,
            OTHER,
            OWN,
            blind_log_probs,
            caption_rows,
            captions,
            gain_rows,
            log_probs,
        )
        from attention_atlas.studies.vlm_phases.run import draw
        from attention_atlas.threads import cpu_threads

        corpus = instantiate(cfg.data.reader)
        examples = corpus.split(self.split)
        drawn = samples_of(corpus, draw(examples, int(cfg.seed))[: self.images], self.prompt)
        references: dict[Path, list[str]] = {}
        for example in examples:
            references.setdefault(corpus.image_path(example.image_id), []).append(example.text)
        shown = {sample.image for sample in drawn}
        references = {image: texts for image, texts in references.items() if image in shown}

        def load(model: str) -> Any:
            return load_vlm(source_of(cfg, job, model), job.device)

        rows: list[dict[str, Any]] = []
        with cpu_threads(self.threads):
            blind_scores, blind_texts = {}, {}  # the same for every model
            if self.blind:
                blind = load(self.blind)
                blind_scores = blind_log_probs(blind, drawn, self.batch_size)
                blind_texts = captions(blind, drawn, [BLIND], self.batch_size)
            for model in self.models:
                loaded = load(model)
                about = {"study": cfg.study.name, "model": model, "data": cfg.data.name}
                found = log_probs(loaded, drawn, self.batch_size) | blind_scores
                rows += gain_rows(found, [s.image for s in drawn], about, int(cfg.seed))
                generated = captions(loaded, drawn, [OWN, OTHER], self.batch_size) | blind_texts
                rows += caption_rows(generated, references, about, int(cfg.seed))
        return make_table(rows), {}
