"""The page of `attention-atlas look` in a real browser: it shows what summary.json and statistics.h5 hold."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from browser import Browser, chromium
from look_tiny import ANSWER, PROMPT, llava, photo
from test_look_vision import tiny as vit

from attention_atlas.data.phrase_boxes import Example
from attention_atlas.look import Atlas, VisionAtlas
from attention_atlas.look.load import load
from attention_atlas.look.page import payload
from attention_atlas.look.vision import load_vision

pytestmark = pytest.mark.skipif(
    chromium() is None,
    reason="needs Chromium or Chrome on the PATH (apt install chromium) or in ATLAS_BROWSER",
)
READY = "document.body !== null && document.body.dataset.ready === 'true'"
WORD, LAYER, HEAD = 8, 1, 2  # "block" of the answer


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    """Two grey images, whose colour under the overlay is known, and two positions that count as sinks."""
    folder = tmp_path_factory.mktemp("look")
    images = [photo(folder / "wide.png", seed=None), photo(folder / "tall.png", 50, 80, seed=None)]
    found = Atlas(*load(str(llava(folder / "model")), "cpu")).look(images, PROMPT, ANSWER)
    found = replace(found, model="tiny", sinks=[0, int(found.image_T[3])])
    found.save(folder / "out")
    return found, folder / "out"


@pytest.fixture
def page(look, tmp_path):
    with Browser(chromium(), tmp_path / "profile") as browser:
        browser.open(look[1] / "index.html", READY)
        yield browser
        assert not browser.problems()


def choose(page: Browser) -> None:
    """By mouse the word, by keyboard the layer and the head."""
    page.click(f'[data-word="{WORD}"]')
    for slider, steps in (("layer", LAYER + 1), ("head", HEAD + 1)):  # from "mean", left of 0
        page.run(f"document.getElementById('{slider}').focus()")
        for _ in range(steps):
            page.key("ArrowRight")


def shown(page: Browser) -> tuple[str, list[float]]:
    """(the description below the images, its percentages as shares)."""
    text = page.run("document.getElementById('readout').textContent")
    return text, [float(x) / 100 for x in re.findall(r"([\d.]+) %", text)]


def expected_pixels(page: Browser, values_T: np.ndarray) -> np.ndarray:
    """(T,3): grey, the veil, then the page's colour for each value relative to the largest."""
    steps = np.rint(255 * values_T / values_T.max()).astype(int)
    rgba_T4 = np.array([page.run(f"overlay({step})") for step in steps])
    alpha_T1 = rgba_T4[:, 3:] / 255
    return (1 - alpha_T1) * 128 * (1 - page.run("VEIL")) + alpha_T1 * rgba_T4[:, :3]


def pixels(page: Browser) -> np.ndarray:
    """(T,3): the canvases at the middle of each token's box."""
    return np.array(
        page.run(
            "DATA.boxes.map((b, t) => { const p = DATA.image[t]; "
            "const c = document.querySelectorAll('#images canvas')[p]; "
            "const s = c.width / DATA.images[p].width; return [...c.getContext('2d').getImageData("
            "Math.floor(s * (b[0] + b[2]) / 2), Math.floor(s * (b[1] + b[3]) / 2), 1, 1).data].slice(0, 3) })"
        )
    )


def test_a_word_at_a_layer_and_head_shows_the_numbers_of_the_files(page, look):
    found, folder = look
    summary = json.loads((folder / "summary.json").read_text())
    choose(page)
    assert page.run(
        "[...document.querySelectorAll('.turn [aria-pressed=true]')].map(b => b.dataset.word)"
    ) == [str(WORD)]
    text, (share, chance, top) = shown(page)
    assert text.startswith(f"“{summary['words'][WORD]['text']}”, layer {LAYER}, head {HEAD}:")
    assert share == pytest.approx(summary["words"][WORD]["mass"]["image"][LAYER][HEAD], abs=6e-4)
    assert chance == pytest.approx(summary["words"][WORD]["chance"]["image"][LAYER], abs=6e-4)
    values_T = found.word_values["rows"][LAYER, HEAD, WORD][found.image_T]
    assert top == pytest.approx(values_T.max(), abs=1e-3)
    difference = np.abs(pixels(page) - expected_pixels(page, values_T))
    assert difference.max() < 8 and difference.mean() < 2
    assert len({tuple(p) for p in pixels(page).tolist()}) > 6  # an overlay, not one colour
    # Outside the square that the model sees of the wide image.
    corner = page.run(
        "[...document.querySelector('#images canvas').getContext('2d').getImageData(3, 3, 1, 1).data]"
    )
    assert corner[:3] == pytest.approx([128 * (1 - page.run("VEIL"))] * 3, abs=2)


def test_the_mean_of_heads_is_the_strongest_patch_of_the_summary(page, look):
    summary = json.loads((look[1] / "summary.json").read_text())
    page.click(f'[data-word="{WORD}"]')
    best = summary["words"][WORD]["strongest"][0]
    assert best["layer"] is None
    text, (_, _, top) = shown(page)
    assert "mean of layers, mean of heads" in text and top == pytest.approx(best["share"], abs=1e-3)
    (token,) = [t for t in summary["image_tokens"] if t["position"] == best["position"]]
    box = [round(x) for x in token["box"]]
    name = summary["images"][token["image"]]["name"]
    assert f"pixels {box[0]}, {box[1]} to {box[2]}, {box[3]} of {name}" in text


def test_sinks_left_out_are_not_painted_and_the_rest_is_scaled(page, look):
    found, _ = look
    choose(page)
    page.click("#sinks")
    assert page.run("document.getElementById('sinks').getAttribute('aria-pressed')") == "true"
    row_S = found.word_values["rows"][LAYER, HEAD, WORD].copy()
    left = 1 - row_S[found.sinks].sum()
    row_S[found.sinks] = 0
    values_T = row_S[found.image_T] / left
    _, (share, chance, top) = shown(page)
    assert share == pytest.approx(values_T.sum(), abs=6e-4)
    assert top == pytest.approx(values_T.max(), abs=1e-3)
    visible = found.roles.index("pad") if "pad" in found.roles else found.words[WORD].rows[0] + 1
    assert chance == pytest.approx((len(found.image_T) - 1) / (visible - 2), abs=6e-4)
    difference = np.abs(pixels(page) - expected_pixels(page, values_T))
    assert difference.max() < 8


def test_other_measures(page, look):
    found, _ = look
    choose(page)
    page.click("[data-measure=norm]")
    norm_S = found.word_values["norm_rows"][LAYER, HEAD, WORD]
    values_T = (norm_S / norm_S.sum())[found.image_T]
    assert shown(page)[1][0] == pytest.approx(values_T.sum(), abs=6e-4)
    assert np.abs(pixels(page) - expected_pixels(page, values_T)).max() < 8
    page.click("[data-measure=rollout]")
    values_T = found.word_values["rollout"][LAYER, WORD]
    assert page.run("document.getElementById('head').disabled")
    assert shown(page)[1][0] == pytest.approx(values_T.sum(), abs=2e-3)
    assert np.abs(pixels(page) - expected_pixels(page, values_T)).max() < 8


@pytest.mark.parametrize("statistic", ["image", "norm", "entropy", "sinks", "top"])
def test_heads_are_sorted_by_a_statistic(page, look, statistic):
    found, _ = look
    choose(page)
    page.run(
        f"(() => {{ const s = document.getElementById('statistic'); s.value = '{statistic}'; "
        "s.dispatchEvent(new Event('change')) })()"
    )
    rows_LHS, norm_LHS = (found.word_values[name][:, :, WORD] for name in ("rows", "norm_rows"))
    expected = {
        "image": rows_LHS[..., found.image_T].sum(-1),
        "norm": (norm_LHS / norm_LHS.sum(-1, keepdims=True))[..., found.image_T].sum(-1),
        "entropy": found.statistics["entropy"][:, :, WORD],
        "sinks": rows_LHS[..., found.sinks].sum(-1),
        "top": rows_LHS[..., found.image_T].max(-1),
    }[statistic]
    for best in (np.argmax, np.argmin):
        layer, head = np.unravel_index(best(expected), expected.shape)
        first = page.run("document.querySelector('#best button').getAttribute('aria-label')")
        assert first.startswith(f"layer {layer}, head {head}:")
        page.click("#order")
    page.click("#best button")
    assert page.run("[state.layer, state.head]") == list(
        map(int, np.unravel_index(expected.argmax(), expected.shape))
    )


def test_the_keyboard_reaches_everything(page):
    page.run(f"document.querySelector('[data-word=\"{WORD}\"]').click()")
    page.run(f"document.querySelector('[data-word=\"{WORD}\"]').focus()")
    page.key("ArrowRight")
    assert page.run("[state.word, Number(document.activeElement.dataset.word)]") == [WORD + 1] * 2
    page.run("document.querySelectorAll('#grid button')[0].focus()")
    for key in ("ArrowDown", "ArrowRight"):
        page.key(key)
    assert page.run("[state.layer, state.head]") == [1, 1]
    reached = set()
    page.run("document.activeElement.blur()")
    for _ in range(40):
        page.key("Tab")
        reached.add(page.run("document.activeElement.id || document.activeElement.parentElement.id"))
    assert {"answer", "prompt", "measure", "layer", "head", "strength", "sinks", "statistic"} <= reached
    assert {"order", "best", "download"} <= reached
    page.run("document.getElementById('sinks').focus()")
    page.key("Enter")
    assert page.run("state.sinks") is False


def test_a_screen_reader_gets_names_and_changes(page):
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    named = ("button", "slider", "combobox", "img", "grid", "group", "region")
    for node in nodes:
        if not node.get("ignored") and node["role"]["value"] in named:
            assert node.get("name", {}).get("value"), node
    assert page.run("document.getElementById('readout').getAttribute('aria-live')") == "polite"
    assert page.run("document.documentElement.lang") == "en"
    assert page.run("document.querySelectorAll('#grid button[tabindex=\"0\"]').length") == 1


def test_download_is_a_png_of_both_images(page, look, tmp_path):
    page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "down"))
    choose(page)
    page.click("#download")
    page.wait("true")
    for _ in range(200):
        files = list((tmp_path / "down").glob("*.png"))
        if files:
            break
        page.run("new Promise(done => setTimeout(done, 50))")
    from PIL import Image

    with Image.open(files[0]) as image:
        widths = page.run("[...document.querySelectorAll('#images canvas')].map(c => c.width)")
        assert image.size[0] == sum(widths) + 12
    assert files[0].name == f"block_layer_{LAYER}_head_{HEAD}.png"


def test_a_vision_model_shows_what_its_boxes_look_at(tmp_path):
    model = load_vision(str(vit("registers", tmp_path / "model")), "cpu")
    image = photo(tmp_path / "wide.png", seed=None)
    found = VisionAtlas(model).look([image], [Example(image, "cat", [(28.0, 0.0, 90.0, 21.0)])])
    found.save(tmp_path / "out")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    with Browser(chromium(), tmp_path / "profile") as page:
        page.open(tmp_path / "out/index.html", READY)
        page.click('[data-word="1"]')
        page.click("#best button")
        layer, head = page.run("[state.layer, state.head]")
        text, (share, chance, top, inside, area) = shown(page)
        assert text.startswith(f"“cat”, layer {layer}, head {head}:")
        mass_LH = np.array(summary["words"][1]["mass"]["image"])
        assert share == pytest.approx(mass_LH[layer, head], abs=6e-4)
        assert chance == pytest.approx(9 / 13, abs=6e-4)
        values_T = found.word_values["rows"][layer, head, 1][found.image_T]
        assert top == pytest.approx(values_T.max(), abs=1e-3)
        # The box covers the second and third patch, and corners and edges of four others, of nine.
        covered_T = np.array([2 / 30, 1, 1, 2 / 600, 1 / 20, 1 / 20, 0, 0, 0])
        inside_LH = found.word_values["rows"][:, :, 1, found.image_T] @ covered_T
        assert inside == pytest.approx(inside_LH[layer, head], abs=1e-3)
        assert inside_LH[layer, head] == inside_LH.max(), "the first of the sorted heads"
        assert area == pytest.approx(covered_T.mean(), abs=1e-3)
        assert np.abs(pixels(page) - expected_pixels(page, values_T)).max() < 8
        assert not page.problems()


def test_tokens_without_a_place_are_shown_as_shares(look, tmp_path):
    found, _ = look
    nowhere = replace(found, boxes_S4=np.full_like(found.boxes_S4, np.nan))
    assert set(map(type, payload(nowhere)["boxes"])) == {type(None)}
    nowhere.save(tmp_path / "out")
    with Browser(chromium(), tmp_path / "profile") as page:
        page.open(tmp_path / "out/index.html", READY)
        choose(page)
        assert "no places known" in page.run("document.getElementById('most').textContent")
        assert "is on the image (chance" in shown(page)[0]
        assert not page.problems()


def test_boxes_of_any_shape_and_overlap_are_painted_where_they_lie(look, tmp_path):
    """Attention on one token of an irregular set lights its box, in the pixels of the original image."""
    found, _ = look
    boxes_S4 = np.full_like(found.boxes_S4, np.nan)
    boxes_S4[found.image_T[:4]] = [(0, 0, 90, 60), (10, 5, 33, 25), (33, 5, 70, 25), (10, 25, 70, 55)]
    rows = np.zeros_like(found.word_values["rows"])
    rows[..., found.image_T[1]] = 1
    planted = replace(found, boxes_S4=boxes_S4, sinks=[], word_values=found.word_values | {"rows": rows})
    planted.save(tmp_path / "out")
    with Browser(chromium(), tmp_path / "profile") as page:
        page.open(tmp_path / "out/index.html", READY)
        choose(page)
        lit = page.run(
            "(() => { const c = document.querySelector('#images canvas'), s = c.width / 90, "
            "at = (x, y) => c.getContext('2d').getImageData(Math.floor(s * x), Math.floor(s * y), 1, 1);"
            "return [[11, 6], [32, 24], [9, 6], [34, 24], [11, 26], [11, 4]].map(p => at(...p).data[0]) })()"
        )
        dark = 128 * (1 - page.run("VEIL"))
        assert min(lit[:2]) > 150 and lit[2:] == pytest.approx([dark] * 4, abs=2)
