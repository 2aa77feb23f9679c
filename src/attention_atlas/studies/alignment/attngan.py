"""Evaluation of AttnGAN runs: whether images match their captions, and which regions attend to each word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from attention_atlas.capture.seam import AttentionCall, recording
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.words import words
from attention_atlas.measures.generation import frechet_distance, r_precision
from attention_atlas.models.inception import InceptionReader, as_bytes
from attention_atlas.studies.alignment.result import RunResult, Shown
from attention_atlas.studies.alignment.scan import BARE
from attention_atlas.training.fact_reader import FactReader
from attention_atlas.training.tasks.damsm import blocks, embeddings

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Example, Scene

GAIN = "attribute gain"


class _Weights:
    """A recorder that keeps the weights (B,Q,T) of each stage's word attention."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []

    def wants(self, module: nn.Module) -> bool:
        return True

    def attend(self, call: AttentionCall) -> Tensor:
        self.kept.append(call.weights()[:, 0].float().cpu().numpy())
        return call.context()

    def residual_input(self, module: nn.Module, x: Tensor) -> None:
        """No-op: the generators have no such attention."""


@dataclass
class AttnGanEvaluator:
    """split, judged: the first caption of each image, `judged` of them (0: all). classifier: run folder of
    the image classifier, null if there is none (real images). candidates: number of texts in R-precision.
    shown: number of images whose attention is drawn. noise_seed: gives every alignment the same noise.
    inception: weights file of the Inception network, for IS and FID under their own names; null: not
    computed."""

    split: str = "test"
    judged: int = 0
    classifier: str | None = None
    candidates: int = 100
    shown: int = 6
    noise_seed: int = 7
    inception: str | None = None

    def __post_init__(self) -> None:
        if self.candidates < 2:
            raise ConfigError(f"conf/model: evaluator: candidates: must be at least 2, not {self.candidates}")

    def __call__(self, model: Any, task: Any, device: str = "cpu") -> RunResult:
        """Scores: "R-precision" and "attribute accuracy" in per cent with their chances, "classifier score"
        and "classifier Fréchet distance" (the formulas of IS and FID with the world's own classifier, not
        comparable to IS and FID); with `inception` those of InceptionReader.scores, against the real
        images of the whole split. Rows for each caption; grounding by `grounded`."""
        # Read first, so that a missing file is reported before hours of generation.
        inception = None if self.inception is None else InceptionReader(self.inception, device)
        model = model.to(device).eval()
        pairs = self.pairs(task, model.size)
        numbers = pairs.first_captions(self.judged)
        examples = [pairs.examples[i] for i in numbers]
        made_NCSS, attention = self.images(model, pairs, numbers, device)
        scores, rows = self.precision(model, pairs, numbers, made_NCSS)
        true_NCSS = pairs.pixels.batch(examples)
        if self.classifier is not None:
            more, read = self.attributes(examples, made_NCSS, true_NCSS, device)
            scores, rows = scores | more, rows + read
        if inception is not None:
            made = (as_bytes(made_NCSS[rows]) for rows in blocks(list(range(len(made_NCSS)))))
            real = (
                torch.stack([pairs.pixels.get(pairs.examples[i]) for i in rows])
                for rows in blocks(pairs.first_captions())
            )
            scores |= inception.scores(made, real)
        scenes = [task.corpus.scene(e) for e in examples]
        turned_N = mirrored(made_NCSS, true_NCSS)
        grounding = [
            row
            for e, s, w, turned in zip(examples, scenes, attention, turned_N)
            for row in grounded(e, s, w, task.max_words, turned)
        ]
        return RunResult(scores, rows, grounding, self.show(examples, made_NCSS, attention))

    def pairs(self, task: Any, size: int) -> Any:
        from attention_atlas.training.pairs import Pairs

        given = (task.corpus, self.split, task.vocab, size, task.max_words)
        return Pairs(*given, mirror=False)

    @torch.no_grad()
    def images(
        self, model: Any, pairs: Any, numbers: list[int], device: str
    ) -> tuple[Tensor, list[np.ndarray]]:
        """Generated images (N,3,S,S) and the last stage's weights (Q,T) of each for its own words."""
        generator = torch.Generator().manual_seed(self.noise_seed)
        noise_NZ = torch.randn(len(numbers), model.generator.noise, generator=generator)
        made, attention = [], []
        # Conditioning augmentation draws from the global generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.noise_seed)
            for rows in blocks(list(range(len(numbers)))):
                batch = pairs.batch([numbers[r] for r in rows])
                inputs = {"ids_BT": batch["ids_BT"], "noise_BZ": noise_NZ[rows]}
                keeper = _Weights()
                with recording(keeper):
                    made.append(model({k: v.to(device) for k, v in inputs.items()}).float().cpu())
                lengths = (batch["ids_BT"] != 0).sum(1).tolist()
                attention += [w_QT[:, :n] for w_QT, n in zip(keeper.kept[-1], lengths)]
        return torch.cat(made), attention

    @torch.no_grad()
    def precision(
        self, model: Any, pairs: Any, numbers: list[int], made_NCSS: Tensor
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        found = []
        for rows in blocks(list(range(len(numbers)))):
            batch = pairs.batch([numbers[r] for r in rows]) | {"pixels_BCSS": made_NCSS[rows]}
            found.append(embeddings(model.damsm, batch))
        image_ND, text_ND = (np.concatenate(x) for x in zip(*found))
        hits, chance = r_precision(image_ND, text_ND, self.candidates)
        scores = {"R-precision": 100 * float(hits.mean()), "chance R-precision": 100 * chance}
        names = [pairs.examples[i] for i in numbers]
        return scores, [_row(e, "R-precision", 100 * float(hit)) for e, hit in zip(names, hits)]

    def attributes(
        self, examples: list[Example], made_NCSS: Tensor, true_NCSS: Tensor, device: str
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Each caption's share of facts that the classifier reads from its image; the mean over captions
        that state any. "chance attribute accuracy": the same mean over the images of all captions; GAIN:
        the difference, which has an interval over images."""
        assert self.classifier is not None
        reader = FactReader(self.classifier, device)
        stated = [reader.reading.stated(e) for e in examples]
        if not any(stated):
            raise AtlasError(
                f"{self.classifier}: no caption of split '{self.split}' states a fact that it reads; train "
                "it on this data"
            )
        probabilities, features = reader(made_NCSS)
        true_probabilities, true_features = reader(true_NCSS)
        rates = reader.rates(probabilities, stated)
        rows, shares, chances = [], [], []
        for example, hits, facts in zip(examples, reader.hits(probabilities, stated), stated):
            if hits:
                shares.append(100 * float(np.mean(list(hits.values()))))
                chances.append(100 * float(np.mean([rates[fact] for fact in facts.items()])))
                rows.append(_row(example, "attribute accuracy", shares[-1]))
                rows.append(_row(example, GAIN, shares[-1] - chances[-1]))
                rows += [
                    {**_row(example, "attribute", 100 * hit), "type": slot}
                    for slot, hit in sorted(hits.items())
                ]
        real = [np.mean(list(h.values())) for h in reader.hits(true_probabilities, stated) if h]
        return {
            "attribute accuracy": float(np.mean(shares)),
            "chance attribute accuracy": float(np.mean(chances)),
            GAIN: float(np.mean(shares) - np.mean(chances)),
            "attribute accuracy of real images": 100 * float(np.mean(real)),
            "classifier score": reader.score(probabilities),
            "classifier Fréchet distance": frechet_distance(features, true_features),
        }, rows

    def show(self, examples: list[Example], made_NCSS: Tensor, attention: list[np.ndarray]) -> list[Shown]:
        """Examples evenly spaced over the captions. Row w of the attention is the distribution of word w
        over the image: the transposed weights divided by their sum."""
        if self.shown < 1:
            return []
        out = []
        for n in list(range(0, len(examples), max(1, len(examples) // self.shown)))[: self.shown]:
            weights_TQ = spread(attention[n])
            side = round(weights_TQ.shape[1] ** 0.5)
            pixels = as_bytes(made_NCSS[n]).permute(1, 2, 0).numpy()
            out.append(
                Shown(
                    example=examples[n].id,
                    pixels=np.ascontiguousarray(pixels),
                    size=(pixels.shape[1], pixels.shape[0]),
                    words=[w.text for w in words(examples[n].text)][: len(weights_TQ)],
                    attn_WN=weights_TQ,
                    grid=(side, side),
                    text=examples[n].text,
                )
            )
        return out


def _row(example: Example, metric: str, value: float) -> dict[str, Any]:
    return {"example": example.id, "metric": metric, "value": value, "image": example.image_id}


def spread(weights_QT: np.ndarray) -> np.ndarray:
    """Weights (Q,T) of regions over words -> (T,Q), each word's received weight, normalised over the
    regions."""
    received_TQ = weights_QT.T
    return received_TQ / np.maximum(received_TQ.sum(1, keepdims=True), 1e-12)


def mirrored(made_NCSS: Tensor, true_NCSS: Tensor) -> list[bool]:
    """Whether each generated image is closer, in mean absolute difference, to the mirror image of the
    real one."""
    straight_N = (made_NCSS - true_NCSS).abs().flatten(1).mean(1)
    turned_N = (made_NCSS - true_NCSS.flip(-1)).abs().flatten(1).mean(1)
    return (turned_N < straight_N).tolist()


def grounded(
    example: Example, scene: Scene, weights_QT: np.ndarray, max_words: int, turned: bool = False
) -> Iterator[dict[str, Any]]:
    """A row for each word of a phrase that refers to objects of the scene, from the transposed last attention
    of the generator: the share of the regions' weight on this word that comes from inside the objects' boxes;
    chance is the boxes' share of the regions.

    A proxy: the positions of parts in the generated image are unknown, so the boxes are those of the
    caption's own real image, mirrored (`turned`) if the generated one is closer to its mirror image
    (decided by pixels, not by attention).
    """
    if not scene.width or not any(p.objects for p in example.phrases):
        return
    side = round(len(weights_QT) ** 0.5)
    spread_TQ = spread(weights_QT)
    for i, word in enumerate(words(example.text)[: min(max_words, len(spread_TQ))]):
        over = [p for p in example.phrases if p.start <= word.start and word.end <= p.end and p.objects]
        if not over or word.text.lower() in BARE or not any(c.isalnum() for c in word.text):
            continue
        inside_YX = covered(scene, min(over, key=lambda p: p.end - p.start).objects, side)
        inside_Q = (inside_YX[:, ::-1] if turned else inside_YX).ravel()
        if inside_Q.any():
            yield {
                "example": example.id,
                "word": word.text.lower(),
                "mass": float(spread_TQ[i][inside_Q].sum()),
                "chance": float(inside_Q.mean()),
                "top1": int(inside_Q[int(spread_TQ[i].argmax())]),
            }


def covered(scene: Scene, objects: Sequence[int], side: int) -> np.ndarray:
    """(side,side) bool: cells of a grid over the image whose centre is in a box of these objects."""
    inside_YX = np.zeros((side, side), bool)
    middle = (np.arange(side) + 0.5) / side
    for number in objects:
        x1, y1, x2, y2 = scene.object(number).box
        x, y = middle * scene.width, middle * scene.height
        inside_YX |= ((y >= y1) & (y < y2))[:, None] & ((x >= x1) & (x < x2))[None]
    return inside_YX
