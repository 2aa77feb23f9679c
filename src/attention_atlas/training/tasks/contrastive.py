"""Train an image tower contrastively on captions (CLIP), and on the content of patches where annotated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import write_json

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus
    from attention_atlas.models.vlm.samples import Sample

SCHEMA = "atlas.clip/1"
# Number of images whose patches initialise the words' frequencies.
STARTING = 256


@dataclass
class ContrastiveTask:
    """An epoch shows every image once, with `joined` of its texts, drawn at random and concatenated: a
    single sentence fits too many images.

    layers: text layers {root, layer} in addition to `data=`. pieces: size of the tokenizer learned from the
    texts. longest: maximum tokens of the joined texts, including BOS and EOS. patch_weight: weight of the
    loss on patches (0: none). word_min: minimum number of training scenes that a label or attribute must
    occur in to be learned.
    """

    split: str = "train"
    select_on: str = "val"
    layers: Sequence[Mapping[str, str]] = field(default_factory=list)
    image_size: int = 144
    patch_size: int = 24
    pieces: int = 1200
    longest: int = 48
    joined: int = 3
    batch_size: int = 64
    patch_weight: float = 1.0
    word_min: int = 10
    seed: int = 0

    def __post_init__(self) -> None:

        if self.batch_size < 2:
            raise ConfigError(f"batch_size: must be at least 2 to contrast, not {self.batch_size}")
        self.best = ("loss", "min")

    def prepare(self, corpus: Corpus, features: None = None) -> None:
        from attention_atlas.models.vlm.images import mini_image_processor
        from attention_atlas.models.vlm.tokenizer import train_tokenizer
        from attention_atlas.training.vlm_images import PixelCache, read_layers, samples, scenes_by_image

        corpora = read_layers(corpus, self.layers)
        train, held_out = (_captions(samples(corpora, s), s) for s in (self.split, self.select_on))
        self.tokenizer = train_tokenizer((s.text for rows in train.values() for s in rows), self.pieces)
        self.pixels = PixelCache(mini_image_processor(self.image_size))
        self.scenes = scenes_by_image(corpora)
        counts = Counter(
            word
            for path in train
            for word in {w for o in self.scenes[path].objects for w in (o.label, *o.attributes)}
        )
        self.words = sorted(w for w, n in counts.items() if n >= self.word_min) if self.patch_weight else []
        self._word_ids = {word: i for i, word in enumerate(self.words)}
        self._shown: dict[Path, Tensor] = {}
        self.train, self.held_out = list(train.items()), list(held_out.items())

    def model_sizes(self) -> dict[str, int]:
        return {"pieces": len(self.tokenizer), "patch_words": len(self.words)}

    def start(self, model: Any) -> None:
        if self.words:
            chosen = [path for path, _ in self.train[:: max(1, len(self.train) // STARTING)]]
            shown_PW = torch.cat([self.shown(path) for path in chosen])
            model.expect_words(shown_PW.clamp(min=0).mean(0))

    def save(self, folder: Path) -> None:
        from attention_atlas.models.vlm.tokenizer import save_tokenizer

        save_tokenizer(self.tokenizer, folder)
        write_json(folder / "patch_words.json", {"schema": SCHEMA, "words": self.words})

    def steps_per_epoch(self) -> int:
        # A last batch of one image has no negatives.
        whole, rest = divmod(len(self.train), self.batch_size)
        return whole + (rest > 1)

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.train))
        drawn = rng.random((len(self.train), 64))
        for step in range(start, self.steps_per_epoch(), every):
            part = order[step * self.batch_size : (step + 1) * self.batch_size].tolist()
            rows = [self.train[i] for i in part]
            texts = [self._joined(texts, drawn[i]) for i, (_, texts) in zip(part, rows)]
            yield self._batch([path for path, _ in rows], texts)

    def _joined(self, texts: Sequence[Sample], keys_64: np.ndarray) -> str:
        order = sorted(range(len(texts)), key=lambda i: keys_64[i % 64])
        return ". ".join(texts[i].text for i in order[: self.joined])

    def _batch(self, paths: Sequence[Path], texts: Sequence[str]) -> dict[str, Tensor]:
        coded = [[*self.tokenizer(t)["input_ids"][: self.longest - 1]] for t in texts]
        coded = [[*ids, self.tokenizer.eos_token_id] for ids in coded]
        width = max(map(len, coded))
        ids_BT = torch.full((len(coded), width), self.tokenizer.pad_token_id)
        mask_BT = torch.zeros(len(coded), width, dtype=torch.long)
        for row, ids in enumerate(coded):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            mask_BT[row, : len(ids)] = 1
        batch = {"ids_BT": ids_BT, "mask_BT": mask_BT, "pixels_BCHW": self.pixels.batch(paths)}
        if self.words:
            batch["shown_BPW"] = torch.stack([self.shown(p) for p in paths])
        return batch

    def shown(self, path: Path) -> Tensor:
        """(patches, W) 0/1; all -1 for an image whose scene names no object."""
        if path not in self._shown:
            from attention_atlas.data.patches import shown_on_patches

            scene, side = self.scenes[path], self.image_size // self.patch_size
            if scene.width != scene.height and scene.objects:
                raise AtlasError(
                    f"{path}: {scene.width} × {scene.height}: boxes of an image cropped to a square do "
                    "not fit its patches; set patch_weight to 0"
                )
            found = torch.from_numpy(shown_on_patches(scene, (side, side), self._word_ids))
            self._shown[path] = found if scene.objects else torch.full_like(found, -1.0)
        return self._shown[path]

    def losses(self, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        yield "all", torch.stack(list(model.losses(batch, self.patch_weight).values())).sum()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """`loss`; `retrieval`: share (per cent) of held-out images whose own text scores highest in a
        batch; `retrieval_chance`; `shown_precision`, `shown_recall` of the words on patches at a probability
        of 0.5."""
        tower: Any = model
        device = next(model.parameters()).device
        total, right, chance, count = 0.0, 0, 0.0, 0
        hits = predicted = true = 0.0
        for at in range(0, len(self.held_out), self.batch_size):
            rows = self.held_out[at : at + self.batch_size]
            if len(rows) < 2:
                break
            batch = self._batch(
                [p for p, _ in rows], [self._joined(texts, np.arange(64)) for _, texts in rows]
            )
            batch = {k: v.to(device) for k, v in batch.items()}
            total += float(sum(tower.losses(batch, self.patch_weight).values())) * len(rows)
            image, hidden = tower.see(batch["pixels_BCHW"])
            scores = image @ tower.read(batch["ids_BT"], batch["mask_BT"]).T
            right += int((scores.argmax(1) == torch.arange(len(rows), device=device)).sum())
            chance, count = chance + 1.0, count + len(rows)
            if self.words:
                wanted = batch["shown_BPW"].clamp(min=0)
                found = (tower.tell(hidden) > 0) & (batch["shown_BPW"] >= 0)
                hits, predicted = hits + float((wanted * found).sum()), predicted + float(found.sum())
                true += float(wanted.sum())
        if not count:
            raise AtlasError(f"select_on: '{self.select_on}' has fewer than two images; add some")
        row = {
            "loss": total / count,
            "retrieval": 100 * right / count,
            "retrieval_chance": 100 * chance / count,
        }
        if self.words:
            row |= {
                "shown_precision": 100 * hits / max(predicted, 1.0),
                "shown_recall": 100 * hits / max(true, 1.0),
            }
        return row


def _captions(found: Sequence[Sample], split: str) -> dict[Path, list[Sample]]:
    """Descriptive texts by image, without questions."""
    from attention_atlas.models.vlm.samples import CAPTION_PROMPT

    by_image: dict[Path, list[Sample]] = {}
    for sample in found:
        if sample.prompt == CAPTION_PROMPT:
            by_image.setdefault(sample.image, []).append(sample)
    if not by_image:
        raise AtlasError(f"corpus: split '{split}' has no caption; give data= a layer of captions")
    return by_image
