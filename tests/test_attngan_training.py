"""AttnGAN: players kept apart, resume, run folder, the evaluator and its proxy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from attngan_models import DOT, SETTINGS, SMALL, fresh, make_world, model_of, task_of
from attngan_world import COLORS, corpus_of
from conftest import ROOT

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.run_folder import load_run, save_run
from attention_atlas.reporting.paper_setup import composed
from attention_atlas.studies.alignment.attngan import AttnGanEvaluator, covered, grounded, mirrored, spread
from attention_atlas.training.loop import train
from attention_atlas.training.tasks.text_to_image import TextToImageTask


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("squares"))


def test_each_loss_reaches_its_own_player_only(world, tmp_path):
    task = task_of(world)
    model = fresh(task)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    batch = next(iter(task.batches(0)))
    torch.manual_seed(0)
    model.train()
    players = task.optimizers(model, SETTINGS)
    changed = {}
    for name, loss in task.losses(model, batch, 1):
        now = {k: v.clone() for k, v in model.named_parameters()}
        loss.backward(inputs=[p for g in players[name].param_groups for p in g["params"]])
        players[name].step()
        players[name].zero_grad()
        changed[name] = {k.split(".")[0] for k, v in model.named_parameters() if not torch.equal(v, now[k])}
    assert changed == {"critics": {"critics"}, "generator": {"generator"}}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items() if k.startswith("damsm."))


@pytest.mark.parametrize("mirror", [True, False])
def test_optional_losses_are_off_by_default_and_matter(world, mirror):
    def value(**more):
        task = task_of(
            world, **({"reconstruction_weight": 0.0, "feature_weight": 0.0, "mirror": mirror} | more)
        )
        model = fresh(task).eval()
        torch.manual_seed(0)
        with torch.no_grad():
            return {n: float(v) for n, v in task.losses(model, next(iter(task.batches(0))), 1)}

    plain, more = value(), value(reconstruction_weight=2.0)
    assert set(plain) == {"critics", "generator"}
    assert (
        plain["critics"] == pytest.approx(more["critics"]) and more["generator"] > plain["generator"] + 0.05
    )
    assert value(feature_weight=1.0)["generator"] > plain["generator"]
    assert set(value(adversarial_weight=0.0)) == {"generator"}


def test_a_killed_run_resumes_to_the_same_bytes(world, tmp_path):
    task = task_of(world)
    whole, _ = train(task, fresh(task), SETTINGS, tmp_path / "whole")

    class Killed(Exception):
        pass

    short = dataclasses.replace(SETTINGS, checkpoint_seconds=0.0)
    calls = []
    original = task.losses

    def losses(model, batch, step):
        calls.append(step)
        if len(calls) == 3:
            raise Killed
        yield from original(model, batch, step)

    task.losses = losses
    with pytest.raises(Killed):
        train(task, fresh(task), short, tmp_path / "cut")
    task.losses = original
    again, _ = train(task, fresh(task), short, tmp_path / "cut")
    assert all(torch.equal(whole[k], again[k]) for k in whole)
    gap = [
        (whole[k] - whole[k.replace("generator.", "average.", 1)]).abs().max()
        for k in whole
        if k.startswith("generator.") and k.endswith("weight")
    ]
    assert max(gap) > 0


def test_run_folder_and_evaluator(world, tmp_path):
    runs = world[1]
    task = task_of(world)
    weights, history = train(task, fresh(task), SETTINGS, tmp_path / "work")
    config = {"_target_": "attention_atlas.models.attngan.AttnGan", "_recursive_": False, "name": "attngan"}
    config |= {**SMALL, "alignment": DOT}
    save_run(tmp_path / "run", weights, {"model": config, "train": {}, "sizes": task.model_sizes()}, history)
    task.save(tmp_path / "run")
    model, vocab, _ = load_run(tmp_path / "run")
    assert len(vocab) == len(task.vocab)
    evaluator = AttnGanEvaluator(classifier=str(runs["classifier"][0]), candidates=6, shown=2)
    result = evaluator(model, task).check()
    result.save(tmp_path / "run")
    assert set(result.scores) == {
        "R-precision",
        "chance R-precision",
        "attribute accuracy",
        "chance attribute accuracy",
        "attribute gain",
        "attribute accuracy of real images",
        "classifier score",
        "classifier Fréchet distance",
    }
    assert result.scores["attribute accuracy of real images"] > 90
    shares = [r["value"] for r in result.examples if r["metric"] == "attribute accuracy"]
    assert np.mean(shares) == pytest.approx(result.scores["attribute accuracy"]) and len(shares) == 6
    words = {r["word"] for r in result.grounding}
    assert {"hat", "coat"} <= words <= {"hat", "coat", *COLORS}
    assert [len(s.words) for s in result.shown] == [7, 7] and result.shown[0].pixels.shape == (32, 32, 3)
    again = evaluator(load_run(tmp_path / "run")[0], task)
    assert again.scores == result.scores
    assert "attribute accuracy" not in AttnGanEvaluator(candidates=6)(model, task).scores


def test_attributes_over_chance_by_hand(world):
    """Six images: each hat colour in a third of them, each of two coat colours in half. So an image of
    another caption shows (1/3 + 1/2) / 2 of what it states; the next image no hat and four of six coats."""
    _, runs = world
    evaluator = AttnGanEvaluator(classifier=str(runs["classifier"][0]))
    pairs = evaluator.pairs(task_of(world), 32)
    examples = [pairs.examples[i] for i in pairs.first_captions()]
    assert len(examples) == 6
    true = pairs.pixels.batch(examples)
    chance = 100 * (1 / 3 + 1 / 2) / 2
    for made, share, expected in (
        (true, 100, chance),
        (true.roll(1, 0), 100 / 3, chance),
        (true[:1].expand_as(true), chance, chance),  # one image for all captions: no gain
    ):
        scores, rows = evaluator.attributes(examples, made, true, "cpu")
        assert scores["attribute accuracy of real images"] == 100
        assert scores["attribute accuracy"] == pytest.approx(share)
        assert scores["chance attribute accuracy"] == pytest.approx(expected)
        assert scores["attribute gain"] == pytest.approx(share - expected)
        gains = [r["value"] for r in rows if r["metric"] == "attribute gain"]
        assert np.mean(gains) == pytest.approx(share - expected) and len(gains) == 6


def test_grounding_by_hand(tmp_path):
    corpus = corpus_of(tmp_path, 3, 3)
    example = corpus.examples[0]
    scene = corpus.scene(example)
    inside = covered(scene, [1], 4)  # box 4..20 x 2..14 of 32; middles at 4, 12, 20, 28
    assert inside.astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0] * 4, [0] * 4]
    count = 7  # a blue hat and a blue coat
    weights_QT = np.zeros((16, count))
    weights_QT[:, 0] = 1.0
    weights_QT[[0, 5, 15], 2] = [0.5, 0.25, 0.25]
    rows = {r["word"]: r for r in grounded(example, scene, weights_QT, 8)}
    assert rows["hat"] == {"example": example.id, "word": "hat", "mass": 0.75, "chance": 0.25, "top1": 1}
    turned = {r["word"]: r for r in grounded(example, scene, weights_QT, 8, True)}
    assert turned["hat"]["mass"] == 0.0 and turned["hat"]["chance"] == 0.25
    assert np.allclose(spread(weights_QT).sum(1)[[0, 2]], 1)
    image = torch.rand(2, 3, 8, 8)
    assert mirrored(image, torch.stack([image[0], image[1].flip(-1)])) == [False, True]


def test_bad_values(world, tmp_path):
    corpus, runs = world
    with pytest.raises(ConfigError, match="stages"):
        model_of(stages=1)
    with pytest.raises(ConfigError, match="first: 12"):
        model_of(first=12)
    with pytest.raises(AtlasError, match="holds no DAMSM"):
        TextToImageTask(damsm=str(runs["classifier"][0]), batch_size=6).prepare(corpus)
    with pytest.raises(AtlasError, match=r"config\.yaml: no such file"):
        TextToImageTask(damsm=str(tmp_path / "none"), batch_size=6).prepare(corpus)
    task = task_of(world, size=64)
    with pytest.raises(ConfigError, match=r"size: 64 is not the model's finest image \(32"):
        fresh(task)
    with pytest.raises(ConfigError, match="candidates"):
        AttnGanEvaluator(candidates=1)


def test_a_damsm_of_another_size_is_reported_before_the_first_step(world):
    task = task_of(world, size=64)
    with pytest.raises(ConfigError, match=r"size: 64, but the DAMSM of .* reads images of 32 pixels only"):
        fresh(task, stages=3)


def test_published_sizes_and_weights():
    """What the paper profile trains: sizes that fit each other, and each data set's own numbers."""
    runs = {
        name: f"alignment_{stage}"
        for name, stage in {
            "cub": "runs-attngan-cub",
            "coco": "runs-attngan-coco_images",
            "damsm_cub": "encoders-cub",
            "damsm_coco": "encoders-coco_images",
        }.items()
    }
    found = composed(runs, ROOT)
    for name in ("cub", "coco"):
        model, task = found[name]["model"], found[name]["train"]["task"]
        assert model["first"] * 2 ** (model["stages"] - 1) == task["size"] == 256
        assert task["damsm"].endswith(found[f"damsm_{name}"]["model"]["name"])
        assert task["reconstruction_weight"] == task["feature_weight"] == 0.0
        assert (found[name]["train"]["loop"]["lr"], model["noise"]) == (2e-4, 100)
        # An encoder of one size only could not read what the generator makes.
        assert found[f"damsm_{name}"]["model"]["image"]["_target_"].endswith("InceptionEncoder")
        assert (
            task["by_category"] == found[f"damsm_{name}"]["train"]["task"]["by_category"] == (name == "cub")
        )
    for name, expected in {"cub": (20, 400, 5.0), "coco": (14, 90, 50.0)}.items():
        train = found[name]["train"]
        assert (
            train["task"]["batch_size"],
            train["loop"]["epochs"],
            train["task"]["damsm_weight"],
        ) == expected
    assert [found[f"damsm_{n}"]["model"]["gamma1"] for n in ("cub", "coco")] == [4.0, 5.0]
