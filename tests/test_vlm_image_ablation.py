"""Own image against others: gains by hand, and a model that uses the image is distinguished from one that
does not."""

from __future__ import annotations

import numpy as np
import pytest
from vlm_world import captioned, tiny, tiny_tokenizer

from attention_atlas.errors import AtlasError
from attention_atlas.measures.table import make_table
from attention_atlas.models.vlm.inputs import mini_inputs
from attention_atlas.models.vlm.loaded import LoadedVlm
from attention_atlas.models.vlm.samples import samples_of
from attention_atlas.studies.vlm_phases.image_ablation import (
    BLIND,
    GREY,
    OTHER,
    OWN,
    blind_log_probs,
    caption_rows,
    captions,
    gain_rows,
    log_probs,
    other_images,
)

ABOUT = {"study": "e", "model": "m", "data": "d"}


def test_gains_by_hand():
    found = {
        OWN: np.array([-2.0, -4.0, -6.0]),
        OTHER: np.array([-4.0, -4.0, -12.0]),
        "tokens": np.array([2.0, 2.0, 4.0]),
    }
    rows = {(r.get("input"), r.get("against")): r for r in gain_rows(found, ["a", "a", "b"], ABOUT)}
    assert rows[OWN, None]["value"] == pytest.approx(-12 / 8)
    gain = rows[None, OTHER]
    assert gain["value"] == pytest.approx(8 / 8) and gain["n"] == 3
    # Two images with gains 2/4 and 6/4: resamples lie between them.
    assert gain["ci_low"] == pytest.approx(0.5) and gain["ci_high"] == pytest.approx(1.5)
    assert not any(GREY in key for key in rows)
    assert {r["measure"] for r in rows.values()} == {"log-probability per token"}
    make_table(rows.values())


def test_inputs_show_what_they_say(tmp_path):
    corpus, _ = captioned(tmp_path / "world", 8)
    tokenizer = tiny_tokenizer()
    model, blind = tiny("llava", tokenizer), tiny("llava", tokenizer, blind=True)
    loaded = LoadedVlm("m", model.model, mini_inputs(model, tokenizer))
    unseeing = LoadedVlm("b", blind.model, mini_inputs(blind, tokenizer))
    samples = samples_of(corpus, corpus.examples)
    others = other_images(samples)
    assert all(s.image != o for s, o in zip(samples, others)) and others[0] == samples[2].image
    found = log_probs(loaded, samples, batch_size=5) | blind_log_probs(unseeing, samples, batch_size=5)
    assert found[OTHER][0] == pytest.approx(loaded.log_prob(samples[:1], images=others[:1])[0][0], abs=1e-3)
    assert found[BLIND][3] == pytest.approx(unseeing.log_prob(samples[3:4])[0][0], abs=1e-3)
    assert np.abs(found[OWN] - found[GREY]).max() > 1e-3
    references = {s.image: [t.text for t in samples if t.image == s.image] for s in samples}
    texts = captions(loaded, samples, [OWN, OTHER]) | captions(unseeing, samples, [BLIND])
    first = samples[0]
    assert texts[OTHER][first.image] == loaded.write([first], images=others[:1])[0]
    assert texts[BLIND][first.image] == unseeing.write([first])[0] != texts[OWN][first.image]
    rows = caption_rows(texts, references, ABOUT)
    assert [r["input"] for r in rows] == [OWN, OTHER, BLIND] and {r["n"] for r in rows} == {8}
    assert all(r["ci_low"] <= r["value"] <= r["ci_high"] for r in rows)
    make_table(rows)
    with pytest.raises(AtlasError, match="at least two images"):
        other_images(samples[:2])


def test_a_table_of_no_models_is_refused():
    from attention_atlas.studies.vlm_phases.ablation_table import ImageAblation

    with pytest.raises(AtlasError, match="models: the list is empty"):
        ImageAblation(models=[])
