"""Self-critical sequence training (Rennie et al. 2017): captions are sampled, rewarded by CIDEr-D, and made
more likely in proportion to their gain over the model's greedy caption (or the mean of the image's other
samples).

    loss = − mean_b (reward(sample_b) − baseline_b) · sum_t log p(word_t | words before, image)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from attention_atlas.errors import ConfigError
from attention_atlas.language.vocabulary import BOS, EOS, PAD, UNK, Vocabulary
from attention_atlas.models.search import generate
from attention_atlas.training.by_image import padded
from attention_atlas.training.captions import tokens
from attention_atlas.training.cider_reward import CiderReward
from attention_atlas.training.tasks.image_captions import ImageCaptioningTask

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus
    from attention_atlas.regions.features_file import FeaturesFile

BASELINES = ("greedy", "mean")
# The end of a caption as a word of the reward, in samples and references: without it, truncated captions ("a
# lamp on a") score as well as whole ones.
END = "<eos>"


@dataclass
class SelfCriticalTask(ImageCaptioningTask):
    """initial: the run folder to start from (its weights and words). samples: captions drawn per image.

    baseline: greedy (Rennie et al. 2017) or mean, the mean reward of the image's other samples (Luo 2020),
    which needs no greedy decoding and at least 2 samples. Samples are drawn, and the loss is computed,
    without dropout, so that the gradient is that of the sampling policy. If no validation beats that of
    `initial`, its weights are kept.
    """

    initial: str = ""
    samples: int = 2
    baseline: str = "greedy"

    continues = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline not in BASELINES:
            raise ConfigError(f"baseline: '{self.baseline}' is not one of {', '.join(BASELINES)}")
        if self.samples < (2 if self.baseline == "mean" else 1):
            raise ConfigError(f"samples: {self.samples} are too few for baseline '{self.baseline}'")

    def prepare(self, corpus: Corpus, features: FeaturesFile, vocab: Vocabulary | None = None) -> None:
        super().prepare(corpus, features, Vocabulary.load(Path(self.initial) / "vocab.json"))
        references: dict[str, list[str]] = {}
        for example in self.train.examples:
            words = [*tokens(example.text)[: self.max_words], END]
            references.setdefault(example.image_id, []).append(" ".join(words))
        self.reward = CiderReward(references)

    def start(self, model: nn.Module) -> None:
        from attention_atlas.models.run_folder import load_run

        model.load_state_dict(load_run(self.initial)[0].state_dict())

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[dict[str, Any]]:
        for indices in self.train.order(self.batch_size, self.seed, epoch)[start::every]:
            images = [self.train.images[i] for i in indices]
            yield {"number_B": torch.tensor(indices), **self.train.regions.batch(images)}

    def losses(self, model: nn.Module, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        model.eval()
        # Decoding bypasses the wrapper for several processes; the loss below goes through it.
        bare = getattr(model, "module", model)
        images = [self.train.images[i] for i in batch.pop("number_B").tolist()]
        many = batch | {
            "image_B": torch.arange(len(images), device=device_of(batch)).repeat_interleave(self.samples)
        }
        drawn = sample(bare, many, self.max_words)
        names = [name for name in images for _ in range(self.samples)]
        reward_B = self.reward(names, [self._text(ids) for ids in drawn])
        if self.baseline == "greedy":
            greedy = generate(bare, batch, beam=1, max_words=self.max_words)
            own = self.reward(images, [self._text([*c.ids, EOS] if c.ended else c.ids) for c in greedy])
            baseline_B = np.repeat(own, self.samples)
        else:
            baseline_B = mean_of_others(reward_B, self.samples)
        advantage_B = torch.tensor(reward_B - baseline_B, dtype=torch.float32, device=device_of(batch))
        log_B = log_probability(model, many, drawn)
        yield "all", -(advantage_B * log_B).mean()

    def _text(self, ids: list[int]) -> str:
        return " ".join([*self.vocab.decode(ids), *([END] if EOS in ids else [])])


def device_of(batch: dict[str, Tensor]) -> torch.device:
    return batch["features_BND"].device


def mean_of_others(reward_B: np.ndarray, samples: int) -> np.ndarray:
    """(B,) mean reward of the other samples of each sample's image; B is images × samples."""
    reward_IS = reward_B.reshape(-1, samples)
    return ((reward_IS.sum(1, keepdims=True) - reward_IS) / (samples - 1)).ravel()


def allowed(logits: Tensor) -> Tensor:
    """Logits of the policy: PAD, BOS and UNK are never drawn."""
    forbidden = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    forbidden[[PAD, BOS, UNK]] = True
    return logits.masked_fill(forbidden, float("-inf"))


@torch.no_grad()
def sample(model: Any, batch: dict[str, Tensor], max_words: int) -> list[list[int]]:
    """One caption for each row of `batch["image_B"]`, drawn from the model: ids, EOS at the end unless
    truncated at `max_words`."""
    memory = model.encode(batch)
    rows = len(batch["image_B"])
    ids_BT = torch.full((rows, 1), BOS, device=device_of(batch))
    ended_B = torch.zeros(rows, dtype=torch.bool, device=ids_BT.device)
    state = None
    for _ in range(max_words):
        logits_BV, state = model.decode_step(memory, ids_BT, state)
        next_B = torch.multinomial(allowed(logits_BV).softmax(-1), 1)[:, 0].masked_fill(ended_B, PAD)
        ids_BT = torch.cat([ids_BT, next_B[:, None]], 1)
        ended_B = ended_B | (next_B == EOS)
        if bool(ended_B.all()):
            break
    return [[i for i in row[1:] if i != PAD] for row in ids_BT.tolist()]


def log_probability(model: Any, batch: dict[str, Tensor], drawn: list[list[int]]) -> Tensor:
    """(B,) log probability of each drawn caption (with EOS where it was drawn), with gradient."""
    ids_BT = padded([[i for i in row if i != EOS] for row in drawn])
    length_B = torch.tensor([len(row) for row in drawn])
    ids_BT = ids_BT.to(device_of(batch))
    log_BTV = allowed(model(batch | {"ids_BT": ids_BT})).log_softmax(-1)
    log_BT = log_BTV.gather(-1, ids_BT[:, 1:, None])[..., 0]
    # A truncated caption has no EOS, although the padded batch has one in its row.
    counted_BT = torch.arange(log_BT.shape[1]) < length_B[:, None]
    return log_BT.masked_fill(~counted_BT.to(log_BT.device), 0.0).sum(1)
