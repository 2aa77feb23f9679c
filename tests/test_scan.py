"""SCAN against a loop over single words, the published bug, and what normalisation makes equal."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from attention_atlas.alignments.activated_general import ActivatedGeneral
from attention_atlas.alignments.biased_general_kq import BiasedGeneralKQ
from attention_atlas.alignments.cosine import Cosine
from attention_atlas.alignments.dot import Dot
from attention_atlas.alignments.general_kq import GeneralKQ
from attention_atlas.alignments.general_qk import GeneralQK
from attention_atlas.alignments.scaled_dot import ScaledDot
from attention_atlas.capture.seam import AttentionCall, recording
from attention_atlas.models.scan import Scan
from attention_atlas.training.tasks.matching import hinge

LENGTHS = (5, 3, 7, 4)


def model_of(kind, dim=6, **more):
    torch.manual_seed(5)
    return Scan(20, 9, alignment=kind(dim, **more), dim=dim, embedding=8, embedding_init=1.0).eval()


def batch_of(seed=0, counts=(6, 4, 6, 2), regions=6):
    g = torch.Generator().manual_seed(seed)
    ids_BT = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long)
    for b, length in enumerate(LENGTHS):
        ids_BT[b, :length] = torch.randint(1, 20, (length,), generator=g)
    valid = torch.arange(regions)[None] < torch.tensor(counts)[:, None]
    return {
        "ids_BT": ids_BT,
        "features_BND": torch.randn(len(LENGTHS), regions, 9, generator=g),
        "regions_BN": valid,
    }


def all_pairs(model, batch):
    return model.similarities(
        model.encode_images(batch["features_BND"]),
        batch["regions_BN"],
        model.encode_captions(batch["ids_BT"]),
        batch["ids_BT"] != 0,
    )


def one_pair(model, words_TD, regions_ND):
    """The published formulas, one number at a time (layout correct)."""
    words, regions = len(words_TD), len(regions_ND)
    score = [[0.0] * regions for _ in range(words)]
    for t in range(words):
        for n in range(regions):
            value = float(model.alignment.score(words_TD[t][None], regions_ND[n][None]))
            score[t][n] = value if value > 0 else 0.1 * value
    total = 0.0
    for t in range(words):
        soft = []
        for n in range(regions):
            norm = math.sqrt(sum(score[u][n] ** 2 for u in range(words))) + 1e-8
            soft.append(math.exp(9 * score[t][n] / norm))
        mixed = sum(s / sum(soft) * regions_ND[n] for n, s in enumerate(soft))
        total += float(F.cosine_similarity(words_TD[t], mixed, dim=0))
    return total / words


@pytest.mark.parametrize(
    "kind", [Dot, ScaledDot, Cosine, GeneralKQ, GeneralQK, BiasedGeneralKQ, ActivatedGeneral]
)
@torch.no_grad()
def test_all_pairs_equal_the_loop_with_masks_padding_and_odd_sizes(kind):
    model, batch = model_of(kind), batch_of()
    similarity_IC = all_pairs(model, batch)
    words_CTD = model.encode_captions(batch["ids_BT"])
    regions_IND = model.encode_images(batch["features_BND"])
    for i, count in enumerate(batch["regions_BN"].sum(1).tolist()):
        for c, length in enumerate(LENGTHS):
            naive = one_pair(model, words_CTD[c, :length], regions_IND[i, :count])
            assert float(similarity_IC[i, c]) == pytest.approx(naive, abs=2e-5)
    assert torch.allclose(model(batch), similarity_IC.diagonal(), atol=1e-5)


def published(model, words_TD, regions_ND):
    """The published SCAN's steps on a score of (word, region) that they take for (region, word)."""
    score = model.alignment.score(words_TD, regions_ND)[None]  # (1, word, region), called (1, region, word)
    score = F.leaky_relu(score, 0.1)
    score = score / (score.pow(2).sum(2, keepdim=True).sqrt() + 1e-8)
    words, regions = len(words_TD), len(regions_ND)
    flat = score.transpose(1, 2).contiguous().view(words, regions)
    weights_TN = F.softmax(flat * 9, dim=1).view(words, regions)
    return F.cosine_similarity(words_TD, weights_TN @ regions_ND, dim=1).mean()


@pytest.mark.parametrize("kind", [GeneralQK, BiasedGeneralKQ, ActivatedGeneral])
@torch.no_grad()
def test_the_published_layout_scrambles_the_weights(kind):
    model, batch = model_of(kind, layout="published"), batch_of(counts=(6, 6, 6, 6))
    words_CTD = model.encode_captions(batch["ids_BT"])
    regions_IND = model.encode_images(batch["features_BND"])
    wanted = torch.stack(
        [
            torch.stack([published(model, words_CTD[c, :n], r) for c, n in enumerate(LENGTHS)])
            for r in regions_IND
        ]
    )
    found = all_pairs(model, batch)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(model(batch), found.diagonal(), atol=1e-5)
    model.alignment.layout = "correct"
    assert not torch.allclose(all_pairs(model, batch), found, atol=1e-3)


@torch.no_grad()
def test_with_identity_the_published_layout_separates_general_from_dot():
    batch = batch_of(counts=(6, 6, 6, 6))
    dot = all_pairs(model_of(Dot), batch)
    for kind in (GeneralKQ, GeneralQK):
        model = model_of(kind, init="identity", layout="published")
        plain = model_of(Dot).state_dict()
        model.load_state_dict({**model.state_dict(), **plain})
        assert torch.allclose(all_pairs(model, batch), dot, atol=1e-5) is (kind is GeneralKQ)


@torch.no_grad()
def test_normalisation_makes_dot_scaled_dot_and_cosine_the_same():
    batch = batch_of()
    dot, scaled, cosine = (all_pairs(model_of(kind), batch) for kind in (Dot, ScaledDot, Cosine))
    assert torch.allclose(dot, scaled, atol=1e-5) and torch.allclose(dot, cosine, atol=1e-5)


def test_gradients_are_finite_and_equal_those_of_the_pairs():
    for kind in (Dot, ActivatedGeneral):
        model, batch = model_of(kind), batch_of()
        fast = torch.autograd.grad(all_pairs(model, batch).diagonal().sum(), list(model.region.parameters()))
        slow = torch.autograd.grad(model(batch).sum(), list(model.region.parameters()))
        for a, b in zip(fast, slow):
            assert torch.isfinite(a).all() and torch.allclose(a, b, atol=1e-4)


class Recorder:
    """A capture that keeps the weights, or draws others instead."""

    def __init__(self, shuffle=False):
        self.shuffle, self.weights = shuffle, None

    def attend(self, call: AttentionCall):
        self.weights = call.weights()
        if not self.shuffle:
            return call.context()
        drawn = torch.rand(self.weights.shape, generator=torch.Generator().manual_seed(0))
        return drawn / drawn.sum(-1, keepdim=True) @ call.v

    def residual_input(self, module, x): ...


@torch.no_grad()
def test_a_capture_sees_the_attention_and_random_attention_changes_the_result():
    model, batch = model_of(GeneralKQ), batch_of()
    plain, recorder = model(batch), Recorder()
    with recording(recorder):
        assert torch.allclose(model(batch), plain, atol=1e-6)
    seen_BTN = recorder.weights[:, 0] * (batch["ids_BT"] != 0)[..., None]
    assert torch.allclose(seen_BTN, model.weights(batch), atol=1e-6)
    real = (batch["ids_BT"] != 0).float()
    assert torch.allclose(seen_BTN.sum(-1), real, atol=1e-5)
    assert seen_BTN[3, :, 2:].abs().sum() == 0
    with recording(Recorder(shuffle=True)):
        assert not torch.allclose(model(batch), plain, atol=1e-3)


@torch.no_grad()
def test_padding_and_company_change_no_caption():
    model, batch = model_of(Dot), batch_of()
    alone = model.encode_captions(batch["ids_BT"][1:2, :3])
    together = model.encode_captions(batch["ids_BT"])
    assert torch.allclose(together[1, :3], alone[0], atol=1e-6) and together[1, 3:].abs().sum() == 0
    assert torch.allclose(alone.norm(dim=-1), torch.ones(1, 3), atol=1e-5)


def test_standardised_features_have_mean_0_and_deviation_1():
    model, batch = model_of(Dot), batch_of()
    flat = batch["features_BND"].flatten(0, 1) * 3 + 7
    expected = F.normalize(model.region((flat - flat.mean(0)) / flat.std(0, unbiased=False)), dim=-1)
    model.standardise(flat.mean(0), flat.std(0, unbiased=False))
    assert torch.allclose(model.encode_images(flat[None])[0], expected, atol=1e-5)


def test_hinge_by_hand():
    # Rows images, columns captions; right pairs 0.5 and 0.4, margin 0.2.
    s = torch.tensor([[0.5, 0.6, 0.0], [0.35, 0.4, 0.1], [0.1, 0.3, 0.9]])
    # Image 0: 0.3 and -0.3; image 1: 0.15 and -0.1; image 2: none. Captions: 0: 0.05; 1: 0.4, 0.1; 2: none.
    assert float(hinge(s, 0.2, hardest=True)) == pytest.approx(0.3 + 0.15 + 0.05 + 0.4)
    assert float(hinge(s, 0.2, hardest=False)) == pytest.approx(0.3 + 0.15 + 0.05 + 0.4 + 0.1)


def test_the_yaml_builds_the_model(root):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from attention_atlas.models.run_folder import build_model
    from attention_atlas.workflow.compose import compose

    for profile in ("mini", "paper"):
        words = ["study=alignment", "model=scan", "alignment=general_qk", f"profile={profile}"]
        cfg = compose(root, "train", words)
        model = OmegaConf.to_container(cfg.model, resolve=True)
        built = build_model(model, vocab_size=30, feature_dim=8)
        assert isinstance(built, Scan) and isinstance(built.alignment, GeneralQK)
        assert instantiate(model["evaluator"]).split == "test"
