"""Perplexity of the models of study 2: per word, nouns apart, comparable between vocabularies."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from attention_atlas.data.corpus import Corpus, Example, Scene
from attention_atlas.dumps.runs import forced
from attention_atlas.errors import AtlasError
from attention_atlas.language.subwords import Subwords
from attention_atlas.language.vocabulary import BOS, EOS, Vocabulary
from attention_atlas.language.words import words
from attention_atlas.measures.table import make_table, measured
from attention_atlas.models.text_only import TextOnlyTransformer
from attention_atlas.studies.modality.figures import prediction
from attention_atlas.studies.modality.perplexity import Perplexity, perplexity_rows, word_log_probs

TEXTS = {"x": "a lamp on a doesn't-matter table", "y": "two chairs"}


def parse(tags):
    return SimpleNamespace(tokens=[SimpleNamespace(pos=tag) for tag in tags.split()])


def test_a_words_probability_is_that_of_its_pieces(tmp_path):
    scenes = {i: Scene(i, f"{i}.png", 4, 4, "test") for i in TEXTS}
    corpus = Corpus(tmp_path, scenes, [Example(i, i, text) for i, text in TEXTS.items()], "texts")
    subwords = Subwords.train(list(TEXTS.values()), 270)
    torch.manual_seed(0)
    model = TextOnlyTransformer(len(subwords), layers=2, heads=2, dim=16, initializer_range=0.5).eval()
    task = forced(subwords, split="test")
    task.prepare(corpus, None, subwords, {})
    found = word_log_probs(task, model)
    assert {i: len(log_W) for i, log_W in found.items()} == {i: len(words(t)) for i, t in TEXTS.items()}
    for i, text in TEXTS.items():
        ids, _, _ = subwords.encode(text)
        with torch.no_grad():
            log_TV = model(torch.tensor([[subwords.end, *ids]]))[0].log_softmax(-1)
        alone = log_TV[torch.arange(len(ids)), torch.tensor(ids)].sum()  # the end does not count
        assert found[i].sum() == pytest.approx(float(alone), abs=1e-4)


class Captioner(torch.nn.Module):
    """Gives every word of the vocabulary the same probability."""

    def __init__(self, words):
        super().__init__()
        self.words = words

    def forward(self, batch):
        return torch.zeros(*batch["ids_BT"][:, 1:].shape, self.words)


def test_a_word_that_a_captioner_does_not_know_has_no_probability():
    vocab = Vocabulary.build([["a", "lamp"]], 1)
    task = forced(vocab, split="test")
    ids_BT = torch.tensor([[BOS, *vocab.encode(["a", "red", "lamp"]), EOS]])
    axis = SimpleNamespace(word=[0, 1, 2, -1])
    batch = SimpleNamespace(ids=["x"], inputs={"ids_BT": ids_BT}, axes=[{"target": axis}])
    task.batches = lambda done: [batch]
    (log_W,) = word_log_probs(task, Captioner(len(vocab))).values()
    assert np.isnan(log_W).tolist() == [False, True, False]
    assert log_W[0] == pytest.approx(-math.log(len(vocab)))


def test_perplexities_of_nouns_and_other_words_and_their_ratio():
    half, quarter, unknown = math.log(0.5), math.log(0.25), math.nan
    found = {
        "captioner": {"x": np.array([half, half, half]), "y": np.array([half, unknown])},
        "gpt2": {"x": np.array([half, quarter, half]), "y": np.array([quarter, half])},
    }
    parses = {"x": parse("DET NOUN ADJ"), "y": parse("NUM VERB")}
    rows = list(perplexity_rows(found, [("captioner", "gpt2")], parses, {"x": "i", "y": "j"}))
    table = make_table({"study": "s", "data": "d"} | row for row in rows)

    def value(**where):
        return float(measured(table, measure="perplexity", **where)["value"].iloc[0])

    # The UNK of the captioner counts for neither model.
    assert (measured(table, condition="other words")["n"] == 3).all()
    assert value(model="captioner", condition="other words") == pytest.approx(2)
    assert value(model="gpt2", condition="other words") == pytest.approx(4 ** (1 / 3) * 2 ** (2 / 3))
    assert value(model="gpt2", condition="nouns") == pytest.approx(4)
    ratio = {"model": "captioner", "against": "gpt2", "statistic": "ratio"}
    assert value(condition="nouns", **ratio) == pytest.approx(0.5)
    assert value(condition="all words", **ratio) == pytest.approx(2 ** (-2 / 4))
    with pytest.raises(AtlasError, match="'y' has no parse"):
        list(perplexity_rows(found, [], {"x": parses["x"]}, {"x": "i", "y": "j"}))


@pytest.mark.parametrize(("other", "says"), [(3.2, "(matched)"), (3.6, "NOT MATCHED")])
def test_a_figure_says_when_models_predict_text_unequally(other, says):
    values = {"captioner": 3.0, "gpt2": other}
    base = {"study": "s", "data": "d", "kind": "text", "measure": "perplexity", "condition": "other words"}
    table = make_table(base | {"model": name, "value": value} for name, value in values.items())
    text = prediction(table, {"captioner": "Captioner", "gpt2": "GPT-2"})
    assert says in text and "Captioner 3" in text
    with pytest.raises(AtlasError, match="model = none"):
        prediction(table, {"none": "None"})


def test_runs_of_another_recording_convention_are_the_same_model():
    runs = {"a": {"model": "m"}, "b": {"model": "m", "convention": "unnormalised"}, "c": {"model": "t"}}
    measure = Perplexity(runs, [["a", "b"], ["a", "c"]])
    assert list(measure.runs) == ["a", "c"] and measure.compare == [("a", "c")]
