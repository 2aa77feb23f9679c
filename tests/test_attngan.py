"""AttnGAN: word attention through the seam, sides of stages, losses by hand."""

from __future__ import annotations

import math

import pytest
import torch
from attngan_models import BATCH, Keeper, model_of

from attention_atlas.alignments.activated_general import ActivatedGeneral
from attention_atlas.alignments.dot import Dot
from attention_atlas.alignments.general_kq import GeneralKQ
from attention_atlas.capture.seam import recording
from attention_atlas.models.attngan.discriminator import Discriminator, discriminator_loss, fake, real
from attention_atlas.models.attngan.generator import WordAttention, divergence
from attention_atlas.training.tasks.text_to_image import at_size, nearest


@pytest.mark.parametrize("kind", [Dot, GeneralKQ, ActivatedGeneral])
@torch.no_grad()
def test_word_attention_against_a_loop(kind):
    torch.manual_seed(2)
    layer = WordAttention(6, 5, 0, kind(5))
    hidden, words = torch.randn(2, 5, 3, 4), torch.randn(2, 7, 6)
    real_BT = torch.arange(7)[None] < torch.tensor([7, 3])[:, None]
    found = layer(hidden, words, real_BT)
    for b, length in enumerate((7, 3)):
        keys = words[b, :length] @ layer.project.weight.T
        for y in range(3):
            for x in range(4):
                score = torch.stack(
                    [layer.alignment.score(hidden[b, :, y, x][None], k[None])[0, 0] for k in keys]
                )
                assert torch.allclose(found[b, :, y, x], score.softmax(0) @ keys, atol=1e-5)


@torch.no_grad()
def test_captured_attention_makes_the_context_and_changes_the_image():
    model, batch = model_of(), {**BATCH, "noise_BZ": torch.randn(3, 4)}

    def drawn(recorder):
        torch.manual_seed(1)
        with recording(recorder):
            return model(batch)

    keeper = Keeper()
    plain = drawn(None)
    assert torch.equal(plain, drawn(keeper)) and plain.shape == (3, 3, 32, 32)
    ((call, context),) = keeper.calls
    weights = call.weights()
    assert weights.shape == (3, 1, 256, 5) and float(weights[1, :, :, 1:].abs().max()) == 0
    assert torch.allclose(weights @ call.v, context, atol=1e-5)
    assert not torch.allclose(plain, drawn(Keeper(replace=True)), atol=1e-4)
    assert torch.allclose(model.average.next[0].attention.project.weight, call.module.project.weight)


@torch.no_grad()
def test_more_stages_double_the_side():
    model = model_of(stages=3, first=8, average=0.0)
    assert model.generator.sizes == [8, 16, 32] and len(model.critics) == 3
    keeper = Keeper()
    with recording(keeper):
        model(BATCH)
    assert [c.module.layer_index for c, _ in keeper.calls] == [0, 1]
    assert [c.q.shape[2] for c, _ in keeper.calls] == [64, 256]


def test_formulas_by_hand():
    assert float(real(torch.zeros(3))) == pytest.approx(math.log(2))
    assert float(fake(torch.tensor([2.0]))) == pytest.approx(math.log(1 + math.exp(2)))
    mean, logvar = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(2)]])
    wanted = (0.5 * 1 + 0.5 * (0 + 2 - math.log(2) - 1)) / 2
    assert float(divergence(mean, logvar)) == pytest.approx(wanted, rel=1e-5)
    image = torch.arange(4.0).view(1, 1, 2, 2)
    assert float(nearest(image, image.flip(-1), mirror=True)) == 0
    assert float(nearest(image, image.flip(-1), mirror=False)) == 1
    assert float(at_size(image, 1)) == 1.5 and at_size(image, 2) is image


def test_discriminator_loss_against_its_parts():
    torch.manual_seed(0)
    critic = Discriminator(16, 8, 4).eval()
    true, made, sentence = torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16), torch.randn(3, 8)
    t, m = critic(true), critic(made)
    parts = [
        real(critic.alone(t).flatten()) / 2,
        real(critic.with_sentence(t, sentence)) / 2,
        fake(critic.alone(m).flatten()) / 3,
        fake(critic.with_sentence(m, sentence)) / 3,
        # Images 0 and 1 with the sentences of 1 and 2.
        fake(critic.with_sentence(t[:2], sentence[1:])) / 3,
    ]
    assert float(discriminator_loss(critic, true, made, sentence)) == pytest.approx(
        float(sum(parts)), rel=1e-5
    )
