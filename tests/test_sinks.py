"""Attention sinks: by hand, by definition, planted in a model, and where there are none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from look_tiny import ANSWER, PROMPT, photo
from tiny_checkpoints import FAMILIES

from attention_atlas.__main__ import main
from attention_atlas.capture import Capture, roles_of
from attention_atlas.capture.sinks import find_sinks, places_of
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.look import Atlas
from attention_atlas.look import inputs as look_inputs
from attention_atlas.look.doctor import made_up_image
from attention_atlas.look.load import load
from attention_atlas.look.sinks import look_sinks

HEAD_SIZE = 4  # of look_tiny.LLAMA


def causal(length: int) -> np.ndarray:
    return np.tril(np.ones((length, length), dtype=bool))


def test_four_tokens_by_hand():
    attn_QK = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.8, 0.1, 0.1, 0], [0.7, 0.1, 0.1, 0.1]])
    roles = ["bos", "image", "image", "text"]
    sinks = find_sinks(attn_QK.sum(0)[None, None], causal(4), roles, times=None)
    # Keys 0..3 are seen by 4, 3, 2, 1 queries.
    np.testing.assert_allclose(sinks.score_LHK[0, 0], [3.0 / 4, 0.7 / 3, 0.2 / 2, 0.1])
    # The uniform share of key 0 is (1 + 1/2 + 1/3 + 1/4) / 4 = 0.52, and 0.75 is less than twice that.
    assert not sinks.is_sink_LHK.any() and sinks.mass_LH[0, 0] == 0
    np.testing.assert_allclose(sinks.without_LHG, sinks.with_LHG)

    attn_QK = np.array([[0.9, 0.1, 0, 0], [0.1, 0.7, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0, 0.9, 0, 0.1]])
    everything = np.ones((4, 4), dtype=bool)
    sinks = find_sinks(attn_QK.sum(0)[None, None], everything, roles, times=None)
    # Key 1 takes 2.4 of 4: a score of 0.6, above 0.3 and above 2 · 1/4. Key 0 has 1.1 / 4 = 0.275.
    assert sinks.is_sink_LHK[0, 0].tolist() == [False, True, False, False] and sinks.positions == [1]
    assert sinks.mass_LH[0, 0] == pytest.approx(0.6) and sinks.groups == ["text", "image", "bos"]
    np.testing.assert_allclose(sinks.with_LHG[0, 0], [0.3 / 4, 2.6 / 4, 1.1 / 4])
    # Without it 1.6 is left: text 0.3, image 0.2, bos 1.1.
    np.testing.assert_allclose(sinks.without_LHG[0, 0], [0.3 / 1.6, 0.2 / 1.6, 1.1 / 1.6])


@pytest.mark.parametrize("length", [1, 2, 5, 20, 100, 600])
@pytest.mark.parametrize("rule", [{}, {"times": None}, {"epsilon": None}])
def test_uniform_attention_has_no_sinks(length, rule):
    visible = causal(length)
    received_K = (visible / visible.sum(-1, keepdims=True)).sum(0)
    sinks = find_sinks(received_K[None, None], visible, ["text"] * length, **rule)
    assert not sinks.is_sink_LHK.any()


def test_nor_have_positions_that_only_see_themselves():
    """Attention to oneself gives the last positions a high mean over the few queries that see them."""
    length = 40
    attn_QK = 0.5 * np.eye(length) + 0.5 * causal(length) / np.arange(1, length + 1)[:, None]
    sinks = find_sinks(attn_QK.sum(0)[None, None], causal(length), ["text"] * length, times=None)
    assert sinks.score_LHK[0, 0, -1] > 0.5 and not sinks.is_sink_LHK.any()
    judged = find_sinks(attn_QK.sum(0)[None, None], causal(length), ["text"] * length, times=None, least=0)
    assert judged.is_sink_LHK[0, 0, -1]


def test_one_of_many_image_tokens_by_multiples_of_the_uniform_share():
    roles = ["bos", *["image"] * 100, *["text"] * 20]
    attn_QK = np.ones((20, 121)) / 121
    attn_QK[:, 37] = 11 / 121
    attn_QK /= attn_QK.sum(-1, keepdims=True)  # 10.2 times uniform, a share of 0.084
    received_K, visible = attn_QK.sum(0), np.ones((20, 121), dtype=bool)
    sinks = find_sinks(received_K[None, None], visible, roles)
    assert sinks.positions == [37] and sinks.heads_K[37] == 1
    group = sinks.groups.index("image")
    assert sinks.without_LHG[0, 0, group] == pytest.approx(99 / 120)
    for rule in ({"times": None}, {"times": 10.5}):
        assert not find_sinks(received_K[None, None], visible, roles, **rule).positions
    # The same rule for each head alone.
    both = np.stack([received_K, np.full(121, 20 / 121)])[None]
    assert find_sinks(both, visible, roles).is_sink_LHK.sum(-1).tolist() == [[1, 0]]


@pytest.mark.parametrize("name", FAMILIES)
def test_received_gives_what_the_matrix_gives(name, tmp_path):
    """Against loops over the whole matrix; a low threshold, so that random models have sinks."""
    local = {"window": 8} if name == "gemma3" else {}  # shorter than the text
    model, processor = load(str(FAMILIES[name](tmp_path, **local)), "cpu")
    inputs = look_inputs.prompt_inputs(model, processor, [made_up_image().pixels], PROMPT)
    (roles,) = roles_of(inputs, model.config)
    (kind,) = Capture(model, ["received", "attn"], layers="decoder")(**inputs).values()
    attn_LHQK = kind.attn[0].double().numpy()
    visible_LQK = attn_LHQK.max(1) > 0
    sinks = find_sinks(kind.received[0].numpy(), visible_LQK, roles, epsilon=0.2, times=3)
    assert sinks.is_sink_LHK.any()
    for layer, head in np.ndindex(attn_LHQK.shape[:2]):
        found, taken = [], {}
        for k in range(len(roles)):
            queries = [q for q in range(len(roles)) if visible_LQK[layer, q, k]]
            score = np.mean([attn_LHQK[layer, head, q, k] for q in queries])
            share = np.mean([1 / visible_LQK[layer, q].sum() for q in queries])
            assert sinks.score_LHK[layer, head, k] == pytest.approx(score, abs=1e-5)
            if len(queries) >= len(roles) / 4 and score > max(2 * share, min(0.2, 3 * share)):
                found.append(k)
        assert np.flatnonzero(sinks.is_sink_LHK[layer, head]).tolist() == found
        rest = attn_LHQK[layer, head].copy()
        rest[:, found] = 0
        for g, group in enumerate(sinks.groups):
            taken = rest[:, np.array(roles) == group].sum() / rest.sum()
            assert sinks.without_LHG[layer, head, g] == pytest.approx(taken, abs=1e-5)


@pytest.fixture(scope="module")
def llava_folder(tmp_path_factory):
    return FAMILIES["llava"](tmp_path_factory.mktemp("llava"))


def planted(model, layer: int, bos: int | None, patch: int | None) -> None:
    """Heads 0 and 1 of a layer attend to `bos`, heads 2 and 3 to `patch`, from all positions; uniformly
    without them. Only the second dimension counts, which rotary positions hardly turn."""
    attention = model.model.language_model.layers[layer].self_attn

    def query(_, __, out):
        out = torch.zeros_like(out).unflatten(-1, (-1, HEAD_SIZE))
        out[..., 1] = 4
        return out.flatten(-2)

    def key(_, __, out):
        out = torch.zeros_like(out).unflatten(-1, (-1, HEAD_SIZE))
        for head, position in enumerate((bos, patch)):
            if position is not None and position < out.shape[1]:
                out[:, position, head, 1] = 3
        return out.flatten(-2)

    attention.q_proj.register_forward_hook(query)
    attention.k_proj.register_forward_hook(key)


def test_planted_sinks_are_found_where_they_are(llava_folder, tmp_path):
    model, processor = load(str(llava_folder), "cpu")
    image = photo(tmp_path / "a.png")
    plain = Atlas(model, processor).look(image, PROMPT, ANSWER)
    bos, patch = 0, int(plain.image_T[4])  # the middle of 3 × 3
    planted(model, 1, bos, patch)
    planted(model, 2, None, None)
    look = Atlas(model, processor).look(image, PROMPT, ANSWER)
    found = look_sinks(look)
    sinks = found.by_head
    assert [np.flatnonzero(x).tolist() for x in sinks.is_sink_LHK[1]] == [[bos]] * 2 + [[patch]] * 2
    assert not sinks.is_sink_LHK[2].any()  # uniform
    first, other = sorted(found.tokens[:2], key=lambda token: token.position)
    assert (first.position, first.sort, first.place) == (bos, "first", None)
    assert (other.position, other.sort) == (patch, "image")
    place = other.place
    assert (place.row, place.column, place.rows, place.columns, place.edge) == (1, 1, 3, 3, False)
    assert found.at_edges == 8 / 9
    assert sinks.mass_LH[1] == pytest.approx(1, abs=0.2)
    # Shares are those of the words; without the patch, the rest of the attention is uniform.
    group = sinks.groups.index("image")
    mass_LHG = look.statistics["mass"].mean(2)
    np.testing.assert_allclose(sinks.with_LHG, mass_LHG, atol=1e-5)
    np.testing.assert_allclose(found.by_head.taken_LHK.sum(-1), 1, atol=1e-5)
    assert sinks.with_LHG[1, 2, group] > 0.8 > 0.5 > sinks.without_LHG[1, 2, group]
    assert sinks.without_LHG[1, 0, group] == pytest.approx(
        sinks.with_LHG[1, 0, group] / (1 - sinks.mass_LH[1, 0]), rel=1e-4
    )
    summary = look.summary()["sink_statistics"]
    assert summary["mass"][1] == pytest.approx(sinks.mass_LH[1], abs=1e-6)
    assert summary["without"]["image"][1] == pytest.approx(sinks.without_LHG[1, :, group], abs=1e-6)
    assert {t["position"] for t in summary["tokens"]} >= {bos, patch} and json.dumps(summary)
    assert "2 of 3" in found.text() and "89% of all image tokens" in found.text()


def test_places_and_contrast():
    """A thumbnail of 2 × 2 and two tiles of 2 × 2 beside each other, all of one image; a second image."""
    thumbnail = [[x, y, x + 20, y + 20] for y in (0, 20) for x in (0, 20)]
    tiles = [[x, y, x + 10, y + 20] for left in (0, 20) for y in (0, 20) for x in (left, left + 10)]
    boxes = np.array([[np.nan] * 4, *thumbnail, *tiles, [0, 0, 5, 5], [5, 0, 10, 5]], dtype=float)
    image_K = np.array([-1, *[0] * 12, 1, 1])
    first = np.full((40, 40, 3), 90)
    first[20:30, 10:20] = np.random.default_rng(0).integers(0, 255, (10, 10, 3))
    places = places_of(boxes, image_K, [first, np.zeros((5, 10, 3))])
    assert sorted(places) == list(range(1, 15))
    assert [(p.row, p.column) for k, p in sorted(places.items()) if 1 <= k <= 4] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    assert (places[9].row, places[9].column, places[9].rows, places[9].columns) == (0, 0, 2, 2)
    # Column 1 of the first tile and column 0 of the second are in the middle, but touch top or bottom.
    assert all(p.edge for p in places.values())
    # Tokens 3 (thumbnail) and 8 (tile) hold the noise; all others are equal.
    assert (
        places[8].detail == 1 and places[3].detail == 10 / 11 and places[1].detail == pytest.approx(4.5 / 11)
    )
    assert places[13].detail == places[14].detail == 0.5
    grid = np.array([[x, y, x + 10, y + 10] for y in range(0, 30, 10) for x in range(0, 30, 10)], dtype=float)
    inner = places_of(grid, np.zeros(9, dtype=int))
    assert [k for k, p in inner.items() if not p.edge] == [4] and inner[4].detail is None


def test_the_command_prints_them(llava_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "a.png")
    arguments = ["look", str(llava_folder), "--image", "a.png", "--prompt", PROMPT, "--answer", ANSWER]
    assert main([*arguments, "--device", "cpu", "--sinks", "--out", "out"]) == 0
    shown = capsys.readouterr().out
    assert "on sinks" in shown and "of all image tokens lie at an edge" in shown
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert set(summary["sink_statistics"]) == {"tokens", "mass", "at_edges", "with", "without"}


def test_what_does_not_fit_is_named():
    received, visible = np.ones((2, 3, 4)), causal(4)
    with pytest.raises(ConfigError, match="epsilon and times are both None"):
        find_sinks(received, visible, ["text"] * 4, epsilon=None, times=None)
    with pytest.raises(AtlasError, match=r"received has shape \(2, 3, 4\), visible \(5, 5\)"):
        find_sinks(received, causal(5), ["text"] * 4)
    with pytest.raises(AtlasError, match="3 roles"):
        find_sinks(received, visible, ["text"] * 3)
    with pytest.raises(AtlasError, match="visible has 3 layers, received 2"):
        find_sinks(received, np.stack([visible] * 3), ["text"] * 4)


transformers.logging.set_verbosity_error()
