"""The released checkpoint's layout: a file made here with its names, against the public code's arithmetic."""

import json
import math

import pytest
import torch

from attention_atlas.errors import AtlasError
from attention_atlas.language.vocabulary import BOS, EOS, UNK
from attention_atlas.models.load import check_features, load_model
from attention_atlas.models.object_relation import geometry_embedding
from attention_atlas.models.search import generate
from attention_atlas.models.yahoo_checkpoint import load_released, read_released

LAYERS, HEADS, DIM, INNER, FEATURES = 2, 4, 16, 24, 8
WORDS = ["a", "lamp", "on", "table", "UNK"]


def linear(state, name, out, into):
    state[f"{name}.weight"] = torch.randn(out, into) * 0.3
    state[f"{name}.bias"] = torch.randn(out) * 0.1


def norm(state, name):
    state[f"{name}.a_2"] = 1 + torch.randn(DIM) * 0.1
    state[f"{name}.b_2"] = torch.randn(DIM) * 0.1


@pytest.fixture
def files(tmp_path):
    torch.manual_seed(3)
    state = {}
    linear(state, "att_embed.0", DIM, FEATURES)
    for side, attentions in (("encoder", ["self_attn"]), ("decoder", ["self_attn", "src_attn"])):
        for i in range(LAYERS):
            at = f"model.{side}.layers.{i}"
            for attention in attentions:
                for n in range(4):
                    linear(state, f"{at}.{attention}.linears.{n}", DIM, DIM)
            linear(state, f"{at}.feed_forward.w_1", INNER, DIM)
            linear(state, f"{at}.feed_forward.w_2", DIM, INNER)
            for n in range(len(attentions) + 1):
                norm(state, f"{at}.sublayer.{n}.norm")
        norm(state, f"model.{side}.norm")
    for i in range(LAYERS):
        for h in range(HEADS):
            linear(state, f"model.encoder.layers.{i}.self_attn.WGs.{h}", 1, 64)
    state["model.tgt_embed.0.lut.weight"] = torch.randn(len(WORDS) + 1, DIM)
    position = torch.arange(30)[:, None]
    rate = torch.exp(torch.arange(0, DIM, 2).float() * -(math.log(10000.0) / DIM))
    pe = torch.zeros(30, DIM)
    pe[:, 0::2], pe[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
    state["model.tgt_embed.1.pe"] = pe[None]
    linear(state, "model.generator.proj", len(WORDS) + 1, DIM)
    torch.save(state, tmp_path / "model.pth")
    (tmp_path / "words.json").write_text(
        json.dumps({"ix_to_word": {str(i + 1): w for i, w in enumerate(WORDS)}})
    )
    return state, tmp_path


def reference(state, features, boxes, ids, extra_skip=True):
    """The public code's forward pass written out: (T, V+1) logits for the ids fed in (0 = start)."""

    def lin(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def ln(name, x):
        return (
            state[f"{name}.a_2"] * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)
            + state[f"{name}.b_2"]
        )

    def heads(x):
        return x.view(len(x), HEADS, -1).transpose(0, 1)

    def attention(name, q, m, bias=None, mask=None, skip=False):
        a, b, c = (heads(lin(f"{name}.linears.{n}", x)) for n, x in ((0, q), (1, m), (2, m)))
        score = a @ b.transpose(-1, -2) / math.sqrt(DIM // HEADS)
        if bias is not None:
            score = score + bias
        if mask is not None:
            score = score.masked_fill(~mask, -1e9)
        x = (score.softmax(-1) @ c).transpose(0, 1).reshape(len(q), DIM)
        return lin(f"{name}.linears.3", x + q if skip else x)

    def feed(name, x):
        return lin(f"{name}.w_2", torch.relu(lin(f"{name}.w_1", x)))

    x = torch.relu(lin("att_embed.0", features))
    geometry = geometry_embedding(boxes[None])[0]
    for i in range(LAYERS):
        at = f"model.encoder.layers.{i}"
        weights = [torch.relu(lin(f"{at}.self_attn.WGs.{h}", geometry))[..., 0] for h in range(HEADS)]
        bias = torch.log(torch.stack(weights).clamp(min=1e-6))
        y = ln(f"{at}.sublayer.0.norm", x)
        x = x + attention(f"{at}.self_attn", y, y, bias, skip=extra_skip)
        x = x + feed(f"{at}.feed_forward", ln(f"{at}.sublayer.1.norm", x))
    memory = ln("model.encoder.norm", x)
    x = (
        state["model.tgt_embed.0.lut.weight"][ids] * math.sqrt(DIM)
        + state["model.tgt_embed.1.pe"][0, : len(ids)]
    )
    mask = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    for i in range(LAYERS):
        at = f"model.decoder.layers.{i}"
        y = ln(f"{at}.sublayer.0.norm", x)
        x = x + attention(f"{at}.self_attn", y, y, mask=mask)
        x = x + attention(f"{at}.src_attn", ln(f"{at}.sublayer.1.norm", x), memory)
        x = x + feed(f"{at}.feed_forward", ln(f"{at}.sublayer.2.norm", x))
    return lin("model.generator.proj", ln("model.decoder.norm", x))


@pytest.mark.parametrize("skip", [True, False])
def test_same_scores_as_the_public_arithmetic(files, skip):
    state, folder = files
    model, vocab, config = load_released(folder / "model.pth", folder / "words.json", legacy_extra_skip=skip)
    assert config["sizes"]["layers"] == LAYERS and vocab.words == WORDS[:-1]
    features, boxes = torch.randn(5, FEATURES), torch.rand(5, 4).sort(-1).values[:, [0, 1, 2, 3]]
    ids = [BOS, *vocab.encode(["a", "lamp", "zebra", "on"]), EOS]
    batch = {
        "ids_BT": torch.tensor([ids]),
        "features_BND": features[None],
        "boxes_BN4": boxes[None],
        "regions_BN": torch.ones(1, 5, dtype=torch.bool),
    }
    with torch.no_grad():
        ours = model(batch)[0]
    theirs = reference(state, features, boxes, torch.tensor([0, 1, 2, 5, 3]), skip)  # zebra is UNK, id 5
    order = [EOS, *vocab.encode(WORDS[:-1]), UNK]
    torch.testing.assert_close(ours[:, order], theirs, atol=1e-4, rtol=1e-4)
    # PAD and BOS take no probability: the softmax is that of the released vocabulary.
    torch.testing.assert_close(ours.softmax(-1)[:, order], theirs.softmax(-1), atol=1e-5, rtol=1e-4)
    assert generate(model, batch, beam=5, max_words=6)[0].score < 0


def test_forbidden_tokens_do_not_hide_differences(files):
    """Checks compare outputs relative to the largest: a bias of 1e9 would make everything equal."""
    _, folder = files
    state, _, _ = read_released(folder / "model.pth", folder / "words.json")
    bias = state["decoder.generator.bias"]
    assert bias.abs().max() <= 1e4 and float(bias.softmax(-1)[bias == bias.min()].sum()) == 0


def test_faults_are_named(files):
    state, folder = files
    weights, words = folder / "model.pth", folder / "words.json"
    for change, message in (
        (lambda s: s.pop("model.decoder.norm.a_2"), "model.decoder.norm.a_2: is missing"),
        (lambda s: s.update({"model.extra": torch.ones(1)}), "model.extra: is not part"),
    ):
        broken = dict(state)
        change(broken)
        torch.save(broken, weights)
        with pytest.raises(AtlasError, match=message):
            read_released(weights, words)
    torch.save(state, weights)
    words.write_text(json.dumps({"ix_to_word": {"1": "a"}}))
    with pytest.raises(AtlasError, match="has 1 words, the weights have 5"):
        read_released(weights, words)
    words.write_text("[]")
    with pytest.raises(AtlasError, match="ix_to_word"):
        read_released(weights, words)
    weights.write_bytes(b"nothing")
    with pytest.raises(AtlasError, match=r"model.pth: not a file of weights"):
        read_released(weights, words)
    with pytest.raises(AtlasError, match="no such file"):
        read_released(folder / "none.pth", words)
    torch.save({"epoch": 3}, weights)
    with pytest.raises(AtlasError, match="not a state dict"):
        read_released(weights, words)


def test_safetensors_too(files):
    from safetensors.torch import save_file

    state, folder = files
    save_file(state, folder / "model.safetensors")
    ours, _, sizes = read_released(folder / "model.safetensors", folder / "words.json")
    assert sizes == {"layers": 2, "heads": 4, "dim": 16, "inner": 24, "feature_dim": 8, "vocab_size": 8}
    torch.testing.assert_close(
        ours["encoder.0.geometry.weight"][2], state["model.encoder.layers.0.self_attn.WGs.2.weight"][0]
    )


def test_a_configuration_names_the_weights(files, tmp_path):
    import captioning_world as world

    from attention_atlas.regions.features_file import FeaturesFile

    _, folder = files
    source = {
        "_target_": "attention_atlas.models.yahoo_checkpoint.load_released",
        "name": "released",
        "run_folder": None,
        "weights": str(folder / "model.pth"),
        "words": str(folder / "words.json"),
        "layers": LAYERS,
        "dim": DIM,
    }
    model, vocab, config = load_model(source)
    state, _, _ = read_released(folder / "model.pth", folder / "words.json")
    torch.testing.assert_close(dict(model.state_dict()), {k: state[k] for k in model.state_dict()})
    assert not model.training and vocab.words == WORDS[:-1] and config["train"]["task"]["max_words"] == 16
    with FeaturesFile(world.write_features(tmp_path / "f.h5", world.corpus(train=4, held=3))) as features:
        check_features(config, features)
        with pytest.raises(AtlasError, match="the model needs 9 numbers per region, 8 are given"):
            check_features({"sizes": {"feature_dim": 9}}, features)
    with pytest.raises(AtlasError, match="dim: the weights have 16, not 32; correct the model"):
        load_model(source | {"dim": 32})
