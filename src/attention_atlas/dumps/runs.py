"""Several dumps of one study over the same texts, with different models, images or conventions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.dumps.dump import DumpSettings, dump
from attention_atlas.dumps.images import ImageDump
from attention_atlas.dumps.text_only import TextOnlyDump
from attention_atlas.errors import ConfigError
from attention_atlas.language.subwords import Subwords
from attention_atlas.models.load import Source, load_model

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus
    from attention_atlas.regions.features_file import FeaturesFile

# Only runs with the caption's own image need more than the decoder's attention to words.
TEXT_ONLY_LAYERS = "decoder_self.*"
BATCH = 50  # captions are short


def forced(vocab: Any, *, split: str, image: str = "own", seed: int = 0) -> ImageDump | TextOnlyDump:
    """The dump task of a model with this vocabulary, teacher-forced: a captioner on `image`, or a text-only
    model."""
    if isinstance(vocab, Subwords):
        return TextOnlyDump(split=split, batch_size=BATCH)
    return ImageDump(split=split, image=image, seed=seed, batch_size=BATCH)


def dump_runs(
    runs: Mapping[str, Mapping[str, Any]],
    source_of: Callable[[str], Source],
    corpus: Corpus,
    features: FeaturesFile,
    out: Path,
    work: Path,
    *,
    split: str,
    config_hash: str,
    seed: int = 0,
    device: str = "cpu",
    backend: str = "materialised",
) -> dict[str, float]:
    """Write `out`/<run>/attention.h5 for every run of conf/study: {model, image, convention, kinds}.

    source_of: model name -> source that `load_model` reads. Runs on their own image keep cross-attention
    too (`kinds`: globs "kind.layer" to keep instead). Returns the number of examples by run.
    """
    found: dict[str, float] = {}
    for name, run in runs.items():
        unknown = sorted(set(run) - {"model", "title", "image", "convention", "kinds"})
        if unknown or "model" not in run:
            what = f"unknown '{unknown[0]}'" if unknown else "no model"
            raise ConfigError(f"runs: {name}: {what}; known: model, title, image, convention, kinds")
        image, convention = run.get("image", "own"), run.get("convention", "used")
        model, vocab, config = load_model(source_of(run["model"]), device)
        task = forced(vocab, split=split, image=image, seed=seed)
        sees = isinstance(task, ImageDump) and image == "own"
        layers = [TEXT_ONLY_LAYERS, "cross.*"] if sees else [TEXT_ONLY_LAYERS]
        task.prepare(corpus, features, vocab, config)
        settings = DumpSettings(
            ["attn"], backend, convention, run.get("kinds", layers), check=convention == "used"
        )
        numbers = dump(
            task,
            model,
            settings,
            Path(out) / name,
            Path(work) / name,
            model_name=name,
            config_hash=config_hash,
            device=device,
        )
        found[f"{name} examples"] = numbers["examples"]
    return found
