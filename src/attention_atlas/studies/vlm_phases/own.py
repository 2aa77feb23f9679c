"""Study 5 for one model and data set in one go: dump, tables, figures, and the reasons for omitted parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import read_json
from attention_atlas.studies.metric_table import Measure, table_of
from attention_atlas.studies.vlm_phases.context_rows import Contextualisation
from attention_atlas.studies.vlm_phases.dump_file import opened
from attention_atlas.studies.vlm_phases.knockout_rows import CHANGE, Knockout, Winoground
from attention_atlas.studies.vlm_phases.lens_rows import LogitLens
from attention_atlas.studies.vlm_phases.norm_rows import NormAttention
from attention_atlas.studies.vlm_phases.probe import missing
from attention_atlas.studies.vlm_phases.run import ABOUT, PhasesDump, draw, dump_phases
from attention_atlas.studies.vlm_phases.shown import Shown
from attention_atlas.studies.vlm_phases.winoground_scores import quadruples

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from attention_atlas.data.corpus import Corpus
    from attention_atlas.models.vlm.loaded import LoadedVlm
    from attention_atlas.workflow.stage import Job

DUMP, TABLES, FIGURES = "dump", "tables", "figures"
SAMPLES = {"context": 600, "lens": 400, "norm": 100, "knockout": 64, "pairs": 200}
BLOCKS = ("text → image", "image → image")
ALL_SPLITS = "train+extra+val+test"
NAMED = {
    "lens": "logit lens",
    "normalised": "logit lens behind the final norm",
    "norm": "norm-based attention",
    "knockout": "knock-out",
    "pairs": "word-order pairs",
    "places": "attention over the image",
}
_HERE = "attention_atlas.studies.vlm_phases"
# {figure: (the part that it needs, function, its settings)}, as in conf/figure/vlm_phases.yaml.
DRAWN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lens": ("normalised", "figures.lens", {}),
    "lens_plain": ("lens", "figures.lens", {"condition": "plain"}),
    "context": ("context", "figures.context", {}),
    "context_over_baseline": ("context", "figures.over_baseline", {}),
    "norm": ("norm", "figures_norm.tokens_by_layers", {}),
    "norm_image": ("places", "figures_norm.over_image", {}),
    "norm_modality": ("norm", "figures_norm.by_modality", {}),
    "attention_modality": (
        "norm",
        "figures_norm.by_modality",
        {"measure": "attention share", "label": "share of the weights (%)"},
    ),
    "norm_modality_no_sinks": ("norm", "figures_norm.by_modality", {"measure": "norm share, no sinks"}),
    "concentration": ("norm", "figures_norm.concentration", {}),
    "knockout": ("knockout", "figures.knockout", {}),
    "knockout_own_image": ("knockout", "figures.knockout", {"measure": CHANGE}),
}
WITH_SHOWN = ("norm", "norm_image")


@dataclass
class Phases:
    """The results. notes: one line for each part that is left out; figures: their files."""

    notes: list[str]
    figures: list[Path]


def phases(
    loaded: LoadedVlm,
    corpus: Corpus,
    out: Path,
    work: Path,
    *,
    title: str,
    config_hash: str,
    samples: Mapping[str, int | None] = SAMPLES,
    prompt: str = "describe the picture.",
    split: str = ALL_SPLITS,
    study: str = "vlm_phases",
    seed: int = 0,
    workers: int = 1,
) -> Phases:
    """Write dump/, tables/, metrics.json and figures/ below `out`; the dump resumes from `work`.

    title: the model's name in the figures. samples: number for each part (see PhasesDump). Raises AtlasError
    if study 5 is impossible with the model or the data; single impossible parts are left out and noted."""
    from attention_atlas.measures.results import write_results
    from attention_atlas.models.vlm.samples import samples_of

    drawn = samples_of(corpus, draw(corpus.split(split), seed), prompt)
    absent = missing(loaded, drawn)
    try:
        if not quadruples(corpus.split(split)):
            absent["pairs"] = "no column 'pair' names two of the texts"
    except AtlasError as error:
        absent["pairs"] = str(error)
    layers = len(loaded.decoder_layers)
    settings = PhasesDump(
        {part: 0 if part in absent else wanted for part, wanted in samples.items()},
        blocks=BLOCKS,
        width=window(layers),
        prompt=prompt,
        split=split,
        pair_split=split,
        lens=("plain",) if "normalised" in absent else ("plain", "normalised"),
    )
    dump_phases(
        *(loaded, corpus, settings, out / DUMP, work),
        data=corpus.name,
        config_hash=config_hash,
        seed=seed,
    )
    measures: dict[str, Measure] = {
        "context": Contextualisation(),
        "lens": LogitLens(switches=tuple(settings.lens)),
        "norm": NormAttention(),
        "knockout": Knockout(),
        "winoground": Winoground(),
    }
    frame = table_of(measures, opened([out / DUMP], seed), study=study)
    Shown().write(opened([out / DUMP], seed), out / TABLES / "shown.json")
    about = read_json(out / DUMP / ABOUT)
    if "norm" not in absent and not (about["grid"] or any(about["places"].values())):
        absent["places"] = "the places of the model's image tokens are not known"
    notes = [f"{NAMED[part]}: left out: {reason}" for part, reason in absent.items()]
    write_results(out, frame, {"left out": notes})
    return Phases(notes, _figures(loaded.name, title, corpus.name, out, _parts(absent, samples), workers))


def window(layers: int) -> int:
    """Layers that are cut at a time: 5, as in the study of published models, fewer in a shallow model."""
    return max(1, min(5, layers // 3))


def _parts(absent: Mapping[str, str], samples: Mapping[str, int | None]) -> set[str]:
    """Parts for which figures can be drawn."""
    there = {part for part, wanted in samples.items() if wanted != 0 and part not in absent}
    there |= {"normalised"} if "lens" in there and "normalised" not in absent else set()
    return there | ({"places"} if "norm" in there and "places" not in absent else set())


def _figures(model: str, title: str, data: str, out: Path, parts: set[str], workers: int) -> list[Path]:
    from attention_atlas.plotting.draw import draw_all

    named: dict[str, Any] = {"models": {model: title}, "data": {data: data}}
    shown = {"shown": str(out / TABLES / "shown.json")}
    entries = {
        name: {"_target_": f"{_HERE}.{function}", **named, **(shown if name in WITH_SHOWN else {}), **more}
        for name, (part, function, more) in DRAWN.items()
        if part in parts
    }
    return draw_all(entries, out / TABLES / "metrics.csv", out / FIGURES, workers=workers)


def own_corpus(folder: Path) -> Corpus:
    """A user's images and texts: texts.csv or captions.csv in `folder`, with the columns image,text
    (data/folder.py); images below images/, or beside it. Raises AtlasError for missing or invalid files."""
    from attention_atlas.data.folder import read_folder

    if not folder.is_dir():
        raise ConfigError(f"--data: {folder}: no such folder; give one with images and texts.csv")
    names = ("texts.csv", "captions.csv")
    texts = next((folder / name for name in names if (folder / name).is_file()), None)
    if texts is None:
        raise ConfigError(
            f"--data: {folder}: has no {' or '.join(names)}; add one with the columns image,text"
        )
    images = folder / "images"
    return read_folder(images if images.is_dir() else folder, texts, name=folder.resolve().name)


@dataclass(frozen=True)
class OwnPhases:
    """What `pipeline.metrics` runs for the study vlm_phases_own: `phases` of cfg.model over cfg.data.

    samples, prompt, split: see `phases`."""

    samples: Mapping[str, int | None]
    prompt: str = "describe the picture."
    split: str = ALL_SPLITS

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, float]:
        from hydra.utils import instantiate

        from attention_atlas.models.load import source_of
        from attention_atlas.models.vlm.load import load_vlm
        from attention_atlas.workflow.digests import config_hash

        made = phases(
            load_vlm(source_of(cfg, job), job.device),
            instantiate(cfg.data.reader),
            job.out(cfg.paths.results),
            job.work(),
            title=str(cfg.model.get("title") or cfg.model.name),
            config_hash=config_hash(cfg),
            samples=dict(self.samples),
            prompt=self.prompt,
            split=self.split,
            study=str(cfg.study.name),
            seed=int(cfg.seed),
            workers=int(cfg.workers),
        )
        for note in made.notes:
            print(f"note: {note}")
        for path in made.figures:
            if path.suffix == ".png":
                job.run.artifact(path)
        return {"figures": float(len(made.figures))}
