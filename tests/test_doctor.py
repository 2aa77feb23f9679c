"""`attention-atlas doctor`: healthy models of several families, planted faults, its numbers by hand."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError

import pytest
import torch
import transformers
from conftest import ROOT
from look_tiny import ANSWER, PROMPT, photo
from tiny_checkpoints import FAMILIES
from transformers.models.llama import modeling_llama

from attention_atlas.__main__ import main
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.look import diagnose, doctor_maps
from attention_atlas.look import inputs as look_inputs
from attention_atlas.look.doctor import made_up_image
from attention_atlas.look.doctor_result import MapDifference
from attention_atlas.look.load import load

RAN = ["sdpa", "eager", "capture: fused", "capture: materialised"]
LAYER = "model.language_model.layers.{}.self_attn"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(name):
        if name not in made:
            made[name] = FAMILIES[name](tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture
def llava(folders):
    return load(str(folders("llava")), "cpu")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_healthy_model_is_called_healthy(name, folders):
    model, processor = load(str(folders(name)), "cpu")
    before = {id(m): m.config._attn_implementation for m in model.modules() if hasattr(m, "config")}
    found = diagnose(model, processor, max_new_tokens=3)
    assert found.healthy and found.reference == "sdpa"
    verdicts = {i.name: i.verdict for i in found.implementations}
    assert verdicts == {
        "sdpa": "reference",
        "flash_attention_2": "absent",
        "eager": "agrees",
        "capture: fused": "agrees",
        "capture: materialised": "agrees",
    }
    for each in RAN:
        ran = found[each]
        assert ran.logits < 1e-5 and ran.flipped == 0 and ran.positions == found.tokens
        assert ran.answer == found.answer and ran.differs_at is None and ran.starts is None
        assert ran.largest < 1e-5 and ran.variation < 1e-5
        assert {m.part for m in ran.maps} == {"decoder", "vision"}
        assert sum(m.part == "decoder" for m in ran.maps) == 3
    # The two back ends are two computations, not one.
    assert found["capture: fused"].largest > 0
    assert [(c.part, c.modules) for c in found.captured] == [("vision", 2), ("decoder", 3)]
    assert {c.route for c in found.captured} == {"attention interface of transformers"}
    assert all(len(c.back_ends) == 2 for c in found.captured)
    # SigLIP's pooling head attends with nn.MultiheadAttention.
    head = ("model.vision_tower.head.attention",) if name in ("paligemma", "gemma3") else ()
    assert found.outside == head and (head or ("none",))[0] in found.text()
    assert before == {id(m): m.config._attn_implementation for m in model.modules() if hasattr(m, "config")}


def patched(monkeypatch, wrong):
    """Replace the eager function of Llama's modules by `wrong(module, plain)`."""
    plain = modeling_llama.eager_attention_forward

    def eager(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
        arguments = dict(attention_mask=attention_mask, scaling=scaling, dropout=dropout, **kwargs)
        return wrong(module, lambda **changed: plain(module, query, key, value, **(arguments | changed)))

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", eager)


def no_scaling(module, plain):
    return plain(scaling=1.0) if module.layer_idx == 1 else plain()


def no_mask(module, plain):
    return plain(attention_mask=None) if module.layer_idx == 2 else plain()


def rotated_context(module, plain):
    context, weights = plain()
    return (context.roll(1, 2), weights) if module.layer_idx == 0 else (context, weights)


def other_weights(module, plain):
    context, weights = plain()
    return context, weights.roll(1, -1) if module.layer_idx == 1 else weights


@pytest.mark.parametrize(
    ("wrong", "layer", "cause", "later"),
    [
        (no_scaling, 1, "formula", "earlier"),
        (no_mask, 2, "formula", None),
        (rotated_context, 0, "formula", "earlier"),
        (other_weights, 1, "weights", ""),
    ],
)
def test_a_wrong_eager_function_is_found_in_its_layer(wrong, layer, cause, later, llava, monkeypatch):
    patched(monkeypatch, wrong)
    found = diagnose(*llava, max_new_tokens=3)
    assert not found.healthy and found.reference == "sdpa"
    eager = found["eager"]
    assert eager.verdict == "differs" and eager.starts.module == LAYER.format(layer)
    assert (eager.starts.layer, eager.starts.part, eager.starts.cause) == (layer, "decoder", cause)
    assert LAYER.format(layer) in eager.words and f"layer {layer} of the decoder" in eager.words
    causes = [m.cause for m in eager.maps if m.part == "decoder"]
    assert causes[:layer] == [""] * layer and causes[layer] == cause
    assert later is None or causes[layer + 1] == later
    assert not any(m.cause for m in eager.maps if m.part == "vision")
    # The answer does not depend on weights that are only returned.
    assert (eager.logits > 1e-2) == (wrong is not other_weights)
    assert {found[name].verdict for name in RAN if name != "eager"} == {"reference", "agrees"}
    assert LAYER.format(layer) in found.text()


def test_a_wrong_mask_of_eager_is_told_from_a_wrong_formula(llava, monkeypatch):
    plain = modeling_llama.create_causal_mask

    def mask(config, **kwargs):
        made = plain(config=config, **kwargs)
        return torch.zeros_like(made) if config._attn_implementation == "eager" else made

    monkeypatch.setattr(modeling_llama, "create_causal_mask", mask)
    found = diagnose(*llava, answer=ANSWER)
    eager = found["eager"]
    assert (eager.verdict, eager.starts.module, eager.starts.cause) == ("differs", LAYER.format(0), "mask")
    assert "its mask shows other keys" in found.text() and eager.answer is None


def test_a_wrong_sdpa_is_found_and_eager_becomes_the_reference(llava, monkeypatch):
    from transformers import AttentionInterface

    plain = AttentionInterface._global_mapping["sdpa"]

    def wrong(module, *args, **kwargs):
        if getattr(module, "layer_idx", None) == 1:
            kwargs["scaling"] = 1.0
        return plain(module, *args, **kwargs)

    monkeypatch.setitem(AttentionInterface._global_mapping, "sdpa", wrong)
    found = diagnose(*llava, max_new_tokens=3)
    assert found.reference == "eager" and found["eager"].verdict == "reference" and not found.healthy
    sdpa = found["sdpa"]
    assert (sdpa.verdict, sdpa.starts.module, sdpa.starts.cause) == ("differs", LAYER.format(1), "formula")
    assert found["capture: fused"].verdict == "agrees"


def test_an_implementation_that_fails_is_absent(llava, monkeypatch):
    def broken(module, plain):
        raise RuntimeError("no kernel\nfor this")

    patched(monkeypatch, broken)
    found = diagnose(*llava, max_new_tokens=2)
    assert found["eager"].verdict == "absent" and "no kernel for this" in found["eager"].words
    assert found.healthy  # nothing that runs is wrong


def test_what_is_not_finite_differs(llava, monkeypatch):
    def infinite(module, plain):
        context, weights = plain()
        return (context * float("nan"), weights) if module.layer_idx == 2 else (context, weights)

    patched(monkeypatch, infinite)
    found = diagnose(*llava, answer=ANSWER)
    assert found["eager"].verdict == "differs" and found["eager"].starts.module == LAYER.format(2)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["implementations"][2]["logits"] is None


def test_numbers_are_those_of_the_models_own_output(llava, monkeypatch):
    """Against `output_attentions` of the patched eager and of the plain one, by definition."""
    model, processor = llava
    inputs = look_inputs.prompt_inputs(model, processor, [made_up_image().pixels], PROMPT)
    inputs = look_inputs.sequence(model, processor, inputs, ANSWER, 1).inputs

    def own():
        model.set_attn_implementation("eager")
        with torch.no_grad():
            made = model(**inputs, output_attentions=True)
        model.set_attn_implementation("sdpa")
        return torch.cat(made.attentions), made.logits[0]

    right_LHSS, right_SV = own()
    patched(monkeypatch, no_scaling)
    wrong_LHSS, wrong_SV = own()
    found = diagnose(model, processor, prompt=PROMPT, answer=ANSWER)["eager"]
    assert found.logits == pytest.approx(
        float((wrong_SV - right_SV).abs().max() / right_SV.abs().max()), rel=1e-3
    )
    assert found.flipped == int((wrong_SV.argmax(-1) != right_SV.argmax(-1)).sum()) > 0
    maps = [m for m in found.maps if m.part == "decoder"]
    for layer, each in enumerate(maps):
        off = (wrong_LHSS[layer] - right_LHSS[layer]).abs()
        assert each.largest == pytest.approx(float(off.max()), abs=1e-5)
        assert each.variation == pytest.approx(float(off.sum(-1).mean() / 2), abs=1e-5)
    assert maps[0].largest < 1e-5 < 1e-2 < maps[1].variation


def test_where_answers_part_by_how_much(llava, monkeypatch):
    patched(monkeypatch, no_scaling)
    model, processor = llava
    found = diagnose(model, processor, max_new_tokens=6)["eager"]
    inputs = look_inputs.prompt_inputs(model, processor, [made_up_image().pixels], "What is in the picture?")
    texts = {}
    for name in ("sdpa", "eager"):
        model.set_attn_implementation(name)
        texts[name] = look_inputs.sequence(model, processor, inputs, None, 6)
    own, other = (texts[n].ids[texts[n].start :] for n in ("sdpa", "eager"))
    at = found.differs_at
    assert at is not None and own[:at] == other[:at] and own[at] != other[at]
    logits_V = texts["sdpa"].logits_NV[at]
    assert found.lead == pytest.approx(float(logits_V[own[at]] - logits_V[other[at]])) and found.lead > 0


def test_half_precision_is_rounding_and_faults_are_still_found(folders, monkeypatch):
    model, processor = load(str(folders("llava")), "cpu", "bfloat16")
    found = diagnose(model, processor, answer=ANSWER)
    assert found.healthy and {found[n].verdict for n in RAN} <= {"reference", "agrees", "rounding"}
    assert found["eager"].largest > 1e-4 and "--dtype float32" in found.text()
    patched(monkeypatch, no_scaling)
    found = diagnose(model, processor, answer=ANSWER)
    assert not found.healthy and found["eager"].starts.module == LAYER.format(1)


def test_large_maps_are_compared_in_evenly_spaced_rows(llava, monkeypatch):
    patched(monkeypatch, no_mask)
    whole = diagnose(*llava, answer=ANSWER)
    assert whole.rows == 1
    monkeypatch.setattr(doctor_maps, "PER_MODULE", 4 * 4 * whole.tokens * 5)  # five rows of four heads
    some = diagnose(*llava, answer=ANSWER)
    assert some.rows == 5 / whole.tokens and f"{some.rows:.0%} of the queries" in some.text()
    assert some["eager"].starts.module == LAYER.format(2)
    for a, b in zip(some["eager"].maps, whole["eager"].maps):
        assert a.largest <= b.largest + 1e-6
    # Rows 0, 1/4, ... of the queries; without a mask the first sees most that it should not.
    assert some["eager"].largest == pytest.approx(whole["eager"].largest, rel=0.5)


def test_layers_restrict_the_maps(llava, tmp_path):
    image = photo(tmp_path / "a.png")
    found = diagnose(*llava, image=[image, image], prompt=PROMPT, answer=ANSWER, layers=[0, 2])
    assert [m.module for m in found["eager"].maps] == [LAYER.format(0), LAYER.format(2)]
    assert found.healthy and found.images == ("a.png (90 × 60)",) * 2
    with pytest.raises(ConfigError, match=r"--layers: 3 is outside 0\.\.2"):
        diagnose(*llava, layers=[3])
    with pytest.raises(ConfigError, match="--image: no image"):
        diagnose(*llava, image=[])
    with pytest.raises(FrozenInstanceError):
        found.model = "other"
    assert isinstance(found["eager"].maps[0], MapDifference)
    llava[0].config.is_encoder_decoder = True
    with pytest.raises(AtlasError, match="is an encoder-decoder"):
        diagnose(*llava)


def test_the_command_alone(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = str(folders("llava"))
    assert main(["doctor", folder, "--max-new-tokens", "2", "--device", "cpu", "--out", "out"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "sdpa",
        "flash_attention_2",
        "needs a CUDA GPU",
        "35749",
        "LlamaAttention",
        "not seen     none",
    ):
        assert part in shown
    found = json.loads((tmp_path / "out/doctor.json").read_text())
    assert found["schema"] == "atlas.doctor/2" and found["healthy"] and found["model"] == folder
    assert [i["name"] for i in found["implementations"] if i["verdict"] != "absent"] == RAN
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "gone.png"], "gone.png: no such image"),
        (["--prompt", " "], "--prompt: is empty"),
        (["--answer", ""], "--answer: has no tokens"),
        (["--layers", "9"], r"--layers: 9 is outside 0\.\.2"),
        (["--max-new-tokens", "3", "--answer", "a"], "--max-new-tokens: has no effect"),
        (["--out", "text.txt"], r"text\.txt: is a file"),
    ],
)
def test_what_cannot_be_used_is_one_line(options, message, folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("x")
    assert main(["doctor", str(folders("llava")), "--device", "cpu", *options]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and re.search(message, lines[0])
    assert [p.name for p in tmp_path.iterdir()] == ["text.txt"]


def test_the_example_in_the_docs_runs(llava, tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs/howto/doctor.md").read_text(encoding="utf-8")
    code = re.search(r"```py\n(.*?)```", text, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "kitchen.jpg")
    exec(code, {"model": llava[0], "processor": llava[1]})
    assert "True" in capsys.readouterr().out


transformers.logging.set_verbosity_error()
