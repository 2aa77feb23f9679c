"""Studies from files and with faults: word pieces, bad input in one line, the documentation's example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from metrics_naive import (
    KINDS,
    POS,
    WORDS,
    MemoryStore,
    axes,
    one,
    parse,
    random_study,
    value,
)

from attention_atlas.errors import AtlasError
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.entropy import Entropy
from attention_atlas.measures.item import Link
from attention_atlas.measures.metric import Metric, measure_all
from attention_atlas.measures.pos import PosShare
from attention_atlas.measures.table import head_matrix
from attention_atlas.recording import AttentionStore, AttentionWriter
from attention_atlas.studies.grounding.grounding import Grounding
from attention_atlas.studies.grounding.relations import Relations


def test_word_pieces_average_over_rows_and_sum_over_keys():
    """A word of two pieces: its row is the mean of both rows; attention to it is the sum over both keys."""
    words = ["cup", "on"]
    tokens = ["cu", "##p", "on"]
    from attention_atlas.recording import Axis

    axis = {
        "target": Axis([*tokens, "<eos>"], ["text"] * 3 + ["eos"], [0, 0, 1, -1]),
        "source": Axis(["<bos>", *tokens], ["bos"] + ["text"] * 3, [-1, 0, 0, 1]),
    }
    attn = np.zeros((1, 1, 4, 4), np.float32)
    attn[0, 0, 0, 0] = 1
    attn[0, 0, 1, :2] = [0.5, 0.5]
    attn[0, 0, 2, :3] = [0.2, 0.3, 0.5]
    attn[0, 0, 3, 0] = 1
    store = MemoryStore({"decoder_self": KINDS["decoder_self"]}, {"e": {"decoder_self": attn}}, {"e": axis})
    study = AnnotatedAttention(store, {"e": parse("e", words, ["NOUN", "ADP"], [0, 0], [])}, resamples=5)
    table = PosShare([["NOUN"]], bos="keep", each=False)(study)
    # Word 0: mean of its rows = (0 + 0.5) / 2 on its own first piece; word 1: 0.3 + 0.5.
    assert value(table, condition="NOUN") == pytest.approx((0.25 + 0.8) / 2)
    item, kind = next(iter(study.stream(["decoder_self"])))
    np.testing.assert_allclose(item.kinds[kind].rows_WQ.sum(1), [1, 1])


def test_the_same_numbers_come_from_the_file(tmp_path):
    study = random_study()
    path = tmp_path / "attention.h5"
    writer = AttentionWriter(path, model="m", config_hash="abc", kinds=KINDS)
    for id_ in study.ids:
        writer.write(id_, study.store._attn[id_], study.store._axes[id_])
    writer.finish()
    memory = Grounding()(study)
    study.store = AttentionStore(path)
    stored = Grounding()(study)
    np.testing.assert_allclose(stored["value"], memory["value"], rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.store._attn["e0"]["cross"].__setitem__((0, 0, 0, 0), np.nan), "NaN"),
        (lambda s: s.store._attn["e0"]["decoder_self"].__setitem__((0, 0, 0, 5), 0.5), "later words"),
        (lambda s: s.links.__setitem__("e0", [Link(0, 3, (9,))]), "9 but attention has 5 regions"),
        (
            lambda s: s.store._axes["e0"].__setitem__("region", axes(WORDS, 4)["region"]),
            "differs from its axes",
        ),
        (lambda s: s.parses.__setitem__("e0", parse("e0", ["x"] * 7)), "not those of the parse"),
        (
            lambda s: s.parses.__setitem__("e0", parse("e0", WORDS[:3], POS[:3], [2, 2, 2], [])),
            "outside its 3 words",
        ),
    ],
)
def test_bad_input_is_named_in_one_line(change, message):
    study = random_study()
    change(study)
    with pytest.raises(AtlasError, match=message) as error:
        measure_all({"g": Grounding(), "e": Entropy()}, study)
    assert "\n" not in str(error.value) and ";" in str(error.value)


def test_bad_settings_and_empty_studies_are_named():
    with pytest.raises(AtlasError, match="bos: 'maybe'"):
        Grounding(bos="maybe")
    with pytest.raises(AtlasError, match="normaliser"):
        Entropy(normaliser="log3")
    with pytest.raises(AtlasError, match="not a universal POS tag"):
        PosShare([["NOUNS"]])
    with pytest.raises(AtlasError, match="order"):
        Relations(order="later")
    with pytest.raises(AtlasError, match="found nothing to measure"):
        Grounding()(_unlinked())
    study = random_study()
    with pytest.raises(AtlasError, match="was not parsed"):
        AnnotatedAttention(study.store, {})
    with pytest.raises(AtlasError, match="no attention of kind"):
        Entropy(kinds=("crss",))(study)


def _unlinked():
    study = random_study()
    study.links = {}
    return study


def test_the_example_of_the_documentation_works():
    """docs/metrics.md shows how to add a metric; that code, on attention that always looks one word back."""
    text = (Path(__file__).resolve().parents[1] / "docs/metrics.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    space = {"np": np, "Metric": Metric}
    exec(compile(code, "docs/metrics.md", "exec"), space)
    attn = np.zeros((1, 2, 8, 8), np.float32)
    attn[0, 0] = np.eye(8)  # row q generates word q; key q is word q - 1
    attn[0, 1] = np.tri(8) / np.arange(1, 9)[:, None]
    table = space["Locality"]()(one({"decoder_self": attn}))
    uniform = np.mean([1 / q for q in range(1, 7)])
    np.testing.assert_allclose(head_matrix(table)[0], [1, uniform], atol=1e-6)
    assert set(table["n"]) == {6}
