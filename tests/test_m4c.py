"""M4C: what steps may see, padding without effect, pointers, decoding, the loss by hand, every alignment."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.nn import functional as F

from attention_atlas.alignments.build import build_alignment
from attention_atlas.capture import Capture, seam
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.vocabulary import BOS, EOS, PAD
from attention_atlas.models.m4c import M4C

NAMES = (
    *("dot.Dot", "scaled_dot.ScaledDot", "cosine.Cosine", "general_kq.GeneralKQ", "general_qk.GeneralQK"),
    *("biased_general_kq.BiasedGeneralKQ", "biased_general_qk.BiasedGeneralQK"),
    "activated_general.ActivatedGeneral",
)
DOT = {"_target_": "attention_atlas.alignments.dot.Dot"}
LOOK, ANSWERS = 5, 9


def small(alignment=DOT, **more):
    torch.manual_seed(0)
    sizes = {"layers": 2, "heads": 2, "dim": 16, "inner": 24, "text_layers": 1, "steps": 4, "max_text": 8}
    return M4C(20, ANSWERS, 6, LOOK, alignment, **(sizes | {"dropout": 0.0} | more)).eval()


def batch(count=3, words=5, objects=4, read=3):
    g = torch.Generator().manual_seed(1)
    ids_BT = torch.randint(4, 20, (count, words), generator=g)
    ids_BT[0, -2:] = PAD
    ocr_BO, regions_BN = torch.ones(count, read).bool(), torch.ones(count, objects).bool()
    ocr_BO[0, -1], regions_BN[1, -2:] = False, False
    return {
        "ids_BT": ids_BT,
        "spelling_BTP": (torch.rand(count, words, 604, generator=g) > 0.9).float(),
        "features_BND": torch.randn(count, objects, 6, generator=g),
        "boxes_BN4": torch.rand(count, objects, 4, generator=g),
        "regions_BN": regions_BN,
        "ocr_spelling_BOP": (torch.rand(count, read, 604, generator=g) > 0.9).float(),
        "ocr_look_BOL": torch.rand(count, read, LOOK, generator=g),
        "ocr_boxes_BO4": torch.rand(count, read, 4, generator=g),
        "ocr_BO": ocr_BO,
        "previous_BS": torch.tensor([[BOS, 5, ANSWERS], [BOS, ANSWERS + 1, 6], [BOS, 4, 4]]),
    }


def padded(inputs, axes=("T", "N", "O")):
    """One more word, object and word read in every row, masked, with content that must not matter."""
    out = dict(inputs)
    for name, value in inputs.items():
        for axis in axes:
            letters = name.rsplit("_", 1)[1]
            if axis in letters:
                shape = list(out[name].shape)
                shape[letters.index(axis)] = 1
                empty = torch.full(shape, 0, dtype=value.dtype)
                if value.is_floating_point():
                    empty = empty + 7.0
                out[name] = torch.cat([out[name], empty], letters.index(axis))
    return out


@pytest.mark.parametrize("norm_first", [False, True])
@torch.no_grad()
def test_padding_changes_nothing_and_padding_is_never_pointed_at(norm_first):
    model, inputs = small(norm_first=norm_first), batch()
    scores, more = model(inputs), model(padded(inputs))
    assert scores.shape == (3, 3, ANSWERS + 3)
    assert torch.allclose(scores, more[..., :-1], atol=1e-4) and bool((more[..., -1] == -1e4).all())
    assert bool((scores[0, :, -1] == -1e4).all()) and bool((scores[1, :, -1] > -1e3).all())


@torch.no_grad()
def test_a_step_sees_previous_words_only():
    model, inputs = small(), batch()
    scores = model(inputs)
    for step in (1, 2):
        other = inputs | {"previous_BS": inputs["previous_BS"].clone()}
        other["previous_BS"][:, step] = ANSWERS
        changed = model(other)
        assert torch.allclose(changed[:, :step], scores[:, :step], atol=1e-5)
        assert (changed[:, step:] - scores[:, step:]).abs().amax() > 1e-3


@torch.no_grad()
def test_words_read_in_another_order_have_their_pointers_in_that_order():
    model, inputs = small(), batch()
    order = torch.tensor([2, 0, 1])
    turned = {k: v[:, order] if k.startswith("ocr_") else v for k, v in inputs.items()}
    where = torch.argsort(order)
    previous = inputs["previous_BS"]
    turned["previous_BS"] = torch.where(
        previous >= ANSWERS, where[(previous - ANSWERS).clamp(min=0)] + ANSWERS, previous
    )
    a, b = model(inputs), model(turned)
    assert torch.allclose(a[..., :ANSWERS], b[..., :ANSWERS], atol=1e-4)
    assert torch.allclose(a[..., ANSWERS:][..., order], b[..., ANSWERS:], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_alignment_attends_by_its_score_and_learns(name):
    alignment = {"_target_": f"attention_atlas.alignments.{name}"}
    model, inputs = small(alignment), batch()
    calls = []
    hook = model.layers[1].attention.output.register_forward_pre_hook(lambda _, given: calls.append(given[0]))
    captured = Capture(model, ["attn"], layers="multimodal.*")(inputs)
    hook.remove()
    attn_BLHQK = captured["multimodal"].attn
    keys = 5 + 4 + 3 + 3
    assert attn_BLHQK.shape == (3, 2, 2, keys, keys)
    visible = attn_BLHQK.sum(-1)
    assert torch.allclose(visible, torch.ones_like(visible), atol=1e-3)
    assert attn_BLHQK[..., :12, 12:].abs().max() == 0  # nothing but a step sees a step
    # The context that leaves the second layer's heads is the attention times the values.
    values = []
    hook = model.layers[1].attention.value.register_forward_hook(lambda *given: values.append(given[2]))
    scores = model(inputs)
    hook.remove()
    v_BHKD = values[0].view(3, keys, 2, 8).transpose(1, 2)
    context = (attn_BLHQK[:, 1].float() @ v_BHKD).transpose(1, 2).reshape(3, keys, 16)
    assert torch.allclose(context, calls[0], atol=2e-3)
    assert torch.equal(captured.output, scores) or torch.allclose(captured.output, scores, atol=1e-4)
    target = torch.zeros_like(scores)
    target[:, :, EOS] = 1
    model.loss(inputs | {"target_BSA": target, "counts_BS": torch.ones(3, 3).bool()}).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    inside = [p for n, p in model.named_parameters() if ".alignment." in n]
    assert len(inside) == (0 if name.split(".")[0] in ("dot", "scaled_dot", "cosine") else len(inside) or -1)
    assert all(p.shape[-1] == 8 for p in inside)  # one matrix for all heads of a layer


@torch.no_grad()
def test_other_attention_changes_the_answer(monkeypatch):
    model, inputs = small(), batch()
    scores = model(inputs)
    call = seam.AttentionCall.scores
    monkeypatch.setattr(seam.AttentionCall, "factored", _unfused(seam.AttentionCall.factored))
    assert torch.allclose(model(inputs), scores, atol=1e-4)
    monkeypatch.setattr(
        seam.AttentionCall, "scores", lambda c: call(c) + torch.randn(call(c).shape, generator=_seeded()) * 3
    )
    assert (model(inputs) - scores).abs().max() > 0.05


def _seeded():
    return torch.Generator().manual_seed(3)


def _unfused(factored):
    """The same call, but through the weights."""

    @functools.wraps(factored)
    def made(call):
        out = factored(call)
        if out.alignment is None and call.alignment is not None:
            scale = out.scale
            out.alignment = type("Plain", (), {"score": lambda self, q, k: q @ k.transpose(-1, -2) * scale})()
        return out

    return made


@torch.no_grad()
def test_general_with_the_unit_matrix_is_the_dot_product():
    plain = small()
    general = small({"_target_": "attention_atlas.alignments.general_kq.GeneralKQ", "init": "identity"})
    general.load_state_dict(
        plain.state_dict() | {k: v for k, v in general.state_dict().items() if ".alignment." in k}
    )
    assert torch.allclose(plain(batch()), general(batch()), atol=1e-4)


@torch.no_grad()
def test_the_published_layout_swaps_queries_and_keys_of_f_of_k_and_q():
    correct = {"_target_": "attention_atlas.alignments.general_kq.GeneralKQ"}
    model, other = small(correct), small(correct | {"layout": "published"})
    state = model.state_dict()
    other.load_state_dict(
        {k.replace("alignment.inner.", "alignment."): v for k, v in state.items()}
        if set(other.state_dict()) == set(state)
        else {k: state[k.replace("alignment.inner.", "alignment.")] for k in other.state_dict()}
    )
    q, k = torch.randn(2, 2, 4, 8), torch.randn(2, 2, 4, 8)
    a, b = model.layers[0].attention.alignment, other.layers[0].attention.alignment
    assert torch.allclose(a.score(q, k).transpose(-1, -2), b.score(q, k), atol=1e-5)
    assert (model(batch()) - other(batch())).abs().max() > 1e-3


@torch.no_grad()
def test_generate_is_the_greedy_loop_step_by_step():
    model, inputs = small(), batch()
    for parameter in (model.vocabulary.weight, model.pointer_query.weight):
        parameter.mul_(6)
    generated_BS = model.generate(inputs)
    assert generated_BS.shape == (3, 4)
    for b in range(3):
        one = {k: v[b : b + 1] for k, v in inputs.items()}
        previous, ended = [BOS], False
        for t in range(4):
            scores = model(one | {"previous_BS": torch.tensor([previous])})[0, -1]
            scores[[PAD, BOS]] = -1e9
            wanted = PAD if ended else int(scores.argmax())
            assert int(generated_BS[b, t]) == wanted
            ended = ended or wanted == EOS
            previous.append(wanted)


def test_loss_by_hand_counts_only_steps_that_count():
    model, inputs = small(), batch()
    scores = model(inputs)
    target = (torch.rand(scores.shape, generator=_seeded()) > 0.8).float()
    target[..., 4] = 1  # each step has a right word that can be generated
    counts = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    expected = 0.0
    for b, s in ((0, 0), (0, 1), (1, 0)):
        p = torch.sigmoid(scores[b, s].detach().double()).clamp(1e-30, 1 - 1e-12)
        t = target[b, s].double()
        known = scores[b, s] > -1e3
        expected += float(-(t * p.log() + (1 - t) * (1 - p).log())[known].sum())
    loss = model(inputs | {"target_BSA": target, "counts_BS": counts}, learn=True)
    assert float(loss.detach()) == pytest.approx(expected / 3, rel=1e-4)


def test_softmax_loss_by_hand():
    model, inputs = small(loss="softmax"), batch()
    scores = model(inputs).detach()
    target = torch.zeros(scores.shape)
    target[0, 0, 4] = target[0, 0, ANSWERS] = target[1, 0, EOS] = 1
    counts = torch.zeros(3, 3).bool()
    counts[0, 0] = counts[1, 0] = True
    share = torch.softmax(scores, -1)
    expected = -(share[0, 0, [4, ANSWERS]].sum().log() + share[1, 0, EOS].log()) / 2
    given = inputs | {"target_BSA": target, "counts_BS": counts}
    loss = model(given, learn=True)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)
    loss.backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    with pytest.raises(ConfigError, match="softmx"):
        small(loss="softmx")


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_steps_that_only_unseen_words_could_answer_do_not_count(kind):
    """A pointer to a word that the model does not see has a constant score; as a right word it would give a
    loss of 10,000 that no update can lower, and drown the steps that can be learned."""
    model, inputs = small(loss=kind, blind=True), batch()
    scores = model(inputs).detach()
    pointed, counts = torch.zeros(scores.shape), torch.zeros(3, 3).bool()
    pointed[0, 0, 4] = pointed[0, 1, ANSWERS] = pointed[1, 0, EOS] = pointed[1, 0, ANSWERS + 1] = 1
    counts[0, :2] = counts[1, 0] = True
    loss = model(inputs | {"target_BSA": pointed, "counts_BS": counts}, learn=True)
    able, reachable = counts.clone(), pointed.clone()
    able[0, 1], reachable[..., ANSWERS:] = False, 0
    wanted = model(inputs | {"target_BSA": reachable, "counts_BS": able}, learn=True)
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert float(loss.detach()) < 100
    # A word that is read but padded in one row is seen in another: only the row's own mask decides.
    seeing = small(loss=kind)
    target = torch.zeros(scores.shape)
    target[0, 0, ANSWERS + 2] = target[1, 0, ANSWERS + 2] = 1
    both, one = torch.zeros(3, 3).bool(), torch.zeros(3, 3).bool()
    both[:2, 0], one[1, 0] = True, True
    losses = [
        float(seeing.loss(inputs | {"target_BSA": target, "counts_BS": c}).detach()) for c in (both, one)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    nothing = model.loss(inputs | {"target_BSA": pointed * 0, "counts_BS": counts})
    assert float(nothing.detach()) == 0 and not nothing.isnan()


@torch.no_grad()
def test_blind_sees_neither_objects_nor_words_read():
    model, inputs = small(blind=True), batch()
    other = {
        k: torch.rand(v.shape) if v.is_floating_point() and k[0] in "fbo" else v for k, v in inputs.items()
    }
    plain = {"previous_BS": torch.tensor([[BOS, 4]] * 3)}
    assert torch.allclose(model(inputs | plain), model(other | plain), atol=1e-5)
    assert bool((model(inputs | plain)[..., ANSWERS:] == -1e4).all())
    assert int(model.generate(inputs).max()) < ANSWERS


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ConfigError, match="not a multiple of heads"):
        small(heads=3)
    with pytest.raises(AtlasError, match="question has 9 words"):
        small()(batch(words=9))
    with pytest.raises(AtlasError, match="5 steps"):
        small()(batch() | {"previous_BS": torch.full((3, 5), BOS)})


@torch.no_grad()
def test_said_words_are_the_classifiers_own_vectors_and_those_read():
    model, inputs = small(), batch()
    _, _, ocr_BOD = model.embed(inputs)
    found = model.embed_previous(torch.tensor([[4, ANSWERS + 2]] * 3), ocr_BOD)
    about = [
        model.norms["previous"](model.previous_place.weight[s] + model.previous_kind.weight[s])
        for s in (0, 1)
    ]
    assert torch.allclose(
        found[0, 0], model.previous_norm[0](model.vocabulary.weight[4]) + about[0], atol=1e-5
    )
    assert torch.allclose(found[:, 1], model.previous_norm[1](ocr_BOD[:, 2]) + about[1], atol=1e-5)


def test_default_is_the_scaled_dot_product():
    assert small(None).layers[0].attention.alignment is None
    made = build_alignment({"_target_": "attention_atlas.alignments.scaled_dot.ScaledDot"}, 8)
    q, k = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 4, 8)
    call = seam.AttentionCall(small(), q, k, k, alignment=made)
    assert torch.allclose(call.context(), F.scaled_dot_product_attention(q, k, k), atol=1e-5)
