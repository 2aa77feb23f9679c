"""The captioning models: formulas by hand, fast paths against naive loops, what may and may not be seen."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attention_atlas.capture.seam import AttentionCall, recording
from attention_atlas.errors import ConfigError
from attention_atlas.language.vocabulary import BOS, EOS, PAD, Vocabulary
from attention_atlas.models.attention import MultiHeadAttention, causal_mask
from attention_atlas.models.base import caption_loss
from attention_atlas.models.dropout import Dropout
from attention_atlas.models.lstm import HierarchicalLSTM
from attention_atlas.models.object_relation import ObjectRelationTransformer, box_geometry, geometry_embedding
from attention_atlas.models.transformer import LayerNorm, WordEmbedding, sinusoids

VOCAB = Vocabulary(["a", ".", "chair", "table", "red", "is", "the", "!"])
SMALL = dict(layers=2, heads=2, dim=16, inner=32)


def batch(features: int = 5) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(3)
    texts = ["the chair is red . a table .", "a red chair !", "the table is . the . a chair is red"]
    rows = [[BOS, *VOCAB.encode(t.split()), EOS] for t in texts]
    ids = torch.full((3, max(map(len, rows))), PAD)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    corners = torch.rand(3, 4, 2, 2, generator=g).sort(2).values
    valid = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
    return {
        "ids_BT": ids,
        "features_BND": torch.randn(3, 4, features, generator=g),
        "boxes_BN4": corners.flatten(2),
        "regions_BN": valid,
    }


def build(name: str) -> Any:
    torch.manual_seed(0)
    if name == "lstm":
        model: Any = HierarchicalLSTM(len(VOCAB), 5, pooled=12, hidden=16)
        model.set_vocabulary(VOCAB)
    elif name == "blind":
        model = ObjectRelationTransformer(len(VOCAB), 5, **SMALL, blind=True)
    else:
        model = ObjectRelationTransformer(len(VOCAB), 5, **SMALL)
    return model.eval()


NAMES = ["object_relation", "lstm", "blind"]


# --- formulas ------------------------------------------------------------------------------------------


def test_layer_norm_by_hand() -> None:
    norm = LayerNorm(3)
    # 1, 2, 6: mean 3, unbiased variance (4 + 1 + 9) / 2 = 7.
    want = torch.tensor([-2.0, -1.0, 3.0]) / math.sqrt(7)
    assert torch.allclose(norm(torch.tensor([1.0, 2.0, 6.0])), want, atol=1e-5)


def test_layer_norm_is_the_published_formula() -> None:
    norm = LayerNorm(16)
    with torch.no_grad():
        norm.gain.uniform_(0.5, 1.5)
        norm.bias.normal_()
    x = torch.randn(4, 7, 16) * 3
    want = norm.gain * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + norm.bias
    assert torch.allclose(norm(x), want, atol=1e-5)


def test_positions_by_hand() -> None:
    table = sinusoids(3, 4)
    assert table[0].tolist() == [0.0, 1.0, 0.0, 1.0]
    want = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    assert torch.allclose(table[2], torch.tensor(want), atol=1e-6)


def test_word_embedding_scales_adds_positions_and_grows_beyond_its_table() -> None:
    embedding = WordEmbedding(5, 4, 0.0, max_length=2)
    ids = torch.tensor([[3, 1, 4, 2]])
    want = embedding.words(ids) * 2.0 + sinusoids(4, 4)
    assert torch.allclose(embedding(ids), want, atol=1e-6)
    assert torch.allclose(embedding(ids[:, 2:], start=2), want[:, 2:], atol=1e-6)


def test_box_geometry_by_hand_with_the_plus_one_of_the_published_code() -> None:
    # Relative boxes; w = x2 - x1 + 1: 1.5 and 1.25, h: 1.5 and 1.0 + 0.5.
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.75, 1.0]]])
    got = box_geometry(boxes)[0]
    # From the first box (query) to the second: Δcx = 0.375, Δcy = 0.5.
    want = [math.log(0.375 / 1.5), math.log(0.5 / 1.5), math.log(1.5 / 1.25), 0.0]
    assert torch.allclose(got[0, 1], torch.tensor(want), atol=1e-5)
    assert got[0, 0].tolist() == pytest.approx([math.log(1e-3), math.log(1e-3), 0.0, 0.0])


def test_geometry_embedding_against_a_loop() -> None:
    boxes = batch()["boxes_BN4"]
    geometry, got = box_geometry(boxes), geometry_embedding(boxes)
    assert got.shape == (3, 4, 4, 64)
    for i, j in [(0, 1), (2, 3), (1, 1)]:
        angles = [100 * float(g) / 1000 ** (k / 8) for g in geometry[1, i, j] for k in range(8)]
        want = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        # The angles reach hundreds: float32 leaves about 1e-4 of them.
        assert got[1, i, j].tolist() == pytest.approx(want, abs=1e-3)


def test_attention_against_a_loop_over_heads_and_rows() -> None:
    torch.manual_seed(1)
    module = MultiHeadAttention(8, 2, "decoder_self", 0)
    x = torch.randn(2, 5, 8)
    got = module(x, mask=causal_mask(5, x.device))
    q, k, v = module.query(x), module.key(x), module.value(x)
    want = torch.zeros(2, 5, 8)
    for b in range(2):
        for h in range(2):
            part = slice(4 * h, 4 * h + 4)
            for i in range(5):
                score = torch.stack([q[b, i, part] @ k[b, j, part] / 2.0 for j in range(i + 1)])
                weight = score.softmax(0)
                want[b, i, part] = sum(weight[j] * v[b, j, part] for j in range(i + 1))
    assert torch.allclose(got, module.output(want), atol=1e-5)


def test_heads_must_divide_the_dimension() -> None:
    with pytest.raises(ConfigError, match="dim: 10 is not a multiple of heads 4"):
        MultiHeadAttention(10, 4, "cross", 0)


def test_dropout_share_scale_and_seed() -> None:
    drop = Dropout(0.3).train()
    torch.manual_seed(5)
    out = drop(torch.ones(401, 503))
    share = float((out == 0).float().mean())
    assert abs(share - 0.3) < 0.005  # 201,703 draws: three standard errors are 0.003
    assert torch.allclose(out[out != 0], torch.tensor(1 / 0.7))
    torch.manual_seed(5)
    assert torch.equal(drop(torch.ones(401, 503)), out)
    x = torch.randn(7)
    assert torch.equal(drop.eval()(x), x)
    assert Dropout(0.5)(torch.ones(9, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_loss_is_the_mean_over_words_and_eos_only() -> None:
    ids = torch.tensor([[BOS, 4, EOS], [BOS, EOS, PAD]])
    logits = torch.zeros(2, 2, 8)
    logits[0, 0, 4] = math.log(3)  # p = 3/10
    want = -(math.log(0.3) + 2 * math.log(1 / 8)) / 3
    assert float(caption_loss(logits, {"ids_BT": ids})) == pytest.approx(want, abs=1e-6)


# --- what each model does ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_step_by_step_equals_teacher_forcing(name: str) -> None:
    """With cached state, and recomputed from the whole prefix, each step gives the row of the forced pass."""
    model, b = build(name), batch()
    with torch.no_grad():
        forced = model(b).log_softmax(-1)
        memory, state = model.encode(b), None
        for t in range(5):  # all three texts have at least five ids
            prefix = b["ids_BT"][:, : t + 1]
            step, state = model.decode_step(memory, prefix, state)
            anew, _ = model.decode_step(memory, prefix)
            assert torch.allclose(step.log_softmax(-1), forced[:, t], atol=1e-5)
            assert torch.allclose(anew.log_softmax(-1), forced[:, t], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_later_words_change_no_earlier_row(name: str) -> None:
    model, b = build(name), batch()
    with torch.no_grad():
        before = model(b)
        b["ids_BT"] = b["ids_BT"].clone()
        b["ids_BT"][0, 4] = VOCAB.encode(["table"])[0]
        after = model(b)
    assert torch.allclose(before[0, :4].log_softmax(-1), after[0, :4].log_softmax(-1), atol=1e-5)
    assert not torch.allclose(before[0, 4], after[0, 4], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_scores_the_same_alone_and_padded(name: str) -> None:
    model, b = build(name), batch()
    alone = {key: value[1:2] for key, value in b.items()}
    alone["ids_BT"] = alone["ids_BT"][:, :6]
    with torch.no_grad():
        assert torch.allclose(model(b)[1, :5].log_softmax(-1), model(alone)[0].log_softmax(-1), atol=1e-5)


@pytest.mark.parametrize("name", ["object_relation", "lstm"])
def test_absent_regions_do_not_matter_and_present_ones_do(name: str) -> None:
    model, b = build(name), batch()
    with torch.no_grad():
        before = model(b)
        b["features_BND"] = b["features_BND"].clone()
        b["features_BND"][1, 2:] = 100.0  # image 1 has two regions
        assert torch.allclose(model(b), before, atol=1e-5)
        b["features_BND"][1, 1] += 3.0
        assert not torch.allclose(model(b)[1], before[1], atol=1e-3)


def test_boxes_matter_to_the_object_relation_transformer() -> None:
    model, b = build("object_relation"), batch()
    with torch.no_grad():
        before = model(b)
        b["boxes_BN4"] = b["boxes_BN4"].flip(1)
        assert not torch.allclose(model(b), before, atol=1e-3)


def test_blind_sees_nothing_of_the_image() -> None:
    model, b = build("blind"), batch()
    other = {**b, "features_BND": torch.randn(3, 4, 5), "boxes_BN4": torch.rand(3, 4, 4)}
    fewer = {name: value[:, :2] if name != "ids_BT" else value for name, value in other.items()}
    with torch.no_grad():
        assert torch.equal(model(b), model(other))
        assert torch.equal(model(b), model({**fewer, "regions_BN": ~fewer["regions_BN"]}))
    seeing = build("object_relation")
    sizes = [{name: value.shape for name, value in m.state_dict().items()} for m in (model, seeing)]
    assert sizes[0] == sizes[1], "a blind model has every weight of the one that it is compared with"


def test_lstm_ends_a_paragraph_by_its_sentence_lstm() -> None:
    """At the start of a sentence the probability of EOS is the sigmoid of the sentence's stop score."""
    model, b = build("lstm"), batch()
    with torch.no_grad():
        pooled = model.encode(b)["pooled_BD"]
        states, _ = model.sentence_lstm(pooled[:, None].expand(-1, 3, -1).contiguous())
        stop = torch.sigmoid(model.stop(states))[..., 0]
        p_end = model(b).softmax(-1)[..., EOS]
    assert p_end[0, 0] == pytest.approx(float(stop[0, 0]), abs=1e-5)  # after BOS: first sentence
    assert p_end[0, 5] == pytest.approx(float(stop[0, 1]), abs=1e-5)  # after the first '.'
    assert p_end[1, 4] == pytest.approx(float(stop[1, 1]), abs=1e-5)  # after '!'
    assert model(b).logsumexp(-1).abs().max() < 1e-4  # log-probabilities


def test_lstm_keeps_its_sentence_ends_in_its_weights() -> None:
    fresh = HierarchicalLSTM(len(VOCAB), 5, pooled=12, hidden=16)
    fresh.load_state_dict(build("lstm").state_dict())
    opens = [VOCAB.words[i - 4] if i > 3 else i for i in fresh.opens_V.nonzero()[:, 0].tolist()]
    assert opens == [BOS, ".", "!"]


# --- attention through the seam ------------------------------------------------------------------------


class Recorder:
    """Keeps every call and residual input; may replace the weights."""

    def __init__(self, replace: bool = False) -> None:
        self.calls: list[AttentionCall] = []
        self.residuals: list[tuple[nn.Module, Tensor]] = []
        self.replace = replace

    def attend(self, call: AttentionCall) -> Tensor:
        self.calls.append(call)
        if not self.replace:
            return call.context()
        weights = call.weights()
        random = torch.rand(weights.shape, generator=torch.Generator().manual_seed(0)) * (weights > 0)
        return random / random.sum(-1, keepdim=True) @ call.factored().v

    def residual_input(self, module: nn.Module, x: Tensor) -> None:
        self.residuals.append((module, x))


def test_every_attention_of_the_transformer_goes_through_the_seam() -> None:
    model, b = build("object_relation"), batch()
    recorder = Recorder()
    with torch.no_grad(), recording(recorder):
        logits = model(b)
    with torch.no_grad():
        assert torch.equal(logits, model(b))
    seen = [(c.module.attention_kind, c.module.layer_index, tuple(c.scores().shape)) for c in recorder.calls]
    encoder = [("encoder_self", i, (3, 2, 4, 4)) for i in range(2)]
    decoder = [
        (kind, i, shape)
        for i in range(2)
        for kind, shape in [("decoder_self", (3, 2, 11, 11)), ("cross", (3, 2, 11, 4))]
    ]
    assert seen == encoder + decoder
    for call in recorder.calls:
        # What is captured, times V, through the output matrix, is what the module gives.
        weights = call.weights()
        assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5)
        assert torch.allclose(weights @ call.v, call.context(), atol=1e-5)


def test_random_attention_changes_the_logits() -> None:
    model, b = build("object_relation"), batch()
    with torch.no_grad():
        before = model(b)
        with recording(Recorder(replace=True)):
            assert not torch.allclose(model(b), before, atol=1e-2)


def test_encoder_attention_is_softmax_of_log_geometry_plus_scaled_dot_product() -> None:
    model, b = build("object_relation"), batch()
    layer = model.encoder[0]
    with torch.no_grad():
        x = model.project(b["features_BND"])
        recorder = Recorder()
        with recording(recorder):
            model.encode(b)
        got = recorder.calls[0].weights()
        normed = layer.norm_self(x)
        q = layer.self_attention.query(normed)[0].view(4, 2, 8)
        k = layer.self_attention.key(normed)[0].view(4, 2, 8)
        emb = geometry_embedding(b["boxes_BN4"])[0]
        for h in range(2):
            g = (emb @ layer.geometry.weight[h] + layer.geometry.bias[h]).relu().clamp(min=1e-6)
            # Herdade et al. 2019, eq. 8: weights proportional to g · exp(score).
            raw = g * (q[:, h] @ k[:, h].T / math.sqrt(8)).exp()
            assert torch.allclose(got[0, h], raw / raw.sum(-1, keepdim=True), atol=1e-5)


def test_each_attention_gets_its_residual_input_before_the_norm() -> None:
    model, b = build("object_relation"), batch()
    recorder = Recorder()
    with torch.no_grad(), recording(recorder):
        model(b)
        assert [m for m, _ in recorder.residuals] == [c.module for c in recorder.calls]
        layer = model.decoder.layers[1]
        x = next(x for m, x in recorder.residuals if m is layer.self_attention)
        call = next(c for c in recorder.calls if c.module is layer.self_attention)
        normed = layer.self_attention.split(layer.self_attention.query(layer.norm_self(x)))
        assert torch.allclose(normed, call.q, atol=1e-5)
        raw = layer.self_attention.split(layer.self_attention.query(x))
        assert not torch.allclose(raw, call.q, atol=1e-2)
