"""Vision LLMs: packed texts equal texts alone, the tower is CLIP's in both, inputs by hand, a model read from
its folder says the same, blind is blind."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from vlm_world import TEXTS, VISION, tiny, tiny_text, tiny_tokenizer

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.vlm.clip_tower import ClipTower, clip_vision, vision_config
from attention_atlas.models.vlm.inputs import IGNORED, VlmInputs, mini_inputs
from attention_atlas.models.vlm.instructblip import ALIKE, InstructBlip, alikeness, take_clip
from attention_atlas.models.vlm.loaded import LoadedVlm
from attention_atlas.models.vlm.packed import pack, seen
from attention_atlas.models.vlm.samples import Sample
from attention_atlas.models.vlm.text_model import LlamaText, llama_config
from attention_atlas.models.vlm.tokenizer import IMAGE, load_tokenizer, save_tokenizer, train_tokenizer

KINDS = ("llava", "instructblip")


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i, size in enumerate(((48, 48), (60, 48), (48, 90))):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(paths[-1])
    return paths


def samples(images):
    return [
        Sample("a", "0", images[0], TEXTS[0], TEXTS[1]),
        Sample("b", "1", images[1], "what color is it?", "blue"),
        Sample("c", "2", images[2], TEXTS[0], "a red block"),
    ]


def test_tokenizer_joins_words_and_keeps_marks_apart(tokenizer, tmp_path):
    ids = tokenizer("USER: <image><image> Describe the picture. ASSISTANT:")["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert pieces[:4] == ["<s>", "USER:", IMAGE, IMAGE] and pieces[-1] == "ASSISTANT:"
    words = "".join(pieces[4:-1]).replace("▁", " ").strip()
    assert words == "describe the picture."
    assert (
        tokenizer.decode(tokenizer("a red block.")["input_ids"], skip_special_tokens=True) == "a red block."
    )
    assert tokenizer("zzz")["input_ids"].count(tokenizer.unk_token_id) == 1
    save_tokenizer(tokenizer, tmp_path)
    again = load_tokenizer(tmp_path)
    assert again("a blue block?")["input_ids"] == tokenizer("a blue block?")["input_ids"]
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(AtlasError, match="not a tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match="raise it"):
        train_tokenizer(TEXTS, 10)


def test_rows_roles_and_spans_by_hand(tokenizer, images):
    model = tiny("llava", tokenizer)
    loaded = LoadedVlm("m", model.model, mini_inputs(model, tokenizer))
    some = samples(images)
    inputs = loaded.batch(some)
    (start, stop), *_ = loaded.text_spans(some)
    text = tokenizer(some[0].text, add_special_tokens=False)["input_ids"]
    assert inputs["input_ids"][0, start:stop].tolist() == text
    roles = loaded.roles(inputs)
    assert (
        roles[0][:2] == ["bos", "text"] and roles[0][2:11] == ["image"] * 9 and roles[0].count("image") == 9
    )
    assert roles[1][-1] == "pad" and inputs["attention_mask"][1, -1] == 0
    assert loaded.grid == (3, 3) and inputs["pixel_values"].shape == (3, 3, 48, 48)
    assert loaded.tokens(text)[0] == "▁a"

    model = tiny("instructblip", tokenizer)
    loaded = LoadedVlm("m", model.model, mini_inputs(model, tokenizer))
    roles = loaded.roles(loaded.batch(some))
    assert roles[0][:7] == ["image"] * 5 + ["bos", "text"] and loaded.grid is None


@pytest.mark.parametrize("kind", KINDS)
def test_packed_texts_cost_what_they_cost_alone(kind, tokenizer, images):
    model = tiny(kind, tokenizer)
    inputs = mini_inputs(model, tokenizer)
    loaded = LoadedVlm("m", model.model, inputs)
    a, _, c = samples(images)
    groups = [[a, Sample("d", "0", a.image, a.prompt, "a blue block on the right")], [c]]
    rows = [inputs.rows(group, end=True) for group in groups]
    batch = pack(rows, model.image_token_id, inputs.pad)
    batch["features"] = model.features(inputs.pixels([g[0].image for g in groups]))
    prompt = torch.tensor([tokenizer(a.prompt)["input_ids"]] * 2)
    batch |= {"qformer_input_ids": prompt, "qformer_attention_mask": torch.ones_like(prompt)}
    with torch.no_grad():
        found = float(model.loss(batch))
    total = count = 0
    for group in groups:
        for sample in group:
            [(value, number)] = loaded.log_prob([sample])
            total, count = total - value, count + number
    assert int((batch["labels"] != IGNORED).sum()) == count
    assert found == pytest.approx(total / count, rel=1e-4)


def test_what_a_packed_text_sees_by_hand():
    segment = torch.tensor([[0, 0, 1, 2, 2, -1]])
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert seen(segment)[0].int().tolist() == expected
    # 9 is the image; the learned texts are 7 8 and 6.
    packed = pack([[([1, 9, 9, 5, 7, 8], 4), ([1, 9, 9, 4, 6], 4)], [([1, 9, 9, 5, 3], 4)]], 9, 0)
    assert packed["input_ids"].tolist() == [[1, 9, 9, 5, 7, 8, 4, 6], [1, 9, 9, 5, 3, 0, 0, 0]]
    assert packed["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 3, 4], [0, 1, 2, 3, 4, 0, 0, 0]]
    x = IGNORED
    assert packed["labels"].tolist() == [[x, x, x, 7, 8, x, 6, x], [x, x, x, 3, x, x, x, x]]


def test_both_towers_give_what_clip_gives():
    for stem in ([4], []):
        torch.manual_seed(0)
        clip = clip_vision(VISION, stem).eval()
        clip.pre_layrnorm.weight.data.uniform_(0.5, 1.5)
        clip.pre_layrnorm.bias.data.normal_()
        for parameter in clip.encoder.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        tokenizer = tiny_tokenizer()
        model = tiny("instructblip", tokenizer)
        if not stem:
            model = InstructBlip(VISION, tiny_text(len(tokenizer)), 4, queries=5, qformer_heads=2).eval()
        take_clip(model.vision, clip)
        pixels = torch.randn(2, 3, 48, 48)
        with torch.no_grad():
            want = clip(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
            normed = torch.nn.functional.layer_norm(want, (16,), eps=VISION["layer_norm_eps"])
            assert torch.allclose(model.features(pixels), normed, atol=1e-4)


def test_llava_reads_the_last_layer_but_one_without_class_token(tokenizer, images):
    model = tiny("llava", tokenizer)
    inputs = mini_inputs(model, tokenizer)
    pixels = inputs.pixels(images)
    with torch.no_grad():
        own = model.model.get_image_features(pixel_values=pixels).pooler_output
        assert torch.allclose(
            model.project({"features": model.features(pixels)}), torch.stack(list(own)), atol=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
def test_visual_tokens_start_standardised_and_as_long_as_words(kind, tokenizer):
    model = tiny(kind, tokenizer)
    torch.manual_seed(1)
    pixels = torch.randn(6, 3, 48, 48)
    features = model.features(pixels)
    words = model.language_model.embed_tokens.weight.norm(dim=-1).mean()
    model.standardise(features)
    if kind == "llava":
        seen = []
        model.projector.linear_1.register_forward_hook(lambda module, args, output: seen.append(output))
        images = model.project({"features": features})
        first = model.projector.linear_1
        units = (features - features.mean((0, 1))) / features.std((0, 1))
        assert torch.allclose(seen[0], units @ first.weight.T + first.bias, atol=1e-4)
    else:
        standard = model.features(pixels)[:, 1:]
        assert torch.allclose(standard.mean((0, 1)), torch.zeros(16), atol=1e-4)
        assert torch.allclose(standard.std((0, 1)), torch.ones(16), atol=1e-3)
        prompt = torch.tensor([tokenizer(TEXTS[0])["input_ids"]] * 6)
        images = model.project(
            {
                "features": model.features(pixels),
                "qformer_input_ids": prompt,
                "qformer_attention_mask": torch.ones_like(prompt),
            }
        )
    assert images.norm(dim=-1).mean().item() == pytest.approx(words.item(), rel=0.25)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_language_model_stays_tied(kind, tokenizer):
    text = LlamaText(len(tokenizer), 3, 4, 2, 16, 24, tied=True)
    assert text.model.lm_head.weight is text.model.model.embed_tokens.weight
    model = tiny(kind, tokenizer, tied=True)
    model.start(clip_vision(VISION, [4]), text.model)
    assert model.head.weight is model.language_model.embed_tokens.weight
    assert torch.equal(model.head.weight, text.model.lm_head.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_the_image_and_the_instruction_matter(kind, tokenizer, images):
    model = tiny(kind, tokenizer)
    loaded = LoadedVlm("m", model.model, mini_inputs(model, tokenizer))
    some = samples(images)
    own = loaded.log_prob(some)
    turned = loaded.log_prob(some, images=[*images[1:], images[0]])
    assert all(abs(a - b) > 1e-4 for (a, _), (b, _) in zip(own, turned))
    alone = [loaded.log_prob([s])[0] for s in some]  # padding changes nothing
    assert np.allclose([a for a, _ in own], [a for a, _ in alone], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_written_texts_are_the_most_probable_tokens(kind, tokenizer, images):
    model = tiny(kind, tokenizer)
    loaded = LoadedVlm("m", model.model, mini_inputs(model, tokenizer))
    some = [s for s in samples(images) if s.prompt == TEXTS[0]]  # of one length, so without padding
    texts = loaded.write([*some, samples(images)[1]], longest=4)
    for text, sample in zip(texts, some):
        inputs = loaded.batch([Sample("x", "x", sample.image, sample.prompt)])
        ids = []
        for _ in range(4):
            with torch.no_grad():
                best = int(model.model(**inputs).logits[0, -1].argmax())
            ids.append(best)
            if best == tokenizer.eos_token_id:
                break
            for name, value in (("input_ids", best), ("attention_mask", 1)):
                inputs[name] = torch.cat([inputs[name], torch.tensor([[value]])], 1)
        assert text == tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_unembedding_is_the_models_own_last_step(tokenizer, images):
    for kind in KINDS:
        model = tiny(kind, tokenizer)
        loaded = LoadedVlm("m", model.model, mini_inputs(model, tokenizer))
        kept: list = []
        handle = loaded.decoder_layers[-1].register_forward_hook(
            lambda *call, into=kept: into.append(call[2])
        )
        with torch.no_grad():
            logits = model.model(**loaded.batch(samples(images))).logits
        handle.remove()
        hidden = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
        assert torch.allclose(loaded.unembed(hidden), logits, atol=1e-5)
        assert not torch.allclose(loaded.unembed(hidden, normalise=False), logits, atol=1e-2)


def test_the_blind_model_has_no_image(tokenizer, images):
    model = tiny("llava", tokenizer, blind=True)
    inputs = mini_inputs(model, tokenizer)
    loaded = LoadedVlm("m", model.model, inputs)
    batch = loaded.batch(samples(images))
    assert "pixel_values" not in batch and "image" not in {r for row in loaded.roles(batch) for r in row}
    own = loaded.log_prob(samples(images))
    assert own == loaded.log_prob(samples(images), images=[*images[1:], images[0]])


def test_contrastive_loss_by_hand():
    torch.manual_seed(0)
    tower = ClipTower(30, 2, layers=2, heads=2, dim=16, inner=24, image_size=32, patch_size=16, text_layers=1)
    for parameter in tower.parameters():
        parameter.data.zero_()
    ids = torch.tensor([[1, 7, 3], [1, 8, 3]])
    batch = {
        "pixels_BCHW": torch.randn(2, 3, 32, 32),
        "ids_BT": ids,
        "mask_BT": torch.ones_like(ids),
        "shown_BPW": torch.tensor([[[1.0, 0.0]] * 4, [[-1.0, -1.0]] * 4]),
    }
    found = tower.losses(batch, 0.5)
    # All scores equal: one of two images; all logits 0: ln 2 for each of two words.
    assert found["contrastive"].item() == pytest.approx(math.log(2))
    assert found["shown"].item() == pytest.approx(0.5 * 2 * math.log(2))


def test_the_head_on_patches_starts_with_the_words_frequencies():
    tower = ClipTower(30, 2, layers=2, heads=2, dim=16, inner=24, image_size=32, patch_size=16, text_layers=1)
    tower.expect_words(torch.tensor([0.25, 0.0]))
    bias = tower.patch_words.bias.tolist()
    assert bias == pytest.approx([math.log(0.25 / 0.75), math.log(1e-4 / (1 - 1e-4))], rel=1e-4)


def test_the_text_side_reads_up_to_the_end_mark():
    torch.manual_seed(0)
    tower = ClipTower(30, layers=2, heads=2, dim=16, inner=24, image_size=32, patch_size=16, text_layers=2)
    short = torch.tensor([[1, 20, 3]])
    long = torch.tensor([[1, 20, 3, 0, 0]])
    with torch.no_grad():
        a = tower.read(short, torch.ones_like(short))
        b = tower.read(long, torch.tensor([[1, 1, 1, 0, 0]]))
        c = tower.read(torch.tensor([[1, 21, 3]]), torch.ones_like(short))
    assert torch.allclose(a, b, atol=1e-5) and not torch.allclose(a, c, atol=1e-3)


def test_text_loss_by_hand():
    torch.manual_seed(0)
    text = LlamaText(20, layers=2, heads=2, kv_heads=1, dim=8, inner=12)
    text.model.lm_head.weight.data.zero_()
    ids = torch.tensor([[1, 5, 6, 0]])
    labels = torch.tensor([[5, 6, 3, IGNORED]])
    assert text.loss(ids, labels).item() == pytest.approx(math.log(20))


def test_wrong_sizes_and_inputs_are_named(tokenizer, images, tmp_path):
    with pytest.raises(ConfigError, match="do not divide dim"):
        vision_config(3, 3, 16, 8, 48, 16)
    with pytest.raises(ConfigError, match="does not divide image_size"):
        vision_config(3, 2, 16, 8, 50, 16)
    with pytest.raises(ConfigError, match="at least 2"):
        vision_config(1, 2, 16, 8, 48, 16)
    with pytest.raises(ConfigError, match="rotary"):
        llama_config(20, 2, 4, 4, 20, 8, 64, 0.1)
    with pytest.raises(ConfigError, match="kv_heads"):
        llama_config(20, 2, 4, 3, 16, 8, 64, 0.1)
    with pytest.raises(ConfigError, match="template"):
        VlmInputs(tokenizer, None, "USER:", 4, 9)
    model = tiny("llava", tokenizer)
    inputs = mini_inputs(model, tokenizer)
    with pytest.raises(AtlasError, match="no such image"):
        inputs.pixels([tmp_path / "absent.png"])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(AtlasError, match="not an image"):
        inputs.pixels([tmp_path / "text.png"])
    with pytest.raises(AtlasError, match="is not a vision LLM of transformers"):
        LoadedVlm("x", torch.nn.Linear(2, 2), inputs)


def test_queries_start_apart_and_words_cost_by_hand(tokenizer, images):
    model = tiny("instructblip", tokenizer)
    features = model.features(mini_inputs(model, tokenizer).pixels(images))
    model.place_queries(features.mean(0))
    query_ND = model.model.query_tokens[0]
    places_PD = features.mean(0)[1:]
    # Five queries over nine places: 0, 2, 4, 6, 8.
    expected = places_PD[::2] - places_PD.mean(0)
    assert torch.allclose(query_ND, expected / expected.std(), atol=1e-5)
    with torch.no_grad():
        for parameter in (model.word_head.weight, model.word_head.bias):
            parameter.zero_()
        rows = mini_inputs(model, tokenizer).rows(samples(images)[:1], end=True)
        batch = pack([rows], model.image_token_id, 0) | {"features": features[:1]}
        batch["qformer_input_ids"] = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
        batch["qformer_attention_mask"] = torch.ones_like(batch["qformer_input_ids"])
        plain = float(model.loss(batch))
        batch["words_BV"] = torch.zeros(1, len(tokenizer))
        assert float(model.loss(batch, 0.0)) == pytest.approx(plain)
        queries_BND = model.query(batch)
        unit_ND = torch.nn.functional.normalize(queries_BND[0], dim=-1)
        pairs = [float(unit_ND[i] @ unit_ND[j]) ** 2 for i in range(5) for j in range(i)]
        assert float(alikeness(queries_BND)) == pytest.approx(sum(pairs) / 10, abs=1e-5)
        # A head of zeros gives every word even odds.
        cost = len(tokenizer) * math.log(2) + ALIKE * sum(pairs) / 10
        assert float(model.loss(batch, 0.5)) == pytest.approx(plain + 0.5 * cost, rel=1e-5)
        # One query that sees a word is enough, whatever the others say.
        logits_BNV = torch.full((1, 5, len(tokenizer)), -4.0)
        logits_BNV[0, 2, 3] = 4.0
        head, model.word_head = model.word_head, torch.nn.Module()
        model.word_head.forward = lambda queries_BND: logits_BNV
        batch["words_BV"][0, 3] = 1.0
        seen = math.log((math.exp(4) + 4 * math.exp(-4)) / 5)
        cost = math.log1p(math.exp(-seen)) + (len(tokenizer) - 1) * math.log1p(math.exp(-4))
        assert float(model.words_cost(queries_BND, batch["words_BV"])) == pytest.approx(cost, rel=1e-5)
        model.word_head = head
        model.expect_words(torch.full((len(tokenizer),), 0.25))
        assert model.word_head.bias[0].item() == pytest.approx(math.log(0.25 / 0.75))
