"""Roles, groups, words of sub-words, and summaries, by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from attention_atlas.capture import Groups, role_groups, roles_of_ids, word_of_tokens
from attention_atlas.capture.summaries import (
    entropy_without,
    quadrants,
    raw_attention,
    rollout,
    sink_keys,
    without_sinks,
)
from attention_atlas.errors import AtlasError


def config(**more):
    text = SimpleNamespace(bos_token_id=1, eos_token_id=[2, 3], pad_token_id=0)
    return SimpleNamespace(image_token_id=9, text_config=text, **more)


def test_roles_come_from_the_ids_on_either_side_of_padding():
    ids = torch.tensor([[0, 0, 1, 9, 9, 5, 2], [1, 9, 5, 9, 3, 0, 0]])
    mask = (ids != 0).long()
    assert roles_of_ids(ids, config(), mask) == [
        ["pad", "pad", "bos", "image", "image", "text", "eos"],
        ["bos", "image", "text", "image", "eos", "pad", "pad"],
    ]
    assert roles_of_ids(ids, config()) == roles_of_ids(ids, config(), mask)
    assert roles_of_ids(ids, config(), mask, special_ids=[5])[0][5] == "special"
    # A pad id that is also the EOS id is ambiguous without a mask.
    same = SimpleNamespace(bos_token_id=None, eos_token_id=0, pad_token_id=0)
    assert roles_of_ids(torch.tensor([[5, 0]]), same) == [["text", "eos"]]
    with pytest.raises(AtlasError, match="attention_mask and input_ids differ in shape"):
        roles_of_ids(ids, config(), mask[:, 1:])


def test_groups():
    groups = role_groups([["pad", "bos", "text"], ["image", "text", "text"]])
    assert groups.names == ["text", "image", "bos"]
    assert groups.member_BKG[0].tolist() == [[False] * 3, [False, False, True], [True, False, False]]
    tags = Groups.of([["NOUN", None, "VERB"], [None, "NOUN", "NOUN"]], ["NOUN", "VERB", "ADP"])
    assert tags.member_BKG.sum(1).tolist() == [[1, 1, 0], [2, 0, 0]]
    spans = Groups.of_spans({"the chair": [[(0, 2)], []], "all": [[(0, 3)], [(0, 1), (2, 3)]]}, keys=3)
    assert spans.member_BKG[0].tolist() == [[True, True], [True, True], [False, True]]
    assert spans.member_BKG[1, :, 1].tolist() == [True, False, True]
    assert (tags + spans).names == ["NOUN", "VERB", "ADP", "the chair", "all"]
    for bad, match in [
        (lambda: Groups(["a", "a"], torch.ones(1, 2, 2)), "names repeat"),
        (lambda: Groups(["a"], torch.ones(1, 2)), r"give \(B, K, G\)"),
        (lambda: Groups.of([["a"], ["a", "b"]]), "different length"),
        (lambda: Groups.of([["a"]], ["b"]), r"\['a'\] are not among"),
        (lambda: Groups.of_spans({"x": [[(1, 5)]]}, keys=3), "is outside 0..3"),
        (lambda: Groups.of_spans({"x": [[]], "y": []}, keys=3), "'y' has 0 rows"),
    ]:
        with pytest.raises(AtlasError, match=match):
            bad()


def test_words_of_sub_words_keep_repeated_words_apart():
    #       a       dog      a      cat
    words = [(0, 1), (2, 5), (6, 7), (8, 11)]
    # <s> a d og _a ca t </s>; "_a" covers the space before it.
    tokens = [(0, 0), (0, 1), (2, 3), (3, 5), (5, 7), (8, 10), (10, 11), (0, 0)]
    assert word_of_tokens(tokens, words) == [-1, 0, 1, 1, 2, 3, 3, -1]
    assert word_of_tokens([(3, 11)], words) == [3]  # 2 characters of "dog", 3 of "cat"
    assert word_of_tokens([(0, 4)], []) == [-1]


def test_quadrants_name_the_direction():
    # Two queries: the text one looks 0.9 at the image, the image one 0.2 at the image.
    mass = np.array([[[[0.1, 0.9], [0.8, 0.2]]]])
    found = quadrants(mass, ["text", "image"], ["text", "image"])
    assert {name: value.item() for name, value in found.items()} == {
        "text → text": 0.1,
        "text → image": 0.9,
        "image → text": 0.8,
        "image → image": 0.2,
    }
    padded = np.concatenate([mass, np.full((1, 1, 1, 2), 7.0)], 2)
    assert quadrants(padded, ["text", "image"], ["text", "image", "pad"]) == found
    with pytest.raises(AtlasError, match="for 3 queries and 2 groups"):
        quadrants(mass, ["text", "image"], ["text"] * 3)


def test_sinks_off():
    mass = np.array([0.5, 0.3, 0.2]).reshape(1, 1, 1, 3)
    kept, names = without_sinks(mass, ["bos", "text", "image"], ["bos"])
    assert names == ["text", "image"]
    np.testing.assert_allclose(kept.ravel(), [0.6, 0.4])
    only, _ = without_sinks(np.array([[[[1.0, 0.0]]]]), ["bos", "text"], ["bos"])
    assert np.isnan(only).all()
    with pytest.raises(AtlasError, match="no group 'boss'; did you mean 'bos'"):
        without_sinks(mass, ["bos", "text", "image"], ["boss"])
    p = np.array([0.5, 0.3, 0.2])
    rest = np.array([0.6, 0.4])
    found = entropy_without(np.array([[[-(p * np.log(p)).sum()]]]), p[:1].reshape(1, 1, 1, 1))
    np.testing.assert_allclose(found.item(), -(rest * np.log(rest)).sum())
    assert entropy_without(np.zeros((1, 1, 1)), np.zeros((1, 1, 1, 1))).item() == 0
    assert np.isnan(entropy_without(np.zeros((1, 1, 1)), np.ones((1, 1, 1, 1)))).all()
    received = np.array([[[8.0] + [0.1] * 19]])
    assert sink_keys(received).tolist() == [0] and sink_keys(received, 1e3).size == 0


def test_rollout_by_hand():
    # Layer 1 swaps the two positions, layer 2 keeps them; two heads whose mean that is.
    swap, keep = np.array([[0.0, 1.0], [1.0, 0.0]]), np.eye(2)
    attn = np.stack([np.stack([swap, swap]), np.stack([keep, keep])])
    np.testing.assert_allclose(rollout(attn), np.full((2, 2), 0.5))
    np.testing.assert_allclose(rollout(attn, residual=0.0), swap)
    np.testing.assert_allclose(rollout(attn, residual=1.0), np.eye(2))
    one = np.array([[[[1.0, 0.0], [0.6, 0.4]]]])
    np.testing.assert_allclose(rollout(one), [[1.0, 0.0], [0.3, 0.7]])
    empty = np.zeros((1, 1, 2, 2))
    np.testing.assert_allclose(rollout(empty), np.eye(2))
    rng = np.random.default_rng(0)
    random = rng.random((3, 2, 4, 4))
    random /= random.sum(-1, keepdims=True)
    assert math.isclose(rollout(random).sum(), 4)
    expected = np.eye(4)
    for layer in random:
        expected = (0.5 * np.eye(4) + 0.5 * layer.mean(0)) @ expected
    np.testing.assert_allclose(rollout(random), expected)
    np.testing.assert_allclose(raw_attention(random, 1), random[1].mean(0))
    with pytest.raises(AtlasError, match="needs self-attention"):
        rollout(np.zeros((1, 1, 2, 3)))
