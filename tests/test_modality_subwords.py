"""Sub-words to words: hyphens, contractions, unicode, repeated words; the matrix form against a plain
loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attention_atlas.errors import AtlasError
from attention_atlas.language.subwords import Subwords, piece_words, to_words
from attention_atlas.language.words import words

TEXTS = [
    "a well-lit room with two arm-chairs next to a sofa",
    "there's a table that doesn't fit, isn't there?",
    "a café with a naïve façade 🙂 and 北京 on a sign",
    "a lamp and a lamp and a lamp on a table",
    "  spaces   between\nlines  and a tab\there ",
]


@pytest.fixture(scope="module")
def bpe():
    return Subwords.train(TEXTS * 3, size=300)


def test_every_piece_lies_in_its_word(bpe):
    for text in TEXTS:
        ids, pieces, offsets = bpe.encode(text)
        found = words(text)
        assert bpe.tokenizer.decode(ids) == text
        owners = piece_words(text, offsets)
        assert set(owners) - {-1} == set(range(len(found)))  # every word has a piece
        assert [i for i in owners if i >= 0] == sorted(i for i in owners if i >= 0)
        for piece, owner, (start, end) in zip(pieces, owners, offsets):
            assert piece == text[start:end].strip()
            if piece:
                assert start < found[owner].end and end > found[owner].start
            else:  # the space before a word is that word's, other white space is no one's
                assert owner < 0 or end == found[owner].start


def test_contraction_goes_to_the_word_it_shares_most_with():
    text = "don't"  # spaCy: do, n't; GPT-2's pre-tokenizer: don, 't
    assert [w.text for w in words(text)] == ["do", "n't"]
    assert piece_words(text, [(0, 3), (3, 5)]) == [0, 1]


def test_hyphens_and_repeated_words_by_offsets():
    text = "a red-brown lamp, a lamp"
    assert [w.text for w in words(text)] == ["a", "red", "-", "brown", "lamp", ",", "a", "lamp"]
    spans = [(0, 1), (1, 5), (5, 6), (6, 9), (9, 11), (11, 16), (16, 17), (17, 19), (19, 24)]
    assert piece_words(text, spans) == [0, 1, 2, 3, 3, 4, 5, 6, 7]


def test_bytes_of_one_character_share_its_word(bpe):
    text = "a 🙂"
    _, _, offsets = bpe.encode(text)
    owners = piece_words(text, offsets)
    assert owners.count(1) >= 2  # an unseen emoji is several bytes
    assert owners[0] == 0


def test_white_space_belongs_to_the_word_right_after_it():
    assert piece_words("a  b", [(0, 1), (1, 2), (2, 4)]) == [0, -1, 1]
    assert piece_words("a bc", [(0, 1), (1, 2), (2, 3), (3, 4)]) == [0, 1, 1, 1]


def test_sum_over_source_mean_over_target_by_hand():
    # Word 0 has one piece, word 1 has two. Keys: marker, p0, p1a, p1b. Rows generate p0, p1a, p1b.
    attn = np.array([[[[1.0, 0, 0, 0], [0.4, 0.6, 0, 0], [0.2, 0.3, 0.5, 0]]]])
    merged = to_words(attn, [0, 1, 1], [0, 1, 2, 2], rows=2, keys=3)
    np.testing.assert_allclose(merged[0, 0], [[1, 0, 0], [0.3, 0.45, 0.25]], rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(-1, 4), min_size=1, max_size=9), st.lists(st.integers(-1, 5), min_size=1, max_size=9)
)
def test_matrix_form_is_the_loop(rows, keys):
    rng = np.random.default_rng(len(rows) * 10 + len(keys))
    attn = rng.random((2, 3, len(rows), len(keys))).astype(np.float32)
    expected = np.zeros((2, 3, 5, 6))
    for t in range(5):
        at = [q for q, r in enumerate(rows) if r == t]
        for s in range(6):
            for q in at:
                for k, owner in enumerate(keys):
                    if owner == s:
                        expected[:, :, t, s] += attn[:, :, q, k] / len(at)
    np.testing.assert_allclose(to_words(attn, rows, keys, 5, 6), expected, atol=1e-5)


def test_saved_and_loaded_alike(bpe, tmp_path):
    bpe.save(tmp_path / "vocab.json")
    again = Subwords.load(tmp_path / "vocab.json")
    assert again.encode(TEXTS[1]) == bpe.encode(TEXTS[1]) and len(again) == len(bpe) and again.end == bpe.end
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(AtlasError, match=r"vocab.json: schema"):
        Subwords.load(tmp_path / "vocab.json")
    with pytest.raises(AtlasError, match="no such file"):
        Subwords.load(tmp_path / "other.json")


def test_pretrained_tokenizer_from_a_folder(bpe, tmp_path):
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=bpe.tokenizer, eos_token="<|endoftext|>").save_pretrained(
        tmp_path
    )
    assert Subwords.pretrained(str(tmp_path)).encode(TEXTS[0])[0] == bpe.encode(TEXTS[0])[0]
    with pytest.raises(AtlasError, match="tokenizer"):
        Subwords.pretrained(str(tmp_path / "absent"))


def test_shape_and_size_errors():
    with pytest.raises(AtlasError, match="does not match"):
        to_words(np.zeros((1, 1, 2, 2)), [0], [0, 1], 1, 2)
    with pytest.raises(AtlasError, match="257"):
        Subwords.train(["a"], 100)
