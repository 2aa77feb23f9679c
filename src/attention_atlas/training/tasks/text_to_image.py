"""AttnGAN's training: discriminators and generator in turn, with the DAMSM's word and sentence losses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.attngan.discriminator import discriminator_loss, generator_loss
from attention_atlas.models.attngan.generator import divergence
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.tasks.damsm import PairsTask, blocks, embeddings

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus


@dataclass(kw_only=True)
class TextToImageTask(PairsTask):
    """Chosen by `_target_` in conf/train/text_to_image.yaml.

    damsm: run folder of the DAMSM, whose vocabulary and encoders are used. size: side of the finest image
    (as the model makes it). mirror, by_category, rounds, enlarged: see training/pairs.py. damsm_weight:
    λ of eq. 3 (5 for birds, 50 for COCO as published). adversarial_weight: of the generator's adversarial
    loss; divergence_weight: of conditioning augmentation. Not in the paper, for short training, off by
    default: reconstruction_weight of the L1 distance to the caption's own image, feature_weight of the
    distance of DAMSM regions; with `mirror` to the image or its mirror image, as a bird may face either way.
    critic_rate: the discriminators' learning rate as a multiple of the generator's.
    """

    damsm: str
    size: int = 256
    batch_size: int = 20
    damsm_weight: float = 5.0
    adversarial_weight: float = 1.0
    divergence_weight: float = 1.0
    reconstruction_weight: float = 0.0
    feature_weight: float = 0.0
    critic_rate: float = 1.0
    judged: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        # No metric tells when a GAN is best; the last state is kept, as published.
        self.best = ("step", "max")

    def prepare(self, corpus: Corpus, features: Any = None) -> None:
        from attention_atlas.models.run_folder import load_run

        model, vocab, config = load_run(self.damsm)
        if vocab is None or not hasattr(model, "word_scores"):
            raise AtlasError(f"{self.damsm}: holds no DAMSM; train one with model=damsm on the same data")
        self.damsm_weights, self.damsm_config = model.state_dict(), config["model"]
        self.read(corpus, vocab)

    def model_sizes(self) -> dict[str, Any]:
        return {"vocab_size": len(self.vocab), "damsm": self.damsm_config}

    def start(self, model: Any) -> None:
        """Give the model the trained DAMSM. Raises ConfigError if its finest image, or the input of the
        DAMSM, is not of `size`."""
        if model.size != self.size:
            raise ConfigError(
                f"size: {self.size} is not the model's finest image ({model.size}: first, "
                "doubled by each further stage)"
            )
        reads = model.damsm.image.reads
        if reads not in (None, self.size):
            raise ConfigError(
                f"size: {self.size}, but the DAMSM of {self.damsm} reads images of {reads} "
                "pixels only; train both at one size"
            )
        model.damsm.load_state_dict(self.damsm_weights)

    def optimizers(self, model: Any, settings: TrainSettings) -> dict[str, torch.optim.Optimizer]:
        """Adam for each player."""
        rest: dict[str, Any] = {"betas": settings.betas, "eps": settings.eps}
        return {
            "critics": torch.optim.Adam(
                model.critics.parameters(), lr=settings.lr * self.critic_rate, **rest
            ),
            "generator": torch.optim.Adam(model.generator.parameters(), lr=settings.lr, **rest),
        }

    def losses(self, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        words_BTD, sentence_BD, words_BT = model.read(batch["ids_BT"])
        if model.training:
            model.follow()
        noise_BZ = model.noise(sentence_BD)
        images, mean_BC, logvar_BC = model.generator(noise_BZ, sentence_BD, words_BTD, words_BT)
        true = [at_size(batch["pixels_BCSS"], p.shape[-1]) for p in images]
        critics = list(model.critics)
        if self.adversarial_weight:
            players = zip(critics, true, images, strict=True)
            yield (
                "critics",
                sum(
                    (discriminator_loss(c, t, p, sentence_BD) for c, t, p in players),
                    sentence_BD.new_zeros(()),
                ),
            )
        loss = self.divergence_weight * divergence(mean_BC, logvar_BC)
        if self.adversarial_weight:
            fooled = (generator_loss(c, p, sentence_BD) for c, p in zip(critics, images))
            loss = loss + self.adversarial_weight * sum(fooled, sentence_BD.new_zeros(()))
        regions_BND, whole_BD = model.damsm.image(images[-1])
        word, sentence = model.damsm.losses(
            regions_BND, whole_BD, words_BTD, sentence_BD, words_BT, batch["class_B"]
        )
        loss = loss + self.damsm_weight * (word + sentence)
        if self.reconstruction_weight:
            near = [nearest(p, t, self.mirror) for p, t in zip(images, true)]
            loss = loss + self.reconstruction_weight * torch.stack(near).mean()
        if self.feature_weight:
            side = round(regions_BND.shape[1] ** 0.5)
            with torch.no_grad():
                wanted_BND, _ = model.damsm.image(true[-1])
            shape = (len(wanted_BND), side, side, -1)
            made, wanted = (x.view(shape).permute(0, 3, 1, 2) for x in (regions_BND, wanted_BND))
            loss = loss + self.feature_weight * nearest(made, wanted, self.mirror)
        yield "generator", loss

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """R-precision of images for held-out captions, in per cent: reported only, not used for
        selection."""
        found = []
        for numbers in blocks(self.held_out.first_captions(self.judged)):
            batch = self.held_out.batch(numbers)
            ids_BT = batch["ids_BT"].to(next(model.parameters()).device)
            batch["pixels_BCSS"] = model({"ids_BT": ids_BT})
            found.append(embeddings(model.damsm, batch))
        return self.precision(found)


def at_size(pixels_BCSS: Tensor, size: int) -> Tensor:
    """Images scaled down to a stage's side by averaging pixels."""
    return pixels_BCSS if pixels_BCSS.shape[-1] == size else F.adaptive_avg_pool2d(pixels_BCSS, size)


def nearest(made_BCHW: Tensor, wanted_BCHW: Tensor, mirror: bool) -> Tensor:
    """Mean absolute difference; with `mirror` to the target or its mirror image, whichever is closer."""
    distance_B = (made_BCHW - wanted_BCHW).abs().flatten(1).mean(1)
    if mirror:
        other_B = (made_BCHW - wanted_BCHW.flip(-1)).abs().flatten(1).mean(1)
        distance_B = torch.minimum(distance_B, other_B)
    return distance_B.mean()
