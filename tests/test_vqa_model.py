"""ViLT: patches in order, padding without effect, the blind model blind, soft targets and the losses by
hand.
"""

from __future__ import annotations

import math

import pytest
import torch
from vqa_world import COLOURS, blocks

from attention_atlas.data.corpus import Scene, SceneObject
from attention_atlas.data.patches import shown_on_patches
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.vilt import Vilt
from attention_atlas.training.loop import train
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.tasks.vqa import VqaTask

SMALL = {"layers": 3, "heads": 2, "dim": 16, "inner": 24, "image_size": 48, "patch_size": 16, "max_text": 12}


def small(**more):
    torch.manual_seed(0)
    return Vilt(vocab_size=30, answers=5, **(SMALL | {"initial_std": 0.2} | more)).eval()


def batch(size=(48, 48), number=2):
    generator = torch.Generator().manual_seed(1)
    return {
        "ids_BT": torch.tensor([[1, 5, 6, 7, 2]] * number),
        "pixels_BCHW": torch.rand(number, 3, *size, generator=generator) * 2 - 1,
    }


@torch.no_grad()
def test_patches_are_in_raster_order_for_any_shuffle():
    model, inputs = small(), batch()
    embeddings = model.vilt.embeddings
    plain = embeddings.patch_embeddings(inputs["pixels_BCHW"]).flatten(2).transpose(1, 2)
    expected = plain + embeddings.position_embeddings[:, 1:] + embeddings.token_type_embeddings.weight[1]
    orders = set()
    for seed in range(3):
        torch.manual_seed(seed)
        _, _, (index, _) = embeddings.visual_embed(inputs["pixels_BCHW"], torch.ones(2, 48, 48), -1)
        orders.add(str(index.tolist()))
        torch.manual_seed(seed)
        sequence, mask, shape = model.embed(inputs)
        assert shape == (3, 3) and bool(mask.all())
        assert torch.allclose(sequence[:, -9:], expected, atol=1e-5)
    assert len(orders) == 3  # transformers did shuffle


@torch.no_grad()
def test_output_equals_transformers_own_forward():
    model, inputs = small(), batch()
    own = model.vilt(
        input_ids=inputs["ids_BT"], pixel_values=inputs["pixels_BCHW"], pixel_mask=torch.ones(2, 48, 48)
    )
    assert torch.allclose(model.vilt.pooler(model.encode(inputs)), own.pooler_output, atol=1e-5)


@torch.no_grad()
def test_padding_of_text_and_image_changes_nothing():
    model, inputs = small(), batch(number=1)
    alone = model(inputs)
    padded = {
        "ids_BT": torch.nn.functional.pad(inputs["ids_BT"], (0, 4)),
        # An image in a larger batch: grey at the right and below, and a matching mask.
        "pixels_BCHW": torch.nn.functional.pad(inputs["pixels_BCHW"], (0, 32, 0, 16)),
        "pixel_mask_BHW": torch.nn.functional.pad(torch.ones(1, 48, 48), (0, 32, 0, 16)),
    }
    sequence, mask, shape = model.embed(padded)
    assert shape == (4, 5) and mask.sum() == 5 + 1 + 9
    assert torch.allclose(model.embed(inputs)[0][:, 5:], sequence[:, 9 : 9 + 10], atol=1e-4)
    assert torch.allclose(model(padded), alone, atol=1e-4)
    with pytest.raises(AtlasError, match="images of one size"):
        small(stem=[4, 6])(padded)


@torch.no_grad()
def test_the_blind_model_is_blind_and_the_other_is_not():
    inputs = batch()
    other = inputs | {"pixels_BCHW": -inputs["pixels_BCHW"]}
    assert torch.equal(small(blind=True)(inputs), small(blind=True)(other))
    assert not torch.allclose(small()(inputs), small()(other))


@torch.no_grad()
def test_running_from_a_layer_on_equals_the_whole():
    model, inputs = small(), batch()
    x, mask, _ = model.embed(inputs)
    first = model.run_layer(x, mask, 0)
    assert torch.allclose(model.run_layers(first, mask, 1), model.encode(inputs), atol=1e-6)


@torch.no_grad()
def test_losses_by_hand():
    model = small(patch_words=2)
    for parameter in model.parameters():
        parameter.zero_()
    inputs = batch() | {
        "target_BA": torch.tensor([[1.0, 0, 0, 0, 0], [0.3, 0, 0, 0, 0]]),
        "shown_BPW": torch.tensor([[[1.0, 0]] * 9, [[-1.0, -1]] * 9]),
        "asked_BP": torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0, 0], [-1] * 9]),
    }
    found = model(inputs, (0.5, 2.0))
    ln2 = math.log(2)  # every logit is 0, so each decision costs ln 2 for any target
    assert found["answer"].item() == pytest.approx(5 * ln2)
    assert found["shown"].item() == pytest.approx(0.5 * 2 * ln2)
    assert found["asked"].item() == pytest.approx(2.0 * ln2)


def test_a_published_checkpoint_brings_its_vocabulary(tmp_path):
    """A task with a tokenizer has no vocabulary of its own and gives no size."""
    from transformers import ViltConfig, ViltModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViltModel(ViltConfig(vocab_size=40, image_size=32, patch_size=16, **sizes)).save_pretrained(tmp_path)
    model = Vilt(answers=5, pretrained=str(tmp_path))
    assert model.vilt.config.vocab_size == 40
    with pytest.raises(ConfigError, match="vocab_size: is missing"):
        Vilt(answers=5)


def test_wrong_sizes_are_named():
    with pytest.raises(ConfigError, match="do not divide"):
        small(heads=3)
    with pytest.raises(ConfigError, match="fraction of the layers"):
        small(patch_depth=0.0)
    assert [small(layers=n, patch_depth=0.5).patch_layer for n in (1, 3, 4, 12)] == [1, 2, 2, 6]
    with pytest.raises(ConfigError, match="too often"):
        small(stem=[4, 4, 4, 4, 4])
    with pytest.raises(AtlasError, match="maximum is 12"):
        small()({"ids_BT": torch.ones(1, 13, dtype=torch.long), "pixels_BCHW": torch.zeros(1, 3, 48, 48)})
    with pytest.raises(AtlasError, match="or a folder"):
        small(pretrained="/nowhere/vilt")


def test_training_learns_and_the_task_reports_by_group(tmp_path):
    corpus = blocks(tmp_path / "world", 48)
    task = VqaTask(patch=16, min_count=1, batch_size=24, longest=12, patch_weight=0.3, asked_weight=1.0)
    task.prepare(corpus)
    assert {*COLOURS, "left", "right", "yes", "no"} == set(task.answers)
    torch.manual_seed(0)
    sizes = {
        "layers": 2,
        "heads": 2,
        "dim": 32,
        "inner": 48,
        "image_size": 48,
        "patch_size": 16,
        "max_text": 12,
    }
    model = Vilt(**task.model_sizes(), **sizes, initial_std=0.15, stem=[8])
    task.start(model)
    settings = TrainSettings.read(
        {"epochs": 16, "validate_every": 16, "lr": 4e-3, "eps": 1e-8, "clip_norm": 1.0, "threads": 1}
    )
    _, history = train(task, model, settings, tmp_path / "work")
    assert history[-1]["accuracy_what_color"] > 80
    assert {"accuracy", "accuracy_where", "accuracy_is"} <= set(history[-1])


def test_start_sets_the_prior(tmp_path):
    task = VqaTask(patch=16, min_count=1, longest=12)
    task.prepare(blocks(tmp_path / "world", 24))
    model = Vilt(**task.model_sizes(), **SMALL)
    task.start(model)
    share = torch.sigmoid(model.answer[-1].bias)[task.answers.index("red")].item()
    # Four of twelve images are red, one question in three asks for it: 4 of 36.
    assert share == pytest.approx((4 + 0.5) / 37, abs=1e-6)


@torch.no_grad()
def test_a_image_shared_by_questions_gives_the_same_answers_as_its_copies(tmp_path):
    task = VqaTask(patch=16, min_count=1, batch_size=6, longest=12, by_image=True)
    task.prepare(blocks(tmp_path / "world", 24))
    together = next(task.batches(0))
    assert len(together["pixels_BCHW"]) == 2 and together["image_B"].tolist() == [0, 0, 0, 1, 1, 1]
    orders = [task.train.order(6, 0, epoch, by_image=True) for epoch in (0, 1)]
    assert orders[0] != orders[1]
    assert sorted(i for part in orders[0] for i in part) == list(range(len(task.train)))
    model = Vilt(**task.model_sizes(), **(SMALL | {"initial_std": 0.2}), stem=[8]).eval()
    image_B = together.pop("image_B")
    copies = together | {name: together[name][image_B] for name in ("pixels_BCHW", "pixel_mask_BHW")}
    torch.testing.assert_close(model(together | {"image_B": image_B}), model(copies))
    assert not torch.allclose(model(copies)[0], model(copies)[3])


def test_words_that_are_true_of_a_patch_by_hand():
    """Two rows of six patches; a red block covers the two at the lower left."""
    block = SceneObject(0, "block", ["red"], (0.0, 24.0, 32.0, 48.0), 768)
    scene = Scene("i", "i.png", 96, 48, "train", [block])
    words = {word: i for i, word in enumerate(["block", "red", "left", "middle", "right", "blue"])}
    shown = shown_on_patches(scene, (2, 6), words)
    sides = [[1, 0, 0]] * 2 + [[0, 1, 0]] * 2 + [[0, 0, 1]] * 2
    assert shown[:, 2:5].tolist() == sides * 2
    assert shown[:, 0].tolist() == shown[:, 1].tolist() == [0] * 6 + [1, 1, 0, 0, 0, 0]
    assert not shown[:, 5].any()
