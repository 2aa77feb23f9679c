"""DAMSM against loops over single words, its masks, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from attngan_world import corpus_of
from torch.nn import functional as F

from attention_atlas.capture.seam import AttentionCall, recording
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.vocabulary import Vocabulary
from attention_atlas.models.attngan import Damsm
from attention_atlas.models.attngan.damsm import _both_ways
from attention_atlas.models.attngan.image import BackboneEncoder, ImageEncoder
from attention_atlas.models.attngan.text import TextEncoder
from attention_atlas.training.batches import padded_ids
from attention_atlas.training.loop import train
from attention_atlas.training.pairs import Pairs, SquareImages
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.tasks.damsm import DamsmTask

IMAGE = {
    "_target_": "attention_atlas.models.attngan.image.ImageEncoder",
    "size": 32,
    "side": 4,
    "channels": 4,
}


def damsm(vocab_size=20, **more):
    torch.manual_seed(3)
    given = {"dim": 8, "embedding": 6, "dropout": 0.0, "embedding_init": 1.0} | more
    return Damsm(vocab_size, IMAGE, **given)


def one_pair(model, words_TD, regions_ND):
    """Equations 7 to 10 one number at a time, without the outer 1/gamma2."""
    raw = [[float(w @ v) for v in regions_ND] for w in words_TD]
    total = 0.0
    for t in range(len(words_TD)):
        claimed = [
            math.exp(raw[t][n]) / sum(math.exp(raw[u][n]) for u in range(len(words_TD)))
            for n in range(len(regions_ND))
        ]
        soft = [math.exp(model.gamma1 * c) for c in claimed]
        seen = sum(s / sum(soft) * regions_ND[n] for n, s in enumerate(soft))
        total += math.exp(model.gamma2 * float(F.cosine_similarity(words_TD[t], seen, dim=0)))
    return math.log(total)


@torch.no_grad()
def test_all_pairs_equal_a_loop_over_words_with_padding():
    model = damsm().eval()
    ids_BT = padded_ids([[5, 6, 7], [4], [9, 8, 5, 4, 10]])
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    words_BTD, _ = model.text(ids_BT)
    regions_BND, _ = model.image(pixels)
    found = model.word_scores(words_BTD[:, None], ids_BT != 0, regions_BND[None])
    for c, length in enumerate((3, 1, 5)):
        for i in range(3):
            assert float(found[c, i]) == pytest.approx(
                one_pair(model, words_BTD[c, :length], regions_BND[i]), rel=1e-4
            )
    own = model({"ids_BT": ids_BT, "pixels_BCSS": pixels})
    assert torch.allclose(own, found.diagonal(), atol=1e-5)


@torch.no_grad()
def test_padding_does_not_change_words_and_sentence():
    model = TextEncoder(20, 8, 6, 0.0).eval()
    alone, sentence = model(padded_ids([[5, 6, 7]]))
    both, sentences = model(padded_ids([[5, 6, 7], [4, 9, 8, 5, 4, 10]]))
    assert torch.allclose(both[0, :3], alone[0], atol=1e-6) and bool((both[0, 3:] == 0).all())
    assert torch.allclose(sentences[0], sentence[0], atol=1e-6)


class Replaced:
    """A recorder whose attention is uniform."""

    def attend(self, call: AttentionCall):
        return call.v.mean(2, keepdim=True).expand(-1, -1, call.q.shape[2], -1)

    def residual_input(self, module, x):
        pass


@torch.no_grad()
def test_the_attention_passes_the_seam():
    model = damsm().eval()
    model.image.region.weight.mul_(30)  # regions of an untrained CNN are nearly alike
    batch = {"ids_BT": padded_ids([[5, 6, 7]]), "pixels_BCSS": torch.rand(1, 3, 32, 32)}
    plain = model(batch)
    with recording(Replaced()):
        assert not torch.allclose(model(batch), plain, atol=1e-4)


def test_losses_by_hand_and_same_class():
    score = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    rows = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-2))
    columns = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))
    assert float(_both_ways(score, None)) == pytest.approx((rows + columns) / 2, rel=1e-5)
    model = damsm()
    g = torch.Generator().manual_seed(0)
    given = [torch.randn(*s, generator=g) for s in ((3, 16, 8), (3, 8), (3, 4, 8), (3, 8))]
    real_BT = torch.ones(3, 4, dtype=torch.bool)
    plain = model.losses(*given, real_BT, torch.tensor([0, 1, 2]))
    none = model.losses(*given, real_BT)
    shared = model.losses(*given, real_BT, torch.tensor([0, 0, 0]))
    assert torch.allclose(plain[0], none[0]) and torch.allclose(plain[1], none[1])
    assert float(shared[0]) == 0.0 and float(shared[1]) == 0.0 and float(none[0]) > 0.1


def test_gradients_are_finite_with_padding():
    model = damsm()
    ids_BT = padded_ids([[5], [6, 7, 8, 9]])
    words_BTD, sentence_BD = model.text(ids_BT)
    regions_BND, whole_BD = model.image(torch.rand(2, 3, 32, 32))
    sum(model.losses(regions_BND, whole_BD, words_BTD, sentence_BD, ids_BT != 0)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name


def test_it_learns_and_gives_the_same_bytes(tmp_path):
    corpus = corpus_of(tmp_path / "corpus", 18, 9)
    task = DamsmTask(batch_size=9, max_words=8, candidates=9)
    task.prepare(corpus)
    assert task.steps_per_epoch() == 4 and len(list(task.batches(0))) == 4

    def run(folder, epochs):
        torch.manual_seed(0)
        settings = TrainSettings(
            epochs=epochs, validate_every=epochs, lr=5e-3, betas=(0.9, 0.999), eps=1e-8, threads=1
        )
        return train(task, damsm(len(task.vocab)), settings, tmp_path / folder)

    _, history = run("long", 10)
    assert history[-1]["R-precision"] > 3 * history[-1]["chance"] > 0
    (weights, _), (again, _) = run("a", 1), run("b", 1)
    assert all(torch.equal(weights[k], again[k]) for k in weights)


def test_batches_have_each_image_once_and_start_anywhere(tmp_path):
    corpus = corpus_of(tmp_path, 12, 3)
    vocab = Vocabulary.build([["a", "hat"]])
    pairs = Pairs(corpus, "train", vocab, 32, 8, by_category=True)
    all_of = list(pairs.shuffled(5, seed=1, epoch=2))
    assert len(all_of) == pairs.steps(5) == 4
    later = list(pairs.shuffled(5, seed=1, epoch=2, start=3))
    assert torch.equal(all_of[3]["pixels_BCSS"], later[0]["pixels_BCSS"])
    assert len(set(all_of[0]["class_B"].tolist())) <= 3
    own = Pairs(corpus, "train", vocab, 32, 8)
    assert all(len(set(b["class_B"].tolist())) == 5 for b in own.shuffled(5, 0, 0))
    with pytest.raises(AtlasError, match="batch_size 13"):
        pairs.steps(13)


def test_an_epoch_may_be_one_caption_of_each_image(tmp_path):
    corpus = corpus_of(tmp_path, 12, 3)
    vocab = Vocabulary.build([["a", "hat", "coat", "and", "this", "one", "has"]])
    pairs = Pairs(corpus, "train", vocab, 32, 8, mirror=False, rounds=1)
    assert pairs.steps(4) == 3
    epochs = [[tuple(row) for b in pairs.shuffled(4, 0, e) for row in b["ids_BT"].tolist()] for e in range(4)]
    assert all(len(epoch) == 12 for epoch in epochs)
    assert len({tuple(sorted(epoch)) for epoch in epochs}) > 1  # other captions in the next epoch


def test_one_category_for_all_is_an_error(tmp_path):
    """As in COCO without category folders: every negative would be masked and the loss be 0."""
    corpus = corpus_of(tmp_path, 12, 3)
    for scene in corpus.scenes.values():
        scene.category = ""
    with pytest.raises(AtlasError, match=r"split 'train' have the same category.*by_category: false"):
        DamsmTask(batch_size=4, by_category=True).prepare(corpus)
    DamsmTask(batch_size=4, by_category=False).prepare(corpus)


def test_squares_are_cut_at_random_from_enlarged_images(tmp_path):
    from PIL import Image

    corpus = corpus_of(tmp_path, 4, 3)
    example = corpus.examples[0]
    path = corpus.image_path(example.image_id)
    ramp = np.arange(40, dtype=np.uint8)[None, :, None] + 2 * np.arange(20, dtype=np.uint8)[:, None, None]
    Image.fromarray(np.repeat(ramp, 3, 2)).save(path)
    images = SquareImages(corpus, 16, enlarged=20)  # kept as 40 x 20
    whole = torch.from_numpy(ramp[..., 0])
    assert torch.equal(images.get(example, (0.0, 0.0))[0], whole[:16, :16])
    assert torch.equal(images.get(example, (1.0, 1.0))[0], whole[4:, 24:])
    assert torch.equal(images.get(example)[0], whole[2:18, 12:28])
    vocab = Vocabulary.build([["a", "hat"]])
    pairs = Pairs(corpus, "train", vocab, 16, 8, mirror=False, rounds=1, enlarged=20)
    first, later = (next(pairs.shuffled(4, 0, epoch))["pixels_BCSS"] for epoch in (0, 1))
    assert first.shape == (4, 3, 16, 16)
    assert not torch.equal(first.sort(0).values, later.sort(0).values)
    again = next(pairs.shuffled(4, 0, 0))["pixels_BCSS"]
    assert torch.equal(first, again)
    with pytest.raises(ConfigError, match="enlarged: 8 is less than size 16"):
        SquareImages(corpus, 16, enlarged=8)


def test_images_beyond_the_memory_are_read_again(tmp_path):
    corpus = corpus_of(tmp_path, 3, 3)
    images = SquareImages(corpus, 16, keep_bytes=2 * 3 * 16 * 16)
    first = [images.get(e).clone() for e in corpus.examples]
    assert len(images._kept) == 2
    assert all(torch.equal(a, images.get(e)) for a, e in zip(first, corpus.examples))


def test_images_are_cut_and_mirrored(tmp_path):
    corpus = corpus_of(tmp_path, 3, 3)
    example = corpus.examples[0]
    whole = SquareImages(corpus, 16).batch([example, example], [False, True])
    assert whole.shape == (2, 3, 16, 16) and torch.equal(whole[1], whole[0].flip(-1))
    example.extra["crop"] = [4, 2, 16, 14]
    part = SquareImages(corpus, 4).batch([example])
    assert np.allclose((part[0].mean((1, 2)) + 1) * 127.5, (20, 40, 220), atol=1)
    corpus.scenes[example.image_id].path = "images/none.png"
    with pytest.raises(AtlasError, match=r"none\.png: no such image"):
        SquareImages(corpus, 16).get(example)


def test_bad_values():
    with pytest.raises(ConfigError, match="dim: 7 must be even"):
        TextEncoder(10, 7)
    with pytest.raises(ConfigError, match=r"ImageEncoder: size: 36"):
        ImageEncoder(8, size=36)
    with pytest.raises(AtlasError, match=r"ImageEncoder: size: 32, but images have 64"):
        ImageEncoder(8, size=32, channels=4)(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ConfigError, match="batch_size"):
        DamsmTask(batch_size=1)


def test_a_pretrained_backbone_by_path(tmp_path):
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(tmp_path / "net")
    encoder = BackboneEncoder(8, str(tmp_path / "net"), size=32).train()
    regions, whole = encoder(torch.rand(2, 3, 16, 16) * 2 - 1)
    assert regions.shape == (2, 64, 8) and whole.shape == (2, 8)
    learned = {n for n, p in encoder.named_parameters() if p.requires_grad}
    assert learned == {"region.weight", "region.bias", "sentence.weight", "sentence.bias"}
    assert not encoder.backbone.training
    with pytest.raises(AtlasError, match=r"BackboneEncoder: weights: .*no such folder"):
        BackboneEncoder(8, str(tmp_path / "other"))
