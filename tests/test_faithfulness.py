"""The faithfulness league: formulas by hand and by loops, planted models, ends of curves, the command."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import planted_vlm
import pytest
import torch
from look_tiny import ANSWER, PROMPT, llava, photo
from planted_vlm import image, planted

from attention_atlas.__main__ import main
from attention_atlas.capture.summaries import rollout
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.interventions import faithfulness
from attention_atlas.interventions.answers import answer_log_probs, answered, same_answer
from attention_atlas.interventions.curves import BASELINES, Hidden, area, curve_of, steps_of
from attention_atlas.interventions.knockout import plain_image
from attention_atlas.interventions.league import CENTRE, COLUMNS, RANDOM, Example, League
from attention_atlas.interventions.relevance import (
    METHODS,
    attention_gradients,
    centre_first,
    chefer,
    gradient_attention,
    image_tokens,
    order_of,
    relevance,
)
from attention_atlas.look.load import load

# Two layers of one head over two positions.
A = [torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]), torch.tensor([[[1.0, 0.0], [0.25, 0.75]]])]
G = [torch.tensor([[[1.0, 3.0], [2.0, -4.0]]]), torch.tensor([[[0.0, 9.0], [4.0, 2.0]]])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def tiny(folder: Path) -> tuple[Any, Any]:
    return load(str(folder), "cpu", "float32")


# Formulas --------------------------------------------------------------------------------------------


def test_formulas_by_hand() -> None:
    # (∇A ⊙ A)⁺ is [[1, 0], [1, 0]] and [[0, 0], [1, 1.5]].
    assert gradient_attention(A, G).tolist() == [(2 + 1) / 2, (0 + 1.5) / 2]
    # R = [[2, 0], [1, 1]] after the first layer; the second adds [0, 0] and 1·[2, 0] + 1.5·[1, 1].
    assert chefer(A, G, [0, 1]).tolist() == [[2, 0], [4.5, 2.5]]
    assert chefer(A, G, [1]).tolist() == [[0], [2.5]]
    # Half the identity and half A: [[1, 0], [.25, .75]], then [[1, 0], [.125, .875]].
    layers = np.stack([a.numpy() for a in A])
    assert rollout(layers).tolist() == [[1, 0], [0.125 + 0.875 * 0.25, 0.875 * 0.75]]


def test_against_plain_loops_with_masks() -> None:
    rng = np.random.default_rng(0)
    L, H, S = 3, 2, 5
    mask = np.tril(np.ones((S, S), dtype=bool))
    mask[:, 1] = False  # padding
    mask[1, 1] = True
    score = np.where(mask, rng.normal(size=(L, H, S, S)), -np.inf)
    attn = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
    grad = rng.normal(size=(L, H, S, S))
    R, roll, columns = np.eye(S), np.eye(S), np.zeros(S)
    for layer in range(L):
        before, before_roll = R.copy(), roll.copy()
        for i in range(S):
            for j in range(S):
                bar, mean = 0.0, 0.0
                for h in range(H):
                    product = max(attn[layer, h, i, j] * grad[layer, h, i, j], 0.0)
                    bar, mean = bar + product / H, mean + attn[layer, h, i, j] / H
                columns[j] += bar / L
                R[i] += bar * before[j]
                mixed = 0.5 * mean + 0.5 * (i == j)
                roll[i] = (0 if j == 0 else roll[i]) + mixed * before_roll[j]
    a, g = (list(torch.tensor(x)) for x in (attn, grad))
    np.testing.assert_allclose(chefer([x.float() for x in a], [x.float() for x in g], range(S)), R, rtol=1e-5)
    np.testing.assert_allclose(gradient_attention(a, g), columns, rtol=1e-12)
    np.testing.assert_allclose(rollout(attn), roll, rtol=1e-12)


def test_relevance_of_a_model_against_its_eager_attention(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    """Weights and gradients are those of transformers' own eager code; rollout and rows follow from them."""
    model, processor = tiny
    case = answered(model, processor, photo(tmp_path / "a.png"), PROMPT, ANSWER)
    found, notes = relevance(model, case)
    attention, gradient, crossing = attention_gradients(model, case)
    assert not any(crossing)
    assert list(found) == list(METHODS) and not notes
    assert all(p.requires_grad for p in model.parameters())
    model.set_attn_implementation("eager")
    eager_found, _ = relevance(model, case)
    out = model(**case.whole.inputs, output_attentions=True)
    log_NV = out.logits[0].log_softmax(-1)
    y = sum(log_NV[row, token] for row, token in zip(case.rows, case.new, strict=True))
    wanted = torch.autograd.grad(y, out.attentions)
    model.set_attn_implementation("sdpa")
    for n, (a, g) in enumerate(zip(attention, gradient, strict=True)):
        torch.testing.assert_close(a, out.attentions[n][0].detach(), atol=1e-6, rtol=0)
        torch.testing.assert_close(g, wanted[n][0], atol=1e-4, rtol=1e-4)
    for name in METHODS:
        np.testing.assert_allclose(found[name], eager_found[name], atol=1e-5, rtol=1e-4)
    attn = torch.stack([x[0].detach() for x in out.attentions]).numpy()
    image_T = image_tokens(model, case)
    at = np.ix_(case.rows, image_T)
    np.testing.assert_allclose(found["rollout"], rollout(attn)[at].mean(0), atol=1e-6)
    np.testing.assert_allclose(found["attention"], attn.mean((0, 1))[at].mean(0), atol=1e-6)
    np.testing.assert_allclose(found["attention_last"], attn[-1].mean(0)[at].mean(0), atol=1e-6)


# Planted models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("white", [5, 0])
def test_one_patch_decides_and_every_method_finds_it(white: int, tmp_path: Path) -> None:
    model, processor = planted(tmp_path / "model")
    example = (image(white), PROMPT, planted_vlm.ANSWER)
    league = faithfulness(model, processor, [example], steps=9, draws=20)
    (found,) = league.examples
    assert found.shown - found.hidden > 1
    tokens = len(processor.tokenizer(planted_vlm.ANSWER, add_special_tokens=False)["input_ids"])
    assert found.hidden == pytest.approx(-tokens * np.log(model.lm_head.weight.shape[0]), abs=1e-4)
    # The value falls at the first step and stays there; the insertion curve rises at the first.
    deletion = (0.5 * (found.shown + found.hidden) + 8 * found.hidden) / 9
    insertion = (0.5 * (found.shown + found.hidden) + 8 * found.shown) / 9
    for method in METHODS:
        assert int(found.relevance[method].argmax()) == white, method
        assert found.area(method, "deletion") == pytest.approx(deletion, abs=1e-4), method
        assert found.area(method, "insertion") == pytest.approx(insertion, abs=1e-4), method
        assert found.area(method, "deletion") <= found.random_areas.min() + 1e-6
    gains = {(row["method"], row["curve"]): row["gain"] for row in league.rows()}
    assert min(gains[m, c] for m in METHODS for c in ("deletion", "insertion")) > 0.5
    # Centre first sees the planted patch late.
    assert gains[CENTRE, "insertion"] < gains["chefer", "insertion"]


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_model_that_ignores_the_image_has_flat_curves(baseline: str, tmp_path: Path) -> None:
    model, processor = planted(tmp_path / "model", blind=True)
    examples = [(image(n), PROMPT, planted_vlm.ANSWER) for n in (5, 7)]
    league = faithfulness(model, processor, examples, baseline=baseline, steps=3, draws=2)
    for example in league.examples:
        every = [v for by in example.curves.values() for v in by.values()] + [example.random_DK]
        assert max(np.ptp(v) for v in every) < 1e-5
    for row in league.rows():
        assert abs(row["gain"]) < 1e-5 and abs(row["gain_low"]) < 1e-5 and abs(row["gain_high"]) < 1e-5
        assert row["normalised"] is None and row["n"] == 2


# Curves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_ends_of_a_curve_are_the_plain_and_the_hidden_image(
    baseline: str, tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    model, processor = tiny
    case = answered(model, processor, photo(tmp_path / "a.png", 48, 48), PROMPT, ANSWER)
    hidden = Hidden(model, processor, case, image_tokens(model, case), baseline)
    order, count_K = np.arange(9)[::-1], steps_of(9, 4)
    deletion, insertion = (curve_of(hidden, order, 9, count_K, way) for way in (False, True))
    with torch.no_grad():
        plain = float(answer_log_probs(model, case.whole).sum())
        if baseline == "mean":
            whole = same_answer(model, processor, case, [plain_image(case.images[0])])
            assert deletion[-1] == float(answer_log_probs(model, whole).sum())
    assert deletion[0] == insertion[-1] == plain and deletion[-1] == insertion[0] != plain
    # In between: by hand, with the first two tokens of the order hidden.
    if baseline != "embedding":
        painted = np.asarray(hidden.painted(np.arange(9) >= 7)[0])
        own = np.asarray(case.images[0])
        assert (painted[:, :16] == own[:, :16]).all() and (painted[:32] == own[:32]).all()
        assert (painted[32:, 16:] == hidden.instead[0][32:, 16:]).all()
        whole = same_answer(model, processor, case, hidden.painted(np.arange(9) >= 7))
        with torch.no_grad():
            assert deletion[1] == float(answer_log_probs(model, whole).sum())


def test_hidden_embeddings_are_their_mean(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = tiny
    case = answered(model, processor, photo(tmp_path / "a.png"), PROMPT, ANSWER)
    image_T = image_tokens(model, case)
    hidden = Hidden(model, processor, case, image_T, "embedding")
    mask = np.arange(9) < 4
    with torch.no_grad():
        features = model.get_image_features(case.whole.inputs["pixel_values"]).pooler_output[0]
        embeds = model.get_input_embeddings()(case.whole.inputs["input_ids"])
        embeds[0, image_T] = torch.where(torch.tensor(mask)[:, None], features.mean(0), features)
        log_NV = model(inputs_embeds=embeds).logits[0].log_softmax(-1)
    wanted = sum(float(log_NV[row, token]) for row, token in zip(case.rows, case.new, strict=True))
    assert hidden(mask) == pytest.approx(wanted, abs=1e-4)
    assert not model.model.language_model._forward_pre_hooks


def test_areas_orders_and_steps_by_hand() -> None:
    assert steps_of(9, 4).tolist() == [0, 2, 4, 7, 9] and steps_of(3, 10).tolist() == [0, 1, 2, 3]
    assert area(np.array([0.0, -2.0, -2.0]), np.array([0, 1, 4])) == pytest.approx((-1 - 6) / 4)
    assert order_of(np.array([0.1, 0.3, 0.3, 0.2])).tolist() == [1, 2, 3, 0]
    boxes = np.array([[0, 0, 2, 2], [2, 0, 4, 2], [1, 0, 3, 2], [np.nan] * 4])
    assert centre_first(boxes, lambda _: (4, 2)).tolist() == [2, 0, 1, 3]
    # A value that counts hidden tokens: the curves are lines.
    count_K = steps_of(6, 3)
    kept = np.array([4, 0, 5, 1])  # tokens 2 and 3 have no place
    down = curve_of(lambda mask: -float(mask.sum()), kept, 6, steps_of(4, 2), False)
    assert down.tolist() == [0, -2, -4] and count_K.tolist() == [0, 2, 4, 6]


def test_table_by_hand() -> None:
    """Two examples: sums before ratios, the sign of a gain, an interval that has both; a missing method."""

    def example(shown: float, drop: float, more: dict[str, Any]) -> Example:
        line = {"deletion": np.array([shown, shown - drop]), "insertion": np.array([shown - drop, shown])}
        random = np.array([[shown, shown], [shown, shown - drop]])
        none = np.zeros((0, 4))
        return Example("", "", shown, shown - drop, np.array([0, 4]), {"m": line} | more, random, {}, none)

    other = {"deletion": np.array([0.0, -1.0]), "insertion": np.array([-1.0, 0.0])}
    league = League("", "mean", [example(0, 2, {}), example(-1, 4, {"late": other})])
    rows = {(row["method"], row["curve"]): row for row in league.rows()}
    assert [m for m, c in rows if c == "deletion"] == ["m", "late", RANDOM]
    down, up = rows["m", "deletion"], rows["m", "insertion"]
    assert down["area"] == up["area"] == (-1 - 3) / 2
    assert down["normalised"] == pytest.approx((-4 + 2 + 5) / (-1 + 2 + 5))
    # Random areas: (0 − 1)/2 and (−1 − 3)/2.
    assert down["gain"] == pytest.approx((0.5 + 1) / 2) and up["gain"] == -down["gain"]
    assert (down["gain_low"], down["gain_high"]) == (0.5, 1.0)
    late = rows["late", "deletion"]
    assert late["n"] == 1 and late["area"] == -0.5 and late["area_low"] is None
    assert rows[RANDOM, "deletion"]["gain"] == 0


def test_models_that_cannot_be_measured(tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: Any) -> None:
    model, processor = tiny
    case = answered(model, processor, photo(tmp_path / "a.png"), PROMPT, ANSWER)
    image_T = image_tokens(model, case)

    def unknown(*_: Any) -> Any:
        raise AtlasError("token_boxes: no geometry")

    monkeypatch.setattr("attention_atlas.look.keys.token_boxes", unknown)
    with pytest.raises(AtlasError, match=r"have no place \(token_boxes: no geometry\); use --baseline emb"):
        Hidden(model, processor, case, image_T, "mean")
    example = (photo(tmp_path / "a.png"), PROMPT, ANSWER)
    (found,) = faithfulness(
        model, processor, [example], baseline="embedding", methods=["norm"], draws=2
    ).examples
    assert CENTRE not in found.curves and found.notes == [
        "no centre-first order: the image tokens have no place"
    ]
    forward = type(model.model.language_model).forward

    def deep(self: Any, *args: Any, deepstack_visual_embeds: Any = None, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(model.model.language_model), "forward", deep)
    hidden = Hidden(model, processor, case, image_T, "embedding")
    plain = model.model.language_model.register_forward_pre_hook(
        lambda m, args, kwargs: (args, kwargs | {"deepstack_visual_embeds": [1]}), with_kwargs=True
    )
    with pytest.raises(AtlasError, match=r"adds the image in later layers too \(deepstack"):
        hidden(np.ones(9, dtype=bool))
    plain.remove()
    with pytest.raises(AtlasError, match="give a mask of 9 tokens"):
        hidden(np.ones(8, dtype=bool))


# The command -----------------------------------------------------------------------------------------


def test_the_command_writes_a_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "a.png"), photo(tmp_path / "b.png", 50, 80, 1)
    (tmp_path / "few.csv").write_text(f'image,prompt,answer\na.png,"{PROMPT}",{ANSWER}\nb.png,{PROMPT},\n')
    line = ["faithfulness", str(folder), "--data", str(tmp_path / "few.csv"), "--steps", "2", "--draws", "2"]
    line += ["--methods", "rollout", "chefer", "--max-new-tokens", "4", "--out", str(tmp_path / "out")]
    assert main(line) == 0
    about = json.loads((tmp_path / "out/faithfulness.json").read_text())
    with (tmp_path / "out/faithfulness.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and len(rows) == len(about["rows"]) == 4 * 2
    assert {row["method"] for row in rows} == {"rollout", "chefer", CENTRE, RANDOM}
    assert about["examples"][0]["answer"] == ANSWER and len(about["examples"]) == 2
    for row in about["rows"]:
        areas = [
            area(np.array(e["curves"][row["method"]][row["curve"]]), np.array(e["tokens"]))
            for e in about["examples"]
            if row["method"] != RANDOM
        ]
        assert row["area"] == pytest.approx(np.mean(areas), abs=1e-5) if areas else row["gain"] == 0
    assert re.search(r"2 examples; hidden tokens: mean", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--methods": "chefr"}, "--methods: 'chefr' is unknown; did you mean 'chefer'"),
        ({"--baseline": "black"}, "--baseline: 'black' is unknown"),
        ({"--steps": "0"}, "--steps: 0 is less than 1"),
        ({"--draws": "1"}, "--draws: 1 is less than 2"),
        ({"--image": None}, "--image, --prompt: give both"),
        ({"--data": "few.csv"}, "--data: holds the examples; leave out"),
        (
            {"--data": "gone.csv", "--image": None, "--prompt": None, "--answer": None},
            "gone.csv: no such file",
        ),
        (
            {"--data": "few.csv", "--image": None, "--prompt": None, "--answer": None},
            "has no column 'prompt'",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(
    changed: dict[str, str | None],
    message: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    photo(Path("a.png"))
    Path("few.csv").write_text("image\na.png\n")
    options = {"--image": "a.png", "--prompt": PROMPT, "--answer": ANSWER, "--out": "out"} | changed
    given = [part for name, value in options.items() if value is not None for part in (name, value)]
    assert main(["faithfulness", str(folder), *given]) == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1 and re.search(message, errors[0]), errors
    assert not Path("out").exists()


def test_python_arguments_are_checked(tiny: tuple[Any, Any]) -> None:
    with pytest.raises(ConfigError, match="no example"):
        faithfulness(*tiny, [])


def test_an_example_that_cannot_be_measured_is_left_out_with_its_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photo(Path("a.png"))
    command = ["faithfulness", str(folder), "--data", "rows.csv", "--methods", "rollout", "--steps", "2"]
    command += ["--draws", "2", "--out", "out"]
    row = "a.png,what is it?,"
    Path("rows.csv").write_text(f"image,prompt,answer\n{row}a ball\n{row}a <image> ball\n{row}a sofa\n")
    assert main(command) == 0, capsys.readouterr().err
    about = json.loads(Path("out/faithfulness.json").read_text())
    assert [e["answer"] for e in about["examples"]] == ["a ball", "a sofa"]
    (left_out,) = about["left_out"]
    assert left_out.startswith("rows.csv: line 3: left out: answer: 'a <image> ball' has the image token")
    assert f"note: {left_out}" in capsys.readouterr().out
    for lines, message in (
        (f"{row}a <image>\n{row}<image>\n", "no example is left; rows.csv: line 2: left out: answer"),
        (f"{row}a ball\n,what is it?,\n", "rows.csv: line 3: image is empty; fill it in"),
        (f"{row}a ball\ngone.png,what is it?,\n", "rows.csv: line 3: gone.png: no such image"),
    ):
        Path("rows.csv").write_text(f"image,prompt,answer\n{lines}")
        assert main(command) in (1, 2)
        assert message in capsys.readouterr().err
