"""The dump of study 5: one model over one data set, all data for the analyses (statistics.h5, dump.json).

statistics.h5, kind `decoder`, per example: unit_sums (L+2,G,D), counts (G,), span (2,) of the text; of the
first `lens` samples lens_plain and lens_normalised (L+1,N) token ids; of the first `norm` samples norm and
attention (L,R,S); of the first `knockout` samples log_prob and log_prob_other (C,) by condition
and tokens (1,). Axes `row`, `sequence`.
dump.json: data of all samples: vocabulary, grid, conditions, samples in their order, Winoground scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.data.images import image_to_base64
from attention_atlas.errors import AtlasError, ConfigError, did_you_mean
from attention_atlas.files import link, write_json
from attention_atlas.progress import progress
from attention_atlas.recording import Axis, StatisticsWriter
from attention_atlas.studies.vlm_phases.knockout import OTHER, PLAIN, block_log_probs, decoder_call, windows
from attention_atlas.studies.vlm_phases.logit_lens import readable
from attention_atlas.studies.vlm_phases.measure import GROUPS, measure
from attention_atlas.studies.vlm_phases.norm_attention import ROWS
from attention_atlas.studies.vlm_phases.winoground_scores import quadruples, score_quadruples

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from attention_atlas.data.corpus import Corpus, Example
    from attention_atlas.models.vlm.loaded import LoadedVlm
    from attention_atlas.models.vlm.samples import Sample
    from attention_atlas.workflow.stage import Job

STATISTICS, ABOUT = "statistics.h5", "dump.json"
PARTS = ("context", "lens", "norm", "knockout", "pairs")
KIND, QUERY, KEY = "decoder", "row", "sequence"
HELD = "val+test"  # all splits that no model was trained on
SHOWN = 160  # pixels: the longer side of images kept for figures


@dataclass(frozen=True)
class PhasesDump:
    """What `pipeline.dump` runs for a vision LLM. samples: {context | lens | norm | knockout |
    pairs: how many, null = all}; every part takes the first of the same random order. blocks, width, stride:
    knock-out (knockout.windows). prompt: instruction; split, pair_split: as in Corpus.split, the second for
    pairs; images: how many samples' images are kept for the figures. threads: CPU threads, 0 = all."""

    samples: Mapping[str, int | None]
    blocks: Sequence[str] = ("text → image",)
    width: int = 3
    stride: int = 1
    prompt: str = "describe the picture."
    split: str = "test"
    pair_split: str = HELD
    batch_size: int = 16
    lens: Sequence[str] = ("plain", "normalised")
    images: int = 2
    threads: int = 0

    def __post_init__(self) -> None:
        for name in self.samples:
            if name not in PARTS:
                raise ConfigError(f"dump: samples: '{name}' is unknown{did_you_mean(str(name), PARTS)}")
        if self.batch_size < 1:
            raise ConfigError(f"dump: batch_size: must be at least 1, not {self.batch_size}")

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, Any]:
        """Dump `cfg.model` over `cfg.data` into data/attention/vlm_phases/<model>-<data>."""
        from hydra.utils import instantiate

        from attention_atlas.models.load import source_of
        from attention_atlas.models.vlm.load import load_vlm
        from attention_atlas.threads import cpu_threads
        from attention_atlas.workflow.digests import config_hash

        corpus = instantiate(cfg.data.reader)
        source = source_of(cfg, job)
        with cpu_threads(self.threads):
            return dump_phases(
                load_vlm(source, job.device),
                corpus,
                self,
                job.out(cfg.outputs.attention),
                job.work(),
                data=cfg.data.name,
                config_hash=config_hash(cfg),
                seed=cfg.seed,
            )

    def count(self, part: str, there: int) -> int:
        wanted = self.samples.get(part, 0)
        return there if wanted is None else min(int(wanted), there)


def draw(examples: Sequence[Example], seed: int) -> list[Example]:
    """A random order of image-text pairs in which no image repeats before all images have occurred."""
    rng = np.random.default_rng([seed, 5])
    turn: dict[str, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for i in rng.permutation(len(examples)):
        image = examples[i].image_id
        turn[image] = turn.get(image, -1) + 1
        ranked.append((turn[image], len(ranked), int(i)))
    return [examples[i] for *_, i in sorted(ranked)]


def dump_phases(
    loaded: LoadedVlm,
    corpus: Corpus,
    settings: PhasesDump,
    out: Path,
    work: Path,
    *,
    data: str,
    config_hash: str,
    seed: int = 0,
) -> dict[str, float]:
    """Write `out`/statistics.h5 and `out`/dump.json; resumes from `work` after a kill. Returns counts. Raises
    AtlasError if the split is empty."""
    from attention_atlas.models.vlm.samples import samples_of

    examples = corpus.split(settings.split)
    drawn = samples_of(corpus, draw(examples, seed), settings.prompt)
    counts = {part: settings.count(part, len(drawn)) for part in PARTS[:4]}
    drawn = drawn[: max(counts.values())]
    if not drawn:
        raise ConfigError("dump: samples: all are 0; ask for at least one analysis")
    blocks = windows(settings.blocks, len(loaded.decoder_layers), settings.width, settings.stride)
    work.mkdir(parents=True, exist_ok=True)
    with StatisticsWriter(
        work / STATISTICS,
        model=loaded.name,
        config_hash=config_hash,
        kinds={KIND: (QUERY, KEY)},
        groups={KEY: list(GROUPS)},
    ) as writer:
        size = 1 if loaded.alone else settings.batch_size
        for at, batch in progress(list(_batches(drawn, size, writer.done)), "samples"):
            found = _measured(loaded, batch, drawn, at, counts, settings)
            if min(at) < counts["knockout"]:
                _knock(loaded, batch, drawn, at, found, counts["knockout"], blocks)
            for i, (statistics, axes) in zip(at, found):
                writer.write(drawn[i].id, {KIND: statistics}, axes)
    held = corpus.split(settings.pair_split)
    most = settings.count("pairs", len(held))
    pairs = quadruples(held)[:most] if most else []
    scores = np.empty((0, 2, 2))
    if pairs:
        scores = score_quadruples(loaded, corpus, pairs, settings.prompt, settings.batch_size)
    out.mkdir(parents=True, exist_ok=True)
    link(work / STATISTICS, out / STATISTICS)
    grid = loaded.grid
    write_json(
        out / ABOUT,
        {
            "model": loaded.name,
            "data": data,
            "grid": list(grid) if grid else None,
            "layers": len(loaded.decoder_layers),
            "rows": list(ROWS),
            "groups": list(GROUPS),
            "conditions": [PLAIN, OTHER, *(b.name for b in blocks)],
            "counts": counts,
            "pieces": readable(_vocabulary(loaded)),
            "samples": [{"id": s.id, "image_id": s.image_id, "text": s.text} for s in drawn],
            "images": {s.id: image_to_base64(s.image, SHOWN) for s in drawn[: settings.images]},
            "places": {s.id: loaded.inputs.places(s) for s in drawn[: settings.images]},
            "pairs": [{"id": p.id, "scores": np.round(s, 5).tolist()} for p, s in zip(pairs, scores)],
        },
    )
    return {part: float(n) for part, n in counts.items()} | {"pairs": float(len(pairs))}


def _batches(drawn: Sequence[Sample], size: int, done: Any) -> Iterator[tuple[list[int], list[Sample]]]:
    for start in range(0, len(drawn), size):
        at = [i for i in range(start, min(start + size, len(drawn))) if drawn[i].id not in done]
        if at:
            yield at, [drawn[i] for i in at]


def _measured(
    loaded: LoadedVlm,
    batch: Sequence[Sample],
    drawn: Sequence[Sample],
    at: Sequence[int],
    counts: Mapping[str, int],
    settings: PhasesDump,
) -> list[tuple[dict[str, np.ndarray], dict[str, Axis]]]:
    """(statistics, axes) of each sample of the batch."""
    inputs, spans = loaded.batch(batch), loaded.text_spans(batch)
    roles = loaded.roles(inputs)
    wanted = settings.lens if min(at) < counts["lens"] else ()
    seen = measure(loaded, inputs, roles, spans, wanted, norm=min(at) < counts["norm"])
    out = []
    for b, i in enumerate(at):
        kept = [s for s, role in enumerate(roles[b]) if role != "pad"]
        statistics: dict[str, np.ndarray] = {
            "unit_sums": seen.sums[b],
            "counts": seen.counts[b],
            "span": np.array(spans[b], dtype=np.int32),
        }
        if i < counts["lens"]:
            statistics |= {f"lens_{name}": rows[b] for name, rows in seen.lens.items()}
        if i < counts["norm"] and seen.norm is not None and seen.attention is not None:
            statistics["norm"], statistics["attention"] = (
                seen.norm[b][..., kept],
                seen.attention[b][..., kept],
            )
        tokens = loaded.tokens(inputs["input_ids"][b, kept].tolist())
        out.append((statistics, {QUERY: Axis(ROWS), KEY: Axis(tokens, [roles[b][s] for s in kept])}))
    return out


def _knock(
    loaded: LoadedVlm,
    batch: Sequence[Sample],
    drawn: Sequence[Sample],
    at: Sequence[int],
    found: Sequence[tuple[dict[str, np.ndarray], dict[str, Axis]]],
    count: int,
    blocks: Sequence[Any],
) -> None:
    """Add log_prob, log_prob_other and tokens to the statistics of the batch's samples before `count`.

    log_prob_other has the same conditions with another image shown throughout: the cost of a block there is
    that of running in an unusual state, as that image has no information about the text."""
    few = [b for b, i in enumerate(at) if i < count]
    samples = [batch[b] for b in few]
    others = [other_image(drawn, at[b]).image for b in few]
    (plain, *blocked), spans = _blocked(loaded, samples, None, blocks)
    # Images of another size have a different number of positions.
    (other, *blocked_other), _ = _blocked(loaded, samples, others, blocks)
    own_NC = np.array([plain, other, *blocked], dtype=np.float32).T
    other_NC = np.array([other, other, *blocked_other], dtype=np.float32).T
    for own, strange_C, b, (start, stop) in zip(own_NC, other_NC, few, spans):
        found[b][0].update(log_prob=own, log_prob_other=strange_C)
        found[b][0]["tokens"] = np.array([stop - start], dtype=np.float32)


def _blocked(
    loaded: LoadedVlm, samples: Sequence[Sample], images: Sequence[Any] | None, blocks: Sequence[Any]
) -> tuple[list[list[float]], list[tuple[int, int]]]:
    """(log-probabilities of the samples' texts without a block and with each, their spans); images: shown
    instead of the samples' own."""
    inputs, spans = loaded.batch(samples, images=images), loaded.text_spans(samples, images=images)
    call = decoder_call(loaded, inputs)
    return block_log_probs(loaded, call, inputs, spans, loaded.roles(inputs), blocks), spans


def other_image(drawn: Sequence[Sample], index: int) -> Sample:
    """The next sample in the order with a different image. Raises AtlasError if there is none."""
    for step in range(1, len(drawn)):
        other = drawn[(index + step) % len(drawn)]
        if other.image_id != drawn[index].image_id:
            return other
    raise AtlasError("knock-out: all samples show one image; take more samples")


def _vocabulary(loaded: LoadedVlm) -> list[str]:
    """The piece of every token id; '' for ids of the output matrix that the tokenizer lacks."""
    known = len(loaded.inputs.tokenizer)
    size = known if loaded.head is None else int(loaded.head.weight.shape[0])
    known = min(size, known)
    return [piece or "" for piece in loaded.tokens(range(known))] + [""] * (size - known)
