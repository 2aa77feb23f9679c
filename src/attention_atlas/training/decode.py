"""Generate captions with a trained captioner: the class of conf/decode/*.yaml, and its output rows.

A decoder for another task (e.g. answers) is a separate class with the same `rows` method, and one YAML.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.progress import progress

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from attention_atlas.data.corpus import Example
    from attention_atlas.regions.features_file import FeaturesFile
    from attention_atlas.workflow.stage import Job


@dataclass
class CaptionDecoder:
    """Greedy or beam search over the images of some examples; see models/search.py for the scoring."""

    beam: int = 2
    max_words: int = 150
    length_power: float = 0.0
    suppress_unk: bool = True
    batch_size: int = 50
    name: str = ""
    features: str = ""  # path of features.h5
    split: str = "test"

    def __post_init__(self) -> None:
        for name in ("beam", "max_words", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"CaptionDecoder: {name}: must be at least 1, not {getattr(self, name)}")

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, float]:
        """Describe the images of the analysed split: data/generated/<study>/<model>.jsonl."""
        from hydra.utils import instantiate

        from attention_atlas.files import write_jsonl
        from attention_atlas.models.load import check_features, load_model, source_of
        from attention_atlas.regions.features_file import FeaturesFile, with_regions

        model, vocab, config = load_model(source_of(cfg, job), job.device)
        corpus = instantiate(cfg.data.reader)
        with FeaturesFile(job.input(self.features)) as features:
            check_features(config, features)
            examples = with_regions(corpus, features).split(self.split)
            rows = list(self.rows(model, vocab, examples, features, job.device))
        write_jsonl(job.out(cfg.paths.text), rows)
        return {"words per text": sum(row["words"] for row in rows) / len(rows)}

    def rows(
        self, model: Any, vocab: Any, examples: Sequence[Example], features: FeaturesFile, device: str = "cpu"
    ) -> Iterator[dict[str, Any]]:
        """One row per image, in the order of the examples: image_id, text (words joined by spaces), words,
        score (sum of log-probabilities, nats, over length**length_power), ended (whether EOS was
        generated)."""
        from attention_atlas.models.search import generate
        from attention_atlas.training.captions import RegionCache

        if not examples:
            raise AtlasError("corpus: no example in this split; check data and split names")
        images = list(dict.fromkeys(e.image_id for e in examples))
        regions = RegionCache(features, keep_bytes=0)
        starts = range(0, len(images), self.batch_size)
        for start in progress(starts, "generate", len(starts)):
            part = images[start : start + self.batch_size]
            batch = {k: v.to(device) for k, v in regions.batch(part).items()}
            found = generate(model, batch, self.beam, self.max_words, self.length_power, self.suppress_unk)
            for image_id, caption in zip(part, found):
                words = vocab.decode(caption.ids)
                yield {
                    "image_id": image_id,
                    "text": " ".join(words),
                    "words": len(words),
                    "score": round(caption.score, 4),
                    "ended": caption.ended,
                }
