"""MAC: the chain against a plain loop for every alignment, attention times values, padding, blindness."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from omegaconf import OmegaConf

from attention_atlas.alignments.build import build_alignment
from attention_atlas.capture.engine import Capture
from attention_atlas.capture.seam import AttentionCall, recording
from attention_atlas.errors import ConfigError
from attention_atlas.models.mac import Grid, Mac, Scorer

ALIGNMENTS = sorted(path.stem for path in (ROOT / "conf/alignment").glob("*.yaml"))
SMALL = {"dim": 12, "word_dim": 6, "steps": 3, "feature_dim": 7}


def alignment(name: str):
    return OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/alignment/{name}.yaml"))


def small(seed: int = 0, **more) -> Mac:
    torch.manual_seed(seed)
    return Mac(30, 5, **(SMALL | more)).eval()


def batch(seed: int = 1):
    """Three questions of 2, 7 and 5 words about 4, 1 and 6 regions."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 30, (3, 7), generator=generator)
    words, regions = torch.tensor([2, 7, 5]), torch.tensor([4, 1, 6])
    ids[torch.arange(7)[None] >= words[:, None]] = 0
    return {
        "ids_BT": ids,
        "features_BND": torch.randn(3, 6, 7, generator=generator),
        "boxes_BN4": torch.rand(3, 6, 4, generator=generator),
        "regions_BN": torch.arange(6)[None] < regions[:, None],
    }


def plain(model: Mac, batch: dict, row: int) -> torch.Tensor:
    """The scores of one question by loops over steps, words and regions."""
    ids = [i for i in batch["ids_BT"][row].tolist() if i]
    regions = int(batch["regions_BN"][row].sum())
    out, (last, _) = model.lstm(model.embed(torch.tensor([ids])))
    words = model.in_context(out)[0] + model.word(model.embed(torch.tensor(ids)))
    question = torch.cat([last[0, 0], last[1, 0]])
    known = []
    for n in range(regions):
        x1, y1, x2, y2 = batch["boxes_BN4"][row, n].tolist()
        place = [x1 + x2 - 1, y1 + y2 - 1, x2 - x1, y2 - y1, 2 * y2 - 1, 2 * x1 - 1, 2 * x2 - 1]
        look = model.see.look(model.see.norm(batch["features_BND"][row, n]))
        known.append(model.see.join(F.elu(look + model.see.place(2 * torch.tensor(place)))))
    control, memory = model.first_control, model.first_memory

    def attend(scorer: Scorer, query, keys, values):
        """The context, and the log of the summed exponentials of the scores."""
        scores = []
        for key in keys:
            joined = scorer.align.elementwise(query[None], key[None])[0]
            scores.append(
                sum(
                    w * v for w, v in zip(scorer.to_score.weight[0], F.elu(joined) if scorer.bend else joined)
                )
            )
        weights = [math.exp(s - max(scores)) for s in scores]
        context = sum(w / sum(weights) * v for w, v in zip(weights, values))
        return context, torch.as_tensor(max(scores) + math.log(sum(weights)))

    for t in range(model.steps):
        sought = model.control(torch.cat([control, torch.tanh(model.asked[t](question))]))
        control, _ = attend(model.control_score, sought, list(words), list(words))
        keys = []
        for k in known:
            shared = model.remember(memory) * model.know(k)
            both = torch.cat([model.relate.weight, model.relate_known.weight], 1)
            related = both @ torch.cat([shared, model.know(k)]) + model.relate_known.bias
            keys.append(F.elu(related))
        found, much = attend(model.read_score, control, keys, known)
        news = [found, memory, found * control] if model.multiply else [found, memory]
        news += [much[None]] if model.tally else []
        memory = model.write(torch.cat(news))
    return model.answer(torch.cat([memory, question]))


@torch.no_grad()
@pytest.mark.parametrize("name", ALIGNMENTS)
@pytest.mark.parametrize("ours", [False, True])
def test_the_chain_equals_plain_loops(name, ours):
    more = {"control_alignment": ours, "multiply": ours, "tally": ours, "plain_start": ours}
    model, inputs = small(alignment=alignment(name), **more), batch()
    scores = model(inputs)
    for row in range(3):
        assert torch.allclose(scores[row], plain(model, inputs, row), atol=1e-5)


def test_scores_by_hand():
    scorer = Scorer(alignment("dot"), 2, bend=True)
    scorer.to_score.weight.data = torch.tensor([[1.0, 2.0]])
    q, k = torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0, 3.0], [-1.0, -4.0]])
    # c ∘ I is (2, -3) and (-1, 4); ELU bends what is below 0 to exp(x) - 1.
    expected = [2 + 2 * (math.exp(-3) - 1), (math.exp(-1) - 1) + 2 * 4]
    assert scorer.score(q, k)[0].tolist() == pytest.approx(expected)
    straight = Scorer(alignment("scaled_dot"), 2, bend=False)
    straight.to_score.weight.data = torch.tensor([[1.0, 2.0]])
    assert straight.score(q, k)[0].tolist() == pytest.approx([(2 - 6) / 2**0.5, (-1 + 8) / 2**0.5])


@torch.no_grad()
def test_scores_of_several_queries_and_heads_are_of_each_pair():
    torch.manual_seed(0)
    scorer = Scorer(alignment("biased_general_kq"), 4, bend=True)
    q, k = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 6, 4)
    scores = scorer.score(q, k)
    assert scores.shape == (2, 3, 5, 6)
    for at in [(0, 0, 0, 0), (1, 2, 4, 5), (1, 0, 3, 2)]:
        b, h, i, j = at
        one = scorer.score(q[b, h, i][None], k[b, h, j][None])
        assert torch.allclose(scores[at], one[0, 0], atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", ALIGNMENTS)
def test_captured_attention_times_values_is_what_the_units_use(name):
    model, inputs = small(alignment=alignment(name), tally=True), batch()
    seen = {}
    for kind, steps in (("read", model.read_steps), ("control", model.control_steps)):
        for t, step in enumerate(steps):
            step.register_forward_hook(
                lambda _, args, out, at=(kind, t): seen.__setitem__(at, (args[2], args[3], out))
            )
    captured = Capture(model, ["attn"])(inputs)
    assert torch.allclose(captured.output, model(inputs), atol=1e-6)
    assert captured["read"].layers == captured["control"].layers == [0, 1, 2]
    for (kind, t), (values, mask, out) in seen.items():
        attn_BK = captured[kind].attn[:, t, 0, 0]
        assert torch.allclose(attn_BK.sum(-1), torch.ones(3), atol=1e-5)
        assert (attn_BK[~mask] == 0).all()
        assert torch.allclose(torch.einsum("bk,bkd->bd", attn_BK, values), out, atol=1e-5)


class Scramble:
    """Random weights over the visible keys in place of the attention of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def attend(self, call: AttentionCall) -> torch.Tensor:
        if call.module.attention_kind != self.kind:
            return call.context()
        weights = torch.rand(*call.q.shape[:3], call.k.shape[2]) * call.mask
        return weights / weights.sum(-1, keepdim=True) @ call.v

    def residual_input(self, module, x) -> None:
        pass


@torch.no_grad()
@pytest.mark.parametrize("kind", ["read", "control"])
def test_random_attention_changes_the_answer(kind):
    model, inputs = small(), batch()
    for parameter in model.parameters():  # an untrained network gives small outputs for any input
        parameter.mul_(2)
    with recording(Scramble(kind)):
        scrambled = model(inputs)
    change = (scrambled - model(inputs)).abs().amax(1)
    assert change[0] > 1e-4 and change[2] > 1e-4
    if kind == "read":  # the second question has one region, which gets all attention for any weights
        assert change[1] < 1e-6


@torch.no_grad()
def test_padding_changes_nothing():
    model, inputs = small(), batch()
    wider = {
        "ids_BT": F.pad(inputs["ids_BT"], (0, 3)),
        "features_BND": F.pad(inputs["features_BND"], (0, 0, 0, 2), value=9.0),
        "boxes_BN4": F.pad(inputs["boxes_BN4"], (0, 0, 0, 2), value=0.7),
        "regions_BN": F.pad(inputs["regions_BN"], (0, 2)),
    }
    assert torch.allclose(model(inputs), model(wider), atol=1e-6)
    order = torch.tensor([3, 1, 0, 2, 5, 4])
    mixed = inputs | {k: v[:, order] for k, v in inputs.items() if k != "ids_BT"}
    assert torch.allclose(model(inputs), model(mixed), atol=1e-6)


@torch.no_grad()
def test_the_blind_network_is_blind_and_the_other_is_not():
    inputs = batch()
    other = inputs | {"features_BND": -inputs["features_BND"]}
    assert torch.equal(small(blind=True)(inputs), small(blind=True)(other))
    assert not torch.allclose(small()(inputs), small()(other))
    moved = inputs | {"boxes_BN4": 1 - inputs["boxes_BN4"]}
    assert not torch.allclose(small()(inputs), small()(moved))


@pytest.mark.parametrize("name", ["biased_general_kq", "activated_general"])
def test_all_weights_learn(name):
    model = small(alignment=alignment(name), control_alignment=True, tally=True).train()
    scores, called = model(batch(), torch.tensor([4, 9]))
    (F.cross_entropy(scores, torch.tensor([0, 3, 4])) + called.square().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        # Softmax over words does not see what is the same for all of them: b, and W in W c, of general*.
        if not name.startswith("control_score"):
            assert parameter.grad.abs().sum() > 0, name


@torch.no_grad()
@pytest.mark.parametrize("size", [(24, 24), (17, 30), (9, 8)])
def test_cells_of_a_grid(size):
    model = small(knowledge="grid", channels=2, stem=[3, 5], strides=[4, 2])
    inputs = {"ids_BT": batch()["ids_BT"], "grid_BCHW": torch.randn(3, 2, *size)}
    rows, columns = model.grid_shape(inputs)
    known, real = model.look(inputs)
    assert known.shape == (3, rows * columns, 12) and real.all()
    captured = Capture(model, ["attn"])(inputs)
    assert captured["read"].attn.shape == (3, 3, 1, 1, rows * columns)
    # Raster order: a change in the lower right corner reaches the last cell and not the first.
    other = inputs["grid_BCHW"].clone()
    other[:, :, -1, -1] += 5
    change = (model.see.convolutions[0](other) - model.see.convolutions[0](inputs["grid_BCHW"])).abs().sum(1)
    assert change[0, -1, -1] > 0 and change[0, 0, 0] == 0
    assert small().grid_shape(batch()) is None


def test_a_grid_without_normalisation_keeps_what_is_where():
    torch.manual_seed(0)
    grid = Grid(1, [], [], 4)
    x = torch.zeros(1, 1, 3, 4)
    empty = grid({"grid_BCHW": x})[0]
    x[0, 0, 2, 3] = 1.0
    changed = (grid({"grid_BCHW": x})[0] - empty).abs().sum(-1)[0] > 0
    assert changed.view(3, 4).nonzero().tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]


@torch.no_grad()
def test_questions_of_one_length_need_no_packing():
    model, inputs = small(), batch()
    inputs["ids_BT"][inputs["ids_BT"] == 0] = 5
    one = {k: v[2:] for k, v in inputs.items()}
    beside = {k: F.pad(v, (0, 2)) if k == "ids_BT" else v for k, v in inputs.items()}
    assert torch.allclose(model(inputs)[2:], model(one), atol=1e-6)
    assert torch.allclose(model(inputs), model(beside), atol=1e-6)


@torch.no_grad()
def test_a_plain_start_scores_by_the_control():
    """The first step's score is Σ ELU(c ∘ ELU(k + W(m ∘ k))) / √D."""
    model = small(plain_start=True)
    seen = {}
    model.read_steps[0].register_forward_hook(
        lambda _, args, out: seen.update(q=args[0], k=args[1], s=args[4])
    )
    inputs = batch()
    model(inputs)
    known, _ = model.look(inputs)
    expected_k = F.elu(known + model.relate(model.remember(model.first_memory) * known))
    assert torch.allclose(seen["k"], expected_k, atol=1e-6)
    score = seen["s"].score(seen["q"][:, None, None], seen["k"][:, None])[:, 0, 0]
    assert torch.allclose(score, F.elu(seen["q"][:, None] * expected_k).sum(-1) / 12**0.5, atol=1e-6)


@torch.no_grad()
def test_names_of_regions_by_hand():
    model, inputs = small(), batch()
    model.seldom.fill_(-0.5)
    scores, called = model(inputs, torch.tensor([4, 9]))
    known, _ = model.look(inputs)
    assert torch.equal(scores, model(inputs)) and called.shape == (3, 6, 2)
    word = model.word.weight @ model.embed.weight[9]
    assert called[2, 3, 1].item() == pytest.approx((known[2, 3] @ word).item() / 12**0.5 - 0.5, abs=1e-5)
    assert torch.equal(small(blind=True)(inputs, torch.tensor([4])), small(blind=True)(inputs))


def test_wrong_settings_are_named():
    for more, message in (
        ({"knowledge": "pixels"}, "knowledge: 'pixels'"),
        ({"dim": 7}, "dim must be even"),
        ({"steps": 0}, "steps at least 1"),
        ({"knowledge": "grid", "stem": [3], "strides": [2, 2]}, "strides: 2 strides for 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            small(**more)


def test_every_alignment_has_its_own_number_of_weights():
    count = {n: sum(p.numel() for p in small(alignment=alignment(n)).parameters()) for n in ALIGNMENTS}
    assert len(ALIGNMENTS) >= 8
    assert count["general_kq"] - count["dot"] == count["general_qk"] - count["dot"] == 144
    assert count["biased_general_kq"] - count["dot"] == count["activated_general"] - count["dot"] == 156
    assert count["cosine"] == count["scaled_dot"] == count["dot"]
    assert build_alignment(alignment("dot"), 4).dim == 4
