"""`attention-atlas look`: its numbers against transformers' eager attention, its files, its errors."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from look_tiny import ANSWER, FAMILIES, PROMPT, photo

from attention_atlas.__main__ import main
from attention_atlas.capture.summaries import rollout
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.look import Atlas
from attention_atlas.look import inputs as look_inputs
from attention_atlas.look.command import layer_numbers
from attention_atlas.look.load import load
from attention_atlas.look.page import payload
from attention_atlas.look.words import words_of
from attention_atlas.recording import StatisticsStore


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory):
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llava_folder(tmp_path_factory):
    return FAMILIES["llava"](tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def look(llava_folder, tmp_path_factory):
    image = photo(tmp_path_factory.mktemp("photo") / "a.png")
    return Atlas(*load(str(llava_folder), "cpu")).look(image, PROMPT, ANSWER)


def eager(folder: Path, image: Path, look) -> tuple[np.ndarray, torch.Tensor]:
    """(L,H,S,S) attention and the ids of transformers' own pass over the look's whole text."""
    model, processor = load(str(folder), "cpu")
    inputs = look_inputs.prompt_inputs(model, processor, [p.pixels for p in look.images], PROMPT)
    whole = look_inputs.sequence(model, processor, inputs, look.answer, 1)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        made = model(**whole.inputs, output_attentions=True)
    return torch.cat(made.attentions).numpy(), whole.inputs["input_ids"][0]


def test_numbers_are_those_of_the_eager_matrices(checkpoint, tmp_path):
    image = photo(tmp_path / "a.png")
    look = Atlas(*load(str(checkpoint), "cpu")).look(image, PROMPT, ANSWER)
    attn_LHSS, _ = eager(checkpoint, image, look)
    is_image_S = np.array(look.roles) == "image"
    group = look.groups.index("image")
    np.testing.assert_allclose(look.values["mass"][..., group], attn_LHSS[..., is_image_S].sum(-1), atol=1e-5)
    entropy = -(attn_LHSS * np.log(np.where(attn_LHSS > 0, attn_LHSS, 1))).sum(-1)
    np.testing.assert_allclose(look.values["entropy"], entropy, atol=1e-4)
    for w, word in enumerate(look.words):
        rows_LHS = attn_LHSS[:, :, word.rows].mean(2)
        np.testing.assert_allclose(look.word_values["rows"][:, :, w], rows_LHS, atol=1e-5)
        for layer in look.kept:
            expected_S = rollout(attn_LHSS[: layer + 1])[word.rows].mean(0)
            found_T = look.word_values["rollout"][layer, w]
            np.testing.assert_allclose(found_T, expected_S[is_image_S], atol=1e-5)
        # Uniform attention to the keys that the matrix shows to be visible.
        visible_RS = attn_LHSS[0, 0, word.rows] > 0
        chance = (visible_RS & is_image_S).sum(-1) / visible_RS.sum(-1)
        np.testing.assert_allclose(look.statistics["chance"][0, w, group], chance.mean(), atol=1e-6)
    assert look.statistics["norm_mass"].sum(-1) == pytest.approx(1, abs=1e-5)
    received = np.mean([attn_LHSS[:, :, word.rows].mean(2) for word in look.words], 0)
    np.testing.assert_allclose(look.received_LHS, received, atol=1e-5)


def test_words_of_the_answer_attend_from_where_they_are_generated(look):
    for part, text in (("prompt", "what color is the block ?"), ("answer", "a red block on the left .")):
        assert " ".join(word.text for word in look.words if word.part == part) == text
    for word in look.words:
        back = 1 if word.part == "answer" else 0
        assert word.rows == [p - back for p in word.positions]
    assert [w.space for w in look.words][4:6] == [True, False]  # "block?"
    # The template's USER: and ASSISTANT: are positions, but no words.
    assert sum(len(w.positions) for w in look.words) < look.roles.count("text")


def test_pieces_become_words_by_what_they_decode_to():
    class Bytes:
        """One token per UTF-8 byte, as byte-level tokenizers have for rare characters."""

        def decode(self, ids, **_):
            return bytes(ids).decode("utf-8", errors="replace")

    text = "Größe: 左边"
    words = words_of(Bytes(), list(text.encode()), ["text"] * len(text.encode()), 0, "")
    assert [w.text for w in words] == ["Größe", ":", "左", "边"]
    assert [len(w.positions) for w in words] == [7, 1, 3, 3]


def test_generation_and_one_pass_agree_or_a_note_says_so(checkpoint, tmp_path, monkeypatch):
    atlas, image = Atlas(*load(str(checkpoint), "cpu")), photo(tmp_path / "a.png")
    look = atlas.look(image, PROMPT, max_new_tokens=6)
    assert look.generated and look.answer and not look.notes
    if "paligemma" in str(checkpoint):
        # An answer that counts as prompt would see its own end.
        plain = look_inputs.extended

        def wrong(inputs, new):
            whole = plain(inputs, new)
            return whole | {"token_type_ids": torch.zeros_like(whole["token_type_ids"])}

        monkeypatch.setattr(look_inputs, "extended", wrong)
        look = atlas.look(image, PROMPT, max_new_tokens=6)
        assert any("differs from its generation" in note for note in look.notes)


def test_an_answer_holds_no_placeholder_of_a_image(llava_folder, tmp_path):
    model, processor = load(str(llava_folder), "cpu")
    image = model.config.image_token_id

    def prefer(module, args, output):
        return output.index_fill(-1, torch.tensor([image]), 100.0)

    with torch.no_grad():
        handle = model.get_output_embeddings().register_forward_hook(prefer)
        look = Atlas(model, processor).look(photo(tmp_path / "a.png"), PROMPT, max_new_tokens=3)
    handle.remove()
    assert look.answer and "<image>" not in look.answer


def test_boxes_are_pixels_of_the_original_image(checkpoint, tmp_path):
    from PIL import Image

    atlas, wide = Atlas(*load(str(checkpoint), "cpu")), Image.new("RGB", (90, 60), "red")
    look = atlas.look(wide, PROMPT, answer="a cat")
    own = look.boxes_S4[look.image_S == 0]
    assert np.isnan(look.boxes_S4[look.image_S < 0]).all() and len(own) == 9
    if "llava" in str(checkpoint):  # the centre square of 60 pixels
        assert own[0].tolist() == [15, 0, 35, 20] and own[-1].tolist() == [55, 40, 75, 60]
    else:  # the whole image, stretched
        assert own[0].tolist() == [0, 0, 30, 20] and own[-1].tolist() == [60, 40, 90, 60]
    look = atlas.look([wide, wide], PROMPT, answer="a cat")
    assert look.image_S[look.image_S >= 0].tolist() == [0] * 9 + [1] * 9
    atlas.model.config.model_type = "unknown"
    look = atlas.look(wide, PROMPT, answer="a cat")
    assert np.isnan(look.boxes_S4).all() and (look.image_S == 0).sum() == 9
    assert any("not their places" in note for note in look.notes)


def unpacked(text: str, kind: type = np.float32) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), kind)


def test_the_page_holds_the_numbers_to_a_byte(look):
    data = payload(look)
    for name, rows in (("raw", "rows"), ("norm", "norm_rows"), ("rollout", "rollout")):
        values = look.word_values[rows]
        if name == "rollout":
            values_WMHT = values.transpose(1, 0, 2)[:, :, None]
        else:
            if name == "norm":
                values = values / values.sum(-1, keepdims=True)
            values_WMHT = values[..., look.image_T].transpose(2, 0, 1, 3)
        scale = unpacked(data["maps"][name]["scale"]).reshape(*values_WMHT.shape[:3], 1)
        stored = unpacked(data["maps"][name]["bytes"], np.uint8).reshape(values_WMHT.shape)
        found = scale * (stored / 255) ** 2
        found[..., data["sinks"]] = unpacked(data["maps"][name]["sinks"]).reshape(*scale.shape[:3], -1)
        assert np.abs(found - values_WMHT).max() <= scale.max() / 255
        small = (values_WMHT > 1e-4 * scale) & (values_WMHT < 0.01 * scale)
        assert np.abs(found - values_WMHT)[small].max(initial=0) < 2e-3 * scale.max()


def test_sinks_keep_their_own_numbers(look):
    from dataclasses import replace

    position = int(look.image_T[4])
    rows = look.word_values["rows"].copy()
    rows[..., position] += 50
    data = payload(replace(look, sinks=[position], word_values=look.word_values | {"rows": rows}))
    assert data["sinks"] == [4]
    plain = unpacked(payload(look)["maps"]["raw"]["scale"])
    assert unpacked(data["maps"]["raw"]["scale"]).max() <= plain.max()
    top = unpacked(data["maps"]["raw"]["top"])
    assert top.min() >= 50


def test_a_budget_thins_the_layers_evenly(llava_folder, look, tmp_path):
    atlas, image = Atlas(*load(str(llava_folder), "cpu")), photo(tmp_path / "a.png")
    one_layer = 2 * 4 * len(look.words) * len(look.image_T)
    assert atlas.look(image, PROMPT, ANSWER, budget=2 * one_layer).kept == [0, 2]
    thin = atlas.look(image, PROMPT, ANSWER, budget=1)
    assert thin.kept == [2] and thin.layers == [0, 1, 2]
    np.testing.assert_allclose(thin.word_values["rollout"][0], look.word_values["rollout"][2], atol=1e-6)
    assert atlas.look(image, PROMPT, ANSWER, layers=[1], budget=1).kept == [1]
    with pytest.raises(ConfigError, match=r"--layers: 3 is outside 0\.\.2"):
        atlas.look(image, PROMPT, ANSWER, layers=[3])


def test_files_hold_the_same_numbers(look, tmp_path):
    look.save(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "index.html",
        "statistics.h5",
        "summary.json",
    ]
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    image = look.groups.index("image")
    for w, word in enumerate(summary["words"]):
        mass_LH = look.statistics["mass"][:, :, w, image]
        np.testing.assert_allclose(word["mass"]["image"], mass_LH, atol=1e-6)
        rows_MHT = look.word_values["rows"][:, :, w][..., look.image_T]
        best = word["strongest"][0]
        assert best["share"] == pytest.approx(rows_MHT.mean((0, 1)).max(), abs=1e-6)
    with StatisticsStore(tmp_path / "out/statistics.h5") as store:
        rows = store.read("look", "words", "rows")
        np.testing.assert_allclose(rows, look.word_values["rows"])
        np.testing.assert_allclose(store.read("look", "decoder_self", "mass"), look.values["mass"])


def test_a_failed_save_leaves_nothing(look, tmp_path, monkeypatch):
    def broken(_):
        raise RuntimeError("no page")

    (tmp_path / "old").mkdir()
    (tmp_path / "old/summary.json").write_text("before")
    monkeypatch.setattr("attention_atlas.look.page.page", broken)
    for name in ("new", "old"):
        with pytest.raises(RuntimeError, match="no page"):
            look.save(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old/summary.json").read_text() == "before"


def test_a_prompt_cannot_end_the_script(look):
    from dataclasses import replace

    from attention_atlas.look.page import page

    text = page(replace(look, prompt="</script><script>alert(1)</script>", answer="<!-- <script>"))
    assert text.count("</script>") == 4 and "alert(1)<\\/script>" in text
    assert "%%" not in text and "http" not in text.replace("http-equiv", "")


def test_the_example_in_the_docs_runs(llava_folder, tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs/howto/look.md").read_text(encoding="utf-8")
    code = re.search(r"```py\n(.*?)```", text, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "kitchen.jpg")
    model, processor = load(str(llava_folder), "cpu")
    exec(compile(code, "docs/howto/look.md", "exec"), {"model": model, "processor": processor})
    assert "'image'" in capsys.readouterr().out and (tmp_path / "look/index.html").is_file()


# The command ----------------------------------------------------------------------------------------


def test_the_command_writes_the_three_files(checkpoint, tmp_path):
    images = [photo(tmp_path / "a.png"), photo(tmp_path / "b.jpg", 50, 80, 1)]
    images = images if "llava" in str(checkpoint) else images[:1]
    run = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "attention_atlas",
                "look",
                str(checkpoint),
                "--image",
                *map(str, images),
            ),
            *("--prompt", PROMPT, "--max-new-tokens", "4", "--layers", "0,2", "--out", str(tmp_path / "out")),
        ],
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert [p["name"] for p in summary["images"]] == [p.name for p in images]
    assert summary["layers"] == [0, 1, 2] and summary["layers_with_maps"] == [0, 2]
    assert f"answer: {summary['answer']}" in run.stdout and "index.html" in run.stdout
    assert {token["image"] for token in summary["image_tokens"]} == set(range(len(images)))


def test_the_console_script_is_the_command():
    import tomllib

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"attention-atlas": "attention_atlas.__main__:main"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--image": "gone.png"}, "gone.png: no such image"),
        ({"--image": "text.txt"}, "text.txt: not an image"),
        ({"--prompt": " "}, "--prompt: is empty"),
        ({"--answer": ""}, "--answer: has no tokens"),
        ({"--layers": "x"}, "--layers: 'x' is no layer"),
        ({"--layers": "9"}, r"--layers: 9 is outside 0\.\.2"),
        ({"--out": "text.txt"}, r"--out: .*text\.txt: is a file"),
        ({"--max-new-tokens": "0"}, "--max-new-tokens: 0 is less than 1"),
        ({"--max-new-tokens": "3", "--answer": "a"}, "--max-new-tokens: has no effect"),
        ({"--device": "cuda:77"}, "device: 'cuda:77' is not available"),
        ({"--dtype": "int3"}, "'int3' is unknown"),
        ({"--prompt": "<image> <image> what?"}, "--prompt: has 2 <image> for 1 images"),
        ({"MODEL": "nowhere/model"}, "MODEL: 'nowhere/model' cannot be loaded"),
        ({"MODEL": "llama"}, "MODEL: .*llama': a 'llama' is not a vision-language model"),
        ({"MODEL": "bare"}, "MODEL: .*bare': processor cannot be loaded"),
        ({"MODEL": "wordless"}, "no position of input_ids is an image"),
    ],
)
def test_what_cannot_be_used_is_one_line(changed, message, llava_folder, tmp_path, monkeypatch, capsys):
    import shutil

    from transformers import LlamaConfig

    monkeypatch.chdir(tmp_path)
    photo(Path("a.png"))
    Path("text.txt").write_text("no image")
    model = changed.get("MODEL", str(llava_folder))
    if model == "llama":
        LlamaConfig(hidden_size=8, num_attention_heads=2).save_pretrained("llama")
    if model in ("bare", "wordless"):
        shutil.copytree(llava_folder, model)
    if model == "bare":
        Path("bare/processor_config.json").unlink()
        Path("bare/tokenizer.json").unlink()
    if model == "wordless":  # the ids of the processor's image tokens are not the model's
        config = json.loads(Path("wordless/config.json").read_text())
        Path("wordless/config.json").write_text(json.dumps(config | {"image_token_id": 69}))
    options = {"--image": "a.png", "--prompt": PROMPT, "--out": "out"} | changed
    options.pop("MODEL", None)
    before = sorted(p.name for p in tmp_path.iterdir())
    assert main(["look", model, *(part for pair in options.items() for part in pair)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and re.search(message, lines[0]), lines
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_layers_are_numbers_and_ranges():
    assert layer_numbers("0, 8,16-18") == [0, 8, 16, 17, 18]
    for text in ("", "1,,2", "-1", "3-1", "all"):
        with pytest.raises(ConfigError, match="--layers"):
            layer_numbers(text)


def test_an_encoder_decoder_is_named(llava_folder, tmp_path):
    model, processor = load(str(llava_folder), "cpu")
    model.config.is_encoder_decoder = True
    with pytest.raises(AtlasError, match="is an encoder-decoder"):
        Atlas(model, processor).look(photo(tmp_path / "a.png"), PROMPT, ANSWER)


def test_only_the_special_tokens_of_the_checkpoints_generation_settings_count(llava_folder, tmp_path):
    """Each token of an answer is the most likely one: no penalty, no sampling."""
    model, processor = load(str(llava_folder), "cpu")
    image = photo(tmp_path / "a.png")
    plain = Atlas(model, processor).look(image, PROMPT, max_new_tokens=8)
    settings = dict(repetition_penalty=3.0, no_repeat_ngram_size=1, do_sample=True, num_beams=3)
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    assert Atlas(model, processor).look(image, PROMPT, max_new_tokens=8).tokens == plain.tokens
    assert model.generation_config.repetition_penalty == 3.0


def test_given_answers_lose_their_end_and_may_not_stand_for_a_image(llava_folder, tmp_path):
    model, processor = load(str(llava_folder), "cpu")
    image = photo(tmp_path / "a.png")
    atlas = Atlas(model, processor)
    end = processor.tokenizer.eos_token
    assert (
        atlas.look(image, PROMPT, f"a red block{end}").tokens
        == atlas.look(image, PROMPT, "a red block").tokens
    )
    with pytest.raises(ConfigError, match=r"answer: 'a <image> block' has the image token; leave it out"):
        atlas.look(image, PROMPT, "a <image> block")


@pytest.mark.parametrize(
    ("before", "text", "pieces"),
    [
        ("Assistant:", "red", ["Ġred"]),  # as a model goes on after it
        ("Assistant:\n", "red", ["red"]),
        ("Assistant: ", "red", ["red"]),
        ("Assistant:", " red", ["Ġred"]),
        ("<s>", "red", ["red"]),
        ("Assistant:", "水", ["æ", "°", "´"]),
    ],
)
def test_a_space_precedes_a_given_answer_where_a_model_would_write_one(before, text, pieces):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(["red red", "red", "a red"] * 5, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>")
    ids = tokenizer(before, add_special_tokens=False)["input_ids"]
    found = look_inputs.text_ids(LlamaConfig(), tokenizer, text, ids)
    assert tokenizer.convert_ids_to_tokens(found) == pieces


def test_layers_without_attention_cannot_be_chosen_and_a_page_has_an_end():
    from types import SimpleNamespace

    from attention_atlas.look.keys import attention_layers, kept_layers

    hybrid = SimpleNamespace(layer_types=["conv", "full_attention", "linear_attention", "sliding_attention"])
    assert attention_layers(hybrid) == [1, 3]
    assert attention_layers(SimpleNamespace(num_hidden_layers=2)) == [0, 1]
    keys = SimpleNamespace(layers=[1, 3])
    heads = SimpleNamespace(num_attention_heads=4)
    assert kept_layers(heads, keys, None, per_head=10, budget=100) == [3]
    with pytest.raises(
        ConfigError, match=r"--layers: 0 is outside 1, 3; give numbers of layers with such att"
    ):
        kept_layers(heads, keys, [0], per_head=10, budget=100)
    with pytest.raises(
        ConfigError, match=r"--prompt: the maps of a single layer would take 800 MB, too much"
    ):
        kept_layers(heads, keys, None, per_head=10**8, budget=100)


def test_files_are_prepared_inside_their_own_folder(tmp_path):
    from attention_atlas.files import results_in

    out = tmp_path / "parent/out"
    out.mkdir(parents=True)
    (out / "kept").touch()
    with results_in(out) as part:
        assert part.parent == out  # and so on the same file system
        (part / "new").touch()
    assert sorted(p.name for p in out.iterdir()) == ["kept", "new"]
    with pytest.raises(ZeroDivisionError), results_in(tmp_path / "absent"):
        raise ZeroDivisionError
    assert not (tmp_path / "absent").exists()
