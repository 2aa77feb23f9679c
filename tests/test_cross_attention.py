"""Models that read images by cross-attention in look, ground, faithfulness, knockout and doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from look_tiny import ANSWER, PATCH, PROMPT, SIZE, photo
from PIL import Image
from tiny_checkpoints import mllama

from attention_atlas.capture.cross_boxes import image_keys
from attention_atlas.data.phrase_boxes import Example
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.ground.attend import RowCapture
from attention_atlas.ground.scene import Scene
from attention_atlas.interventions import faithfulness
from attention_atlas.interventions.answers import answer_log_probs, answered
from attention_atlas.interventions.curves import BASELINES, Hidden
from attention_atlas.interventions.knockout import knock_out
from attention_atlas.interventions.relevance import (
    METHODS,
    attention_gradients,
    chefer,
    image_tokens,
    relevance,
)
from attention_atlas.look import Atlas, diagnose
from attention_atlas.look.load import load
from attention_atlas.look.page import payload
from attention_atlas.look.things import shares_in_boxes

CROSS = [1, 3]  # of four layers
TILE = 1 + (SIZE // PATCH) ** 2  # keys of a tile: a class token and its patches
WITHOUT_ROLLOUT = [name for name in METHODS if name != "rollout"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mllama(tmp_path_factory.mktemp("mllama"))


@pytest.fixture(scope="module")
def tiny(folder: Path) -> tuple[Any, Any]:
    return load(str(folder), "cpu", "float32")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A wide image, which becomes 2 × 2 tiles with empty patches, and a tall one of 3 × 1 tiles."""
    at = tmp_path_factory.mktemp("photos")
    return [photo(at / "wide.png"), photo(at / "tall.png", 48, 144, 1)]


def eager(model: Any, whole: Any) -> torch.Tensor:
    """(L,H,S,K) of the layers with cross-attention, by transformers' own code."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        made = model(**whole.inputs, output_attentions=True)
    model.set_attn_implementation("sdpa")
    return torch.stack([made.attentions[layer][0] for layer in CROSS])


def case_of(tiny: tuple[Any, Any], image: Any, answer: str | None = ANSWER) -> Any:
    return answered(*tiny, image, PROMPT, answer)


# Geometry --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(60, 90), (48, 96), (144, 48), (64, 192), (300, 100), (31, 17)])
def test_a_planted_patch_lands_in_the_key_of_its_box(size: tuple[int, int], tiny: tuple[Any, Any]) -> None:
    """Each patch with a place shows most of the light in its box, and no other patch shows more."""
    model, processor = tiny
    images = processor.image_processor

    def pixels(image: np.ndarray) -> Any:
        plain = {"do_normalize": False, "do_rescale": False, "resample": 0}
        return images(images=Image.fromarray(image), return_tensors="pt", **plain)

    keys = image_keys(model.config, pixels(np.zeros((*size, 3), np.uint8)), [size])
    assert len(keys.roles) == 4 * TILE and keys.roles[0] == "class"
    boxes = keys.boxes_K4.numpy()
    placed = [k for k, role in enumerate(keys.roles) if role == "image"]
    assert np.isfinite(boxes[placed]).all() and np.isnan(np.delete(boxes, placed, 0)).all()
    area = (boxes[placed, 2] - boxes[placed, 0]) * (boxes[placed, 3] - boxes[placed, 1])
    assert area.sum() == pytest.approx(size[0] * size[1], rel=1e-4)  # the whole image, once
    for key in placed:
        left, top, right, bottom = np.rint(boxes[key]).astype(int)
        image = np.zeros((*size, 3), np.uint8)
        image[top : max(bottom, top + 1), left : max(right, left + 1)] = 255
        light_CTHW = pixels(image)["pixel_values"][0, 0].float().mean(1)  # tile, height, width
        cells = light_CTHW.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).sum((-1, -2)).flatten(1)
        light_K = torch.cat([torch.zeros(4, 1), cells], 1).flatten()
        assert int(light_K.argmax()) == key and light_K[key] > 0.5 * light_K.sum()


def test_a_padded_batch_is_not_confused(tiny: tuple[Any, Any], images: list[Path]) -> None:
    model, processor = tiny
    wide, tall = (Image.open(path) for path in images)
    texts = [f"<|image|><|image|>{PROMPT}", f"<|image|>{PROMPT}"]
    inputs = processor(text=texts, images=[[wide, tall], [tall]], return_tensors="pt", padding=True)
    sizes = [wide.size[::-1], tall.size[::-1], tall.size[::-1]]
    first, second = (image_keys(model.config, inputs, sizes, row=row) for row in (0, 1))
    alone = image_keys(
        model.config, processor(text=texts[1], images=tall, return_tensors="pt"), [tall.size[::-1]]
    )
    half = 4 * TILE
    assert first.roles[half:] == second.roles[:half] == alone.roles
    assert second.roles[half:] == ["pad"] * half and set(second.image_K[half:].tolist()) == {-1}
    assert set(first.image_K[:half].tolist()) == {0} and set(first.image_K[half:].tolist()) == {1, -1}
    assert second.image_K[0] == 2 and alone.roles[-TILE:] == ["pad"] * TILE
    torch.testing.assert_close(first.boxes_K4[half:], alone.boxes_K4, equal_nan=True)
    # The model masks what is called padding, and nothing else.
    with torch.no_grad():
        model.set_attn_implementation("eager")
        attn = model(**inputs, output_attentions=True).attentions[CROSS[0]]
        model.set_attn_implementation("sdpa")
    for row, keys in enumerate((first, second)):
        seen_K = (attn[row, :, -1] > 0).all(0)
        assert seen_K.tolist() == [role != "pad" for role in keys.roles]
    with pytest.raises(AtlasError, match="1 sizes, but the inputs hold 3 images"):
        image_keys(model.config, inputs, sizes[:1])


# Look ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_numbers_are_those_of_the_eager_matrices(
    count: int, tiny: tuple[Any, Any], images: list[Path]
) -> None:
    look = Atlas(*tiny).look(images[:count], PROMPT, ANSWER)
    attn_LHSK = eager(tiny[0], case_of(tiny, images[:count]).whole).numpy()
    assert (
        look.layers == look.kept == CROSS and attn_LHSK.shape[-1] == len(look.key_roles) == count * 4 * TILE
    )
    first = min(word.rows[0] for word in look.words)
    np.testing.assert_allclose(look.values["mass"][:, :, first:].sum(-1), 1, atol=1e-5)
    for g, group in enumerate(look.groups):
        member_K = np.array(look.key_roles) == group
        np.testing.assert_allclose(look.values["mass"][..., g], attn_LHSK[..., member_K].sum(-1), atol=1e-5)
    entropy = -(attn_LHSK * np.log(np.where(attn_LHSK > 0, attn_LHSK, 1))).sum(-1)
    np.testing.assert_allclose(look.values["entropy"], entropy, atol=1e-4)
    image = look.groups.index("image")
    for w, word in enumerate(look.words):
        rows_LHK = attn_LHSK[:, :, word.rows].mean(2)
        np.testing.assert_allclose(look.word_values["rows"][:, :, w], rows_LHK, atol=1e-5)
        visible_K = attn_LHSK[0, 0, word.rows[0]] > 0
        is_image_K = np.array(look.key_roles) == "image"
        chance = (visible_K & is_image_K).sum() / visible_K.sum()
        np.testing.assert_allclose(look.statistics["chance"][:, w, image], chance, atol=1e-6)
    mass = look.statistics["mass"][..., image]
    assert mass.min() > 0 and mass.max() < 1
    # Norm-based, by hand: α times the norm of what a key's value becomes.
    model = tiny[0].model.language_model.layers[CROSS[1]].cross_attn
    seen: list[torch.Tensor] = []
    hook = model.v_proj.register_forward_hook(lambda m, args, out: seen.append(out[:].detach()))
    case = case_of(tiny, images[:count])
    with torch.no_grad():
        tiny[0](**case.whole.inputs)
    hook.remove()
    value_KHD = seen[0].reshape(-1, model.num_key_value_heads, model.head_dim)
    value_KHD = value_KHD.repeat_interleave(model.num_key_value_groups, 1)
    weight_HDM = model.o_proj.weight.T.reshape(model.num_heads, model.head_dim, -1)
    norm_HK = torch.einsum("khd,hdm->hkm", value_KHD, weight_HDM).norm(dim=-1).detach().numpy()
    wanted = attn_LHSK[1][:, look.words[2].rows].mean(1) * norm_HK
    np.testing.assert_allclose(look.word_values["norm_rows"][1, :, 2], wanted, atol=1e-5, rtol=1e-4)
    owner = look.image_S[look.image_T]
    assert set(owner.tolist()) == set(range(count)) and np.isfinite(look.boxes_S4[look.image_T]).all()


def alone(model: Any) -> None:
    """Let every patch pass the vision tower by itself."""
    vision = model.model.vision_model
    with torch.no_grad():
        for layer in [*vision.transformer.layers, *vision.global_transformer.layers]:
            layer.self_attn.o_proj.weight.zero_()


@pytest.mark.parametrize("which", [0, 1])
def test_a_planted_patch_changes_the_attention_to_its_key_alone(which: int, folder: Path) -> None:
    """In a row all weights change by the same factor, but that of the patch whose pixels are another colour.
    Two images that are not square; the patch lies in either."""
    model, processor = load(str(folder), "cpu", "float32")
    alone(model)
    atlas, sizes = Atlas(model, processor), [(90, 60), (48, 144)]
    plain = [Image.new("RGB", size, (60, 60, 60)) for size in sizes]
    before = atlas.look(plain, PROMPT, ANSWER)
    places = [k for k in before.image_T if before.image_S[k] == which]
    for key in places[:: max(1, len(places) // 5)]:
        left, top, right, bottom = np.rint(before.boxes_S4[key]).astype(int)
        painted = [image.copy() for image in plain]
        painted[which].paste((250, 40, 200), (left, top, right, bottom))
        after = atlas.look(painted, PROMPT, ANSWER)
        real = np.array(before.key_roles) != "pad"
        # The first layer with cross-attention, since later ones get other queries; words of one token.
        one = [w for w, word in enumerate(before.words) if len(word.rows) == 1]
        old, new = (look.word_values["rows"][0][:, one][..., real] for look in (before, after))
        factor = np.log(new) - np.log(old)
        off_K = np.abs(factor - np.median(factor, -1, keepdims=True)).max((0, 1))
        at = int(real[:key].sum())
        assert off_K[at] > 0.05 and np.delete(off_K, at).max() < 1e-3, (key, off_K.argsort()[-3:])
    # Control: the same image again changes nothing.
    again = atlas.look(plain, PROMPT, ANSWER)
    np.testing.assert_array_equal(again.word_values["rows"], before.word_values["rows"])


def test_files_and_page(tiny: tuple[Any, Any], images: list[Path], tmp_path: Path) -> None:
    from attention_atlas.recording import StatisticsStore

    look = Atlas(*tiny).look(images, PROMPT, max_new_tokens=4)
    assert look.generated and len(look.notes) == 2 and "layers 1, 3" in look.notes[0]
    assert "class tokens" in look.notes[0] and "no rollout" in look.notes[1]
    look.save(tmp_path / "out")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["attention"] == "cross" and summary["layers"] == summary["layers_with_maps"] == CROSS
    boxes = {token["position"]: token for token in summary["image_tokens"]}
    assert list(boxes) == look.image_T.tolist() and all(None not in t["box"] for t in boxes.values())
    for w, word in enumerate(summary["words"]):
        best = word["strongest"][0]
        assert best["position"] in boxes
        rows_T = look.word_values["rows"][:, :, w][..., look.image_T].mean((0, 1))
        assert best["share"] == pytest.approx(rows_T.max(), abs=1e-6)
    with StatisticsStore(tmp_path / "out/statistics.h5") as store:
        np.testing.assert_allclose(store.read("look", "words", "rows"), look.word_values["rows"])
        np.testing.assert_allclose(store.read("look", "cross", "mass"), look.values["mass"])
    data = payload(look)
    assert set(data["maps"]) == {"raw", "norm"} and data["layers"] == CROSS
    assert sorted(set(data["image"])) == [0, 1] and None not in data["boxes"]
    with pytest.raises(ConfigError, match="--layers: 0 is outside 1, 3; give numbers of layers with such"):
        Atlas(*tiny).look(images, PROMPT, ANSWER, layers=[0])
    assert Atlas(*tiny).look(images, PROMPT, ANSWER, layers=[3]).kept == [3]
    assert Atlas(*tiny).look(images, PROMPT, ANSWER, budget=1).kept == [3]


def test_boxes_get_the_attention_to_the_keys_inside_them(tiny: tuple[Any, Any], images: list[Path]) -> None:
    wide, tall = (Image.open(path).size for path in images)
    box = (10.0, 4.0, 37.0, 31.0)
    boxes = [
        Example(images[0], "all", [(0, 0, *wide)]),
        Example(images[0], "part", [box]),
        Example(images[1], "all", [(0, 0, *tall)]),
    ]
    look = Atlas(*tiny).look(images, PROMPT, ANSWER, boxes=boxes)
    attn_LHSK = eager(tiny[0], case_of(tiny, images).whole).numpy()
    found_MHWN = shares_in_boxes(look)
    assert [thing.image for thing in look.things] == [0, 0, 1]
    for w, word in enumerate(look.words):
        row_LHK = attn_LHSK[:, :, word.rows].mean(2)
        expected = np.zeros((3, *row_LHK.shape[:2]))
        for k, (left, top, right, bottom) in enumerate(look.boxes_S4):
            if look.key_roles[k] != "image":
                continue
            expected[2 * int(look.image_S[k])] += row_LHK[..., k]
            if look.image_S[k] == 0:
                width = max(0, min(right, box[2]) - max(left, box[0]))
                height = max(0, min(bottom, box[3]) - max(top, box[1]))
                expected[1] += row_LHK[..., k] * width * height / ((right - left) * (bottom - top))
        np.testing.assert_allclose(np.moveaxis(found_MHWN[:, :, w], -1, 0), expected, atol=1e-5)
    assert not look.is_vision and 0 < found_MHWN[..., 1].max() < found_MHWN[..., 0].max()


def test_words_before_the_image_attend_to_padding_and_a_note_says_so(
    tiny: tuple[Any, Any], images: list[Path]
) -> None:
    look = Atlas(*tiny).look(images[1], f"the ball <|image|> {PROMPT}", ANSWER)
    assert any("before the image" in note for note in look.notes)
    pad_K = np.array(look.key_roles) == "pad"
    before = look.word_values["rows"][:, :, [w.text for w in look.words].index("ball")]
    assert pad_K.any() and (before[..., pad_K] > 0).all()
    image = look.groups.index("image")
    share = np.mean(np.array(look.key_roles) == "image")
    np.testing.assert_allclose(look.statistics["chance"][:, 0, image], share, atol=1e-6)
    after = look.word_values["rows"][:, :, [w.text for w in look.words].index("color")]
    assert not after[..., pad_K].any()


def test_the_sequence_has_one_bos(tiny: tuple[Any, Any], images: list[Path]) -> None:
    assert Atlas(*tiny).look(images[0], PROMPT, ANSWER).roles.count("bos") == 1


# Ground ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["phrase", "last"])
def test_ground_maps_are_rows_of_the_eager_matrices(
    query: str, tiny: tuple[Any, Any], images: list[Path]
) -> None:
    model, processor = tiny
    scene, capture = Scene(model, processor, "where is the {phrase}?", query), RowCapture(model)
    for path in images:
        example = Example(path, "ball", [(0, 0, 20, 20)])
        inputs, rows, placed, places = scene.of(example)
        layers, map_LHT = capture.maps(inputs, rows, placed, scene.keys)
        attn_LHSK = eager(model, type("Whole", (), {"inputs": inputs}))
        assert layers == CROSS and len(placed) == len(places.boxes_T4) < scene.keys
        torch.testing.assert_close(map_LHT, attn_LHSK[:, :, rows].mean(2)[..., placed], atol=1e-5, rtol=0)
    assert not capture.notes


# Interventions ---------------------------------------------------------------------------------------


def test_relevance_is_that_of_the_eager_matrices_and_gradients(
    tiny: tuple[Any, Any], images: list[Path]
) -> None:
    model, _ = tiny
    case = case_of(tiny, images[0])
    found, notes = relevance(model, case)
    assert list(found) == WITHOUT_ROLLOUT and notes == [
        "no rollout: it is defined for self-attention (Abnar and Zuidema 2020)"
    ]
    attention, gradient, crossing = attention_gradients(model, case)
    assert [n for n, cross in enumerate(crossing) if cross] == CROSS
    model.set_attn_implementation("eager")
    out = model(**case.whole.inputs, output_attentions=True)
    log_NV = out.logits[0].log_softmax(-1)
    y = sum(log_NV[row, token] for row, token in zip(case.rows, case.new, strict=True))
    wanted = torch.autograd.grad(y, out.attentions)
    model.set_attn_implementation("sdpa")
    for n, (a, g) in enumerate(zip(attention, gradient, strict=True)):
        torch.testing.assert_close(a, out.attentions[n][0].detach(), atol=1e-5, rtol=0)
        torch.testing.assert_close(g, wanted[n][0], atol=1e-4, rtol=1e-3)
    image_T = image_tokens(model, case)
    attn = torch.stack([out.attentions[n][0].detach() for n in CROSS]).numpy()[:, :, case.rows][..., image_T]
    np.testing.assert_allclose(found["attention"], attn.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(found["attention_last"], attn[-1].mean((0, 1)), atol=1e-6)
    product = [(out.attentions[n][0] * wanted[n][0]).clamp(min=0).mean(0).sum(0) for n in CROSS]
    by_hand = torch.stack(product).mean(0)[image_T].detach().numpy()
    np.testing.assert_allclose(found["gradient_attention"], by_hand, atol=1e-5, rtol=1e-3)


def test_chefers_rules_for_cross_attention_by_loops() -> None:
    rng = np.random.default_rng(0)
    S, K, H = 4, 3, 2
    crossing = [False, True, False, True]
    attn = [rng.random((H, S, K if cross else S)) for cross in crossing]
    grad = [rng.normal(size=a.shape) for a in attn]
    for a, cross in zip(attn, crossing):
        if not cross:
            a *= np.tril(np.ones((S, S)))
    R_SS, R_SK = np.eye(S), np.zeros((S, K))
    for a, g, cross in zip(attn, grad, crossing):
        bar = np.maximum(a * g, 0).mean(0)
        old_SS, old_SK = R_SS.copy(), R_SK.copy()
        for i in range(S):
            for j in range(S):
                if cross:  # eq. 8 to 10: R_sq += (I + (R_ss − I) / row sums)ᵀ Ā
                    total = old_SS[j].sum() - 1
                    share = (old_SS[j, i] - (i == j)) / total if total > 0 else 0.0
                    R_SK[i] += (share + (i == j)) * bar[j]
                else:
                    R_SS[i] += bar[i, j] * old_SS[j]
                    R_SK[i] += bar[i, j] * old_SK[j]
    found = chefer(*([torch.tensor(x).float() for x in y] for y in (attn, grad)), [0, 2], crossing)
    np.testing.assert_allclose(found, R_SK[:, [0, 2]], rtol=1e-4, atol=1e-6)
    assert np.abs(R_SK).max() > 0.1


def test_hidden_states_are_their_mean(tiny: tuple[Any, Any], images: list[Path]) -> None:
    model, processor = tiny
    case = case_of(tiny, images[0])
    image_T = image_tokens(model, case)
    hidden = Hidden(model, processor, case, image_T, "embedding")
    mask = np.arange(len(image_T)) < 7
    inputs = dict(case.whole.inputs)
    vision = {name: inputs.pop(name) for name in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")}
    with torch.no_grad():
        states = model.model.multi_modal_projector(model.model.vision_model(**vision).last_hidden_state)
        flat = states.reshape(-1, states.shape[-1])
        flat[image_T[:7]] = flat[image_T].mean(0)
        states = flat.reshape(-1, *states.shape[-2:])
        log_NV = model(**inputs, cross_attention_states=states).logits[0].log_softmax(-1)
    wanted = sum(float(log_NV[row, token]) for row, token in zip(case.rows, case.new, strict=True))
    assert hidden(mask) == pytest.approx(wanted, abs=1e-4) and hidden(mask) != hidden(~mask)


@pytest.mark.parametrize("baseline", BASELINES)
def test_faithfulness_and_a_model_that_ignores_the_image(
    baseline: str, folder: Path, images: list[Path]
) -> None:
    model, processor = load(str(folder), "cpu", "float32")
    examples = [(path, PROMPT, ANSWER) for path in images]
    league = faithfulness(model, processor, examples, baseline=baseline, steps=2, draws=2)
    assert set(league.methods) == {*WITHOUT_ROLLOUT, "centre_first", "random"}
    for example, path in zip(league.examples, images):
        with torch.no_grad():
            plain = float(answer_log_probs(model, case_of((model, processor), path).whole).sum())
        assert example.shown == pytest.approx(plain, abs=1e-5) and abs(plain - example.hidden) > 1e-3
    # Control: gates that are shut.
    with torch.no_grad():
        for layer in CROSS:
            for name, parameter in model.model.language_model.layers[layer].named_parameters():
                if name.endswith("gate"):
                    parameter.zero_()
    blind = faithfulness(model, processor, examples, baseline=baseline, steps=2, draws=2)
    for example in blind.examples:
        every = [v for by in example.curves.values() for v in by.values()] + [example.random_DK]
        assert max(np.ptp(v) for v in every) < 1e-5
        assert not example.relevance["gradient_attention"].any() and not example.relevance["chefer"].any()


def test_a_cut_of_all_cross_attention_leaves_nothing_of_the_image(
    tiny: tuple[Any, Any], images: list[Path]
) -> None:
    other = photo(images[0].with_name("other.png"), seed=7)
    found = knock_out(*tiny, images[0], PROMPT, ANSWER, other=other, cuts=["text-image"], windows=4)
    by_window = {(cut.first, cut.last): n for n, cut in enumerate(found.cuts)}
    whole = by_window[0, 3]
    np.testing.assert_allclose(found.cut_CN[whole], found.other_CN[whole], atol=1e-4)
    np.testing.assert_allclose(found.net_CN[whole], found.other_plain_N - found.plain_N, atol=1e-4)
    assert np.abs(found.net_CN[whole]).max() > 1e-2
    # A layer of cross-attention alone withholds something.
    assert all(np.abs(found.change_CN[by_window[n, n]]).max() > 1e-3 for n in CROSS)


def test_doctor_compares_cross_attention_too(tiny: tuple[Any, Any], images: list[Path]) -> None:
    found = diagnose(*tiny, images[0], PROMPT, max_new_tokens=3)
    assert found.healthy and found.reference == "sdpa" and not found.outside
    for name in ("eager", "capture: fused", "capture: materialised"):
        assert {m.part for m in found[name].maps} == {"vision", "decoder", "cross"}
        assert found[name].largest < 1e-5 and found[name].logits < 1e-5
    few = diagnose(*tiny, images[0], PROMPT, ANSWER, layers=[1, 2])
    assert {(m.part, m.layer) for m in few["eager"].maps} == {("cross", 1), ("decoder", 2)}
