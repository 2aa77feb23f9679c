"""Logit lens: decoding, words from pieces, precision and recall by hand, chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import vlm_tiny as tiny

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.vlm.samples import samples_of
from attention_atlas.studies.vlm_phases.logit_lens import (
    FRAGMENT,
    caption_words,
    content,
    decode,
    other_captions,
    precision_recall,
    scheme_of,
    stop_words,
    words_of,
)
from attention_atlas.studies.vlm_phases.measure import measure


def test_decode_in_blocks_is_argmax_of_the_whole() -> None:
    weight = torch.randn(11, 7, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(13, 7, generator=torch.Generator().manual_seed(1))
    whole = (hidden @ weight.T).argmax(-1)
    assert torch.equal(decode(hidden, lambda x: x @ weight.T, block=4), whole)
    assert len(decode(hidden[:0], lambda x: x @ weight.T)) == 0


@pytest.mark.parametrize("name", tiny.MAKERS)
def test_lens_is_the_explicit_product_at_every_layer(name: str, tmp_path: Path) -> None:
    """Against output_hidden_states of transformers: norm and output matrix by hand."""
    loaded = tiny.MAKERS[name]()
    corpus = tiny.corpus(tmp_path)
    samples = samples_of(corpus, corpus.examples)
    inputs, roles = loaded.batch(samples), []
    roles = loaded.roles(inputs)
    found = measure(loaded, inputs, roles, loaded.text_spans(samples), norm=False)
    with torch.no_grad():
        out = loaded.model(**inputs, output_hidden_states=True)
    states = out.hidden_states if name == "llava" else out.language_model_outputs.hidden_states
    head = loaded.model.get_output_embeddings().weight
    norm = loaded.language_model.norm.weight
    for b, row in enumerate(roles):
        at = [s for s, role in enumerate(row) if role == "image"]
        for layer in range(tiny.LAYERS):  # transformers' last state is already after the norm
            x = states[layer][b, at]
            plain = (x @ head.T).argmax(-1).numpy()
            scaled = x / (x.pow(2).mean(-1, keepdim=True) + loaded.text_config.rms_norm_eps).sqrt() * norm
            assert (found.lens["plain"][b][layer] == plain).all()
            assert (found.lens["normalised"][b][layer] == (scaled @ head.T).argmax(-1).numpy()).all()
        last = (states[-1][b, at] @ head.T).argmax(-1).numpy()
        assert (found.lens["normalised"][b][-1] == last).all()


def test_pieces_join_to_words() -> None:
    tokens = ["▁surf", "board", "ing", "▁a", ".", "ing", "<s>", "▁Dog", "<0x0A>", "s", "▁", "3"]
    assert words_of(tokens, "▁") == ["surfboarding", "a", FRAGMENT, "dog", FRAGMENT]
    assert words_of(tokens[:3], "▁", "whole") == ["surf", FRAGMENT, FRAGMENT]
    assert words_of(["dog", "##house", "##s", "[CLS]", "##s"], "##") == ["doghouses", FRAGMENT]
    assert words_of(["dog", "house"], "word") == ["dog", "house"]
    with pytest.raises(ConfigError, match="'jion' is unknown; did you mean 'join'"):
        words_of(tokens, "▁", "jion")


def test_scheme_is_read_off_the_vocabulary() -> None:
    assert scheme_of(["▁a", "▁dog", "s", "<s>"]) == "▁"
    assert scheme_of(["Ġa", "dog", "s"]) == "Ġ"
    assert scheme_of(["dog", "##s", "a"]) == "##"
    assert scheme_of(["dog", "cat"]) == "word"
    assert scheme_of(list(tiny.tokenizer().get_vocab())) == "▁"


def test_precision_and_recall_by_hand() -> None:
    stop = stop_words()
    caption = caption_words("A red cube stands beside the blue cube, near 2 walls.", stop)
    assert caption == {"red", "cube", "stands", "blue", "near", "walls"}
    # Positions decoded to: red red cube the lamp + one fragment: "the" is left out, so 3 of 5 are right.
    decoded = content(["red", "red", "cube", "the", "lamp", FRAGMENT], stop)
    assert precision_recall(decoded, caption) == pytest.approx((3 / 5, 2 / 6))
    precision, recall = precision_recall(content(["the"], stop), caption)
    assert np.isnan(precision) and recall == 0
    # "wal" begins "walls"; "re" is too short to stand for "red".
    assert precision_recall({"wal": 1, "re": 1}, caption, "prefix") == pytest.approx((1 / 2, 1 / 6))
    assert precision_recall({"wal": 1, "re": 1}, caption) == (0, 0)
    with pytest.raises(AtlasError, match="no word to find"):
        precision_recall(decoded, frozenset())


def test_chance_never_uses_a_caption_of_the_same_image() -> None:
    images = ["a", "a", "b", "c", "c"]
    other = other_captions(images, 200, seed=3)
    for row in other:
        assert all(images[i] != images[j] for i, j in enumerate(row))
    assert {int(j) for j in other[:, 2]} == {0, 1, 3, 4}
    with pytest.raises(AtlasError, match="two images"):
        other_captions(["a", "a"], 1, seed=0)


def test_words_with_letters_outside_ascii_are_words_in_byte_level_vocabularies():
    from attention_atlas.studies.vlm_phases.logit_lens import readable, scheme_of, words_of

    raw = ["ĠcafÃ©", "ĠpÃ¢t", "isserie", "Ġthe", "Ã", "Ċ", "æ°´"]
    pieces = readable(raw)
    assert pieces == ["Ġcafé", "Ġpât", "isserie", "Ġthe", "Ã", "\n", "水"]
    assert words_of(pieces[:4], scheme_of(raw)) == ["café", "pâtisserie", "the"]
    for other in (["▁cafÃ©", "▁the", "▁a"], ["cafÃ©", "the"]):
        assert readable(other) == other
