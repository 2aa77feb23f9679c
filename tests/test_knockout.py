"""Knock-out of a free-form answer: planted effects, the control, files, and the command."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import planted_vlm
import pytest
from conftest import ROOT
from look_tiny import ANSWER, FAMILIES, PROMPT, photo
from planted_vlm import LAST, image, planted

from attention_atlas.__main__ import main
from attention_atlas.errors import ConfigError
from attention_atlas.interventions import knock_out
from attention_atlas.interventions.knockout import COLUMNS, layer_windows
from attention_atlas.look.load import load


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in FAMILIES.items()}


def test_a_planted_edge_is_found(tmp_path: Path) -> None:
    """Only the last layer's head 0 reads the image; without it every token is as likely as any other."""
    model, processor = planted(tmp_path / "model")
    heads = [(layer, head) for layer in (0, LAST) for head in range(4)]
    found = knock_out(model, processor, image(5), PROMPT, planted_vlm.ANSWER, other=image(None), heads=heads)
    guess = -np.log(model.lm_head.weight.shape[0])
    assert (found.plain_N > guess + 1).all()
    assert found.other_plain_N == pytest.approx(guess, abs=1e-5)
    for cut, change_N, other_N, net_N in zip(
        found.cuts, found.change_CN, found.other_change_CN, found.net_CN, strict=True
    ):
        reads = cut.key == "image" and cut.last == LAST and cut.head in (None, 0)
        wanted_N = guess - found.plain_N if reads else 0 * found.plain_N
        np.testing.assert_allclose(change_N, wanted_N, atol=1e-5, err_msg=str(cut))
        np.testing.assert_allclose(other_N, 0, atol=1e-5, err_msg=str(cut))
        np.testing.assert_allclose(net_N, wanted_N, atol=1e-5)
    assert {cut.name for cut in found.cuts} == {"text → image", "image → text", "answer → image"}


@pytest.mark.parametrize("name", FAMILIES)
def test_cut_off_everywhere_the_net_effect_is_that_of_the_other_image(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model, processor = load(str(folders[name]), "cpu", "float32")
    own, other = photo(tmp_path / "a.png"), photo(tmp_path / "b.png", seed=1)
    found = knock_out(model, processor, own, PROMPT, ANSWER, other=other, cuts=["text-image"], windows=1)
    np.testing.assert_allclose(found.cut_CN, found.other_CN, atol=1e-4)
    np.testing.assert_allclose(found.net_CN[0], found.other_plain_N - found.plain_N, atol=1e-4)
    assert np.abs(found.net_CN).max() > 1e-2
    # Null: where the other image is the same, nothing is left.
    same = knock_out(model, processor, own, PROMPT, ANSWER, other=own, cuts=["text -> image"])
    assert not same.net_CN.any() and np.abs(same.change_CN).max() > 1e-2
    np.testing.assert_array_equal(same.plain_N, found.plain_N)


def test_words_and_tokens_of_the_models_own_answer(folders: dict[str, Path], tmp_path: Path) -> None:
    """Scored are the tokens that the model wrote, against its eager log-softmax by hand."""
    import torch

    from attention_atlas.interventions.answers import answered

    model, processor = load(str(folders["llava"]), "cpu", "float32")
    own = photo(tmp_path / "a.png")
    found = knock_out(model, processor, own, PROMPT, max_new_tokens=6, windows=3)
    case = answered(model, processor, own, PROMPT, None, 6)
    assert len(found.plain_N) == len(case.new) and found.control == "own image in its mean colour"
    assert processor.tokenizer.convert_ids_to_tokens(case.new) == found.tokens
    with torch.no_grad():
        log_NV = model(**case.whole.inputs).logits[0].log_softmax(-1)[case.whole.start - 1 :]
    wanted = [float(log_NV[n, token]) for n, token in enumerate(case.new)]
    np.testing.assert_allclose(found.plain_N, wanted, atol=1e-5)
    greedy = [int(log_NV[n].argmax()) for n in range(len(case.new))]
    assert greedy == case.new
    rows = found.rows()
    assert len(rows) == (1 + 3 * 4) * (1 + len(found.words))
    for row in rows:
        at = found.words[row["position"]][1] if row["word"] else list(range(len(wanted)))
        if row["cut"] == "":
            assert row["log_prob"] == pytest.approx(sum(wanted[n] for n in at), abs=1e-4)
        else:
            assert row["net"] == pytest.approx(row["change"] - row["other"], abs=3e-6)


def test_windows_share_the_layers() -> None:
    assert layer_windows(8, 3) == [(0, 2), (3, 4), (5, 7), (0, 7)]
    assert layer_windows(4, 4) == [(0, 0), (1, 1), (2, 2), (3, 3), (0, 3)]
    assert layer_windows(4, 1) == [(0, 3)]
    with pytest.raises(ConfigError, match=r"--windows: 5 is outside 1\.\.4"):
        layer_windows(4, 5)


def test_the_command_writes_the_rows(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    paths = str(photo(tmp_path / "a.png")), str(photo(tmp_path / "b.png", 50, 80, 1))
    line = ["knockout", str(folders["llava"]), "--image", paths[0], "--other", paths[1], "--prompt", PROMPT]
    line += ["--answer", ANSWER, "--windows", "2", "--cut", "answer-image", "--heads", "1", "--out", str(out)]
    assert main(line) == 0
    about = json.loads((out / "knockout.json").read_text())
    with (out / "knockout.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert about["answer"] == ANSWER and tuple(rows[0]) == COLUMNS
    assert [{n: str(v) for n, v in row.items()} for row in about["rows"]] == rows
    assert {(r["first"], r["last"], r["head"]) for r in rows if r["cut"]} == {
        *(("0", "1", ""), ("2", "2", ""), ("0", "2", "")),
        *(("1", "1", str(head)) for head in range(4)),
    }
    assert re.search(r"answer → image +0-1 +all", capsys.readouterr().out)


def test_the_examples_in_the_docs_run(
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from attention_atlas.interventions.answers import answered

    page = (ROOT / "docs/howto/faithfulness.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```py\n(.*?)```", page, re.DOTALL))
    monkeypatch.chdir(tmp_path)
    photo(Path("kitchen.jpg"), 48, 48), photo(Path("street.jpg"), 48, 48, 1)
    model, processor = load(str(folders["llava"]), "cpu", "float32")
    inputs = answered(model, processor, "kitchen.jpg", PROMPT, ANSWER).whole.inputs
    names = {"model": model, "processor": processor, "inputs": inputs}
    exec(compile(code.replace("range(8, 12)", "range(1, 3)"), "faithfulness.md", "exec"), names)
    assert "chefer insertion" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--cut": "text-imge"}, "'imge' is not a part of the sequence; did you mean 'image'"),
        ({"--cut": "all"}, "--cut: 'all' is no cut"),
        ({"--windows": "9"}, r"--windows: 9 is outside 1\.\.3"),
        ({"--heads": "x"}, "--heads: 'x' names no layers"),
        ({"--heads": "7"}, "--heads: layer 7, head 0: has 3 layers of 4 heads"),
        ({"--other": "gone.png"}, "gone.png: no such image"),
        ({"--answer": ""}, "--answer: has no tokens"),
        ({"--prompt": " "}, "--prompt: is empty"),
        ({"--max-new-tokens": "3"}, "--max-new-tokens: has no effect with --answer"),
        ({"--out": "a.png"}, "--out: a.png: is a file"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    changed: dict[str, str],
    message: str,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    photo(Path("a.png"))
    options = {"--image": "a.png", "--prompt": PROMPT, "--answer": ANSWER, "--out": "out"} | changed
    line = ["knockout", str(folders["llava"]), *(part for pair in options.items() for part in pair)]
    assert main(line) == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1 and re.search(message, errors[0]), errors
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
