"""Compositional questions: batches, answers that training never saw, pixels, what is wrong, and learning."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from mac_world import SIDE, shapes

from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.mac import Mac
from attention_atlas.training.loop import train
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.tasks.compositional import UNSEEN, CompositionalTask


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return shapes(tmp_path_factory.mktemp("shapes"))


def prepared(world, **more) -> CompositionalTask:
    task = CompositionalTask(**({"batch_size": 5} | more))
    task.prepare(*world)
    return task


def test_a_batch_holds_words_answer_and_regions(world):
    task = prepared(world)
    batch = task.train.batch([0, 3])
    first, second = task.train.examples[0], task.train.examples[3]
    assert batch["ids_BT"].shape == (2, len(task.train.words[3]))  # "Do the leftmost thing ..." is the longer
    assert task.vocab.decode(batch["ids_BT"][0].tolist()) == first.text.lower().replace("?", " ?").split()
    assert [task.answers[i] for i in batch["answer_B"]] == [*first.answers, *second.answers]
    scene = world[0].scene(first)
    assert batch["regions_BN"].sum(1).tolist() == [len(scene.objects) + 1] * 2
    assert batch["features_BND"].shape == (2, len(scene.objects) + 1, 8)  # no padding beyond the regions
    assert torch.allclose(batch["boxes_BN4"][0, 0] * SIDE, torch.tensor(scene.objects[0].box))
    assert task.answers == sorted(set(task.answers)) and {"yes", "no", "red", "cube"} <= set(task.answers)


def test_an_epoch_has_every_question_once_and_depends_on_the_seed(world):
    task = prepared(world)
    rows = [i for part in task.train.order(5, 0, 0) for i in part]
    assert sorted(rows) == list(range(72)) and task.steps_per_epoch() == 15
    assert task.train.order(5, 0, 0) == task.train.order(5, 0, 0)
    assert task.train.order(5, 0, 1) != task.train.order(5, 0, 0) != task.train.order(5, 1, 0)
    whole = [b["answer_B"].tolist() for b in task.batches(0)]
    assert [b["answer_B"].tolist() for b in task.batches(0, 4)] == whole[4:]
    task.seed = 1  # a sweep over seeds sets it after prepare
    assert [b["answer_B"].tolist() for b in task.batches(0)] != whole


def test_an_answer_that_training_never_saw_is_never_right(world):
    corpus, features = world
    odd = [dataclasses.replace(e, answers=["mauve"]) for e in corpus.split("val")]
    task = prepared((Corpus(corpus.root, corpus.scenes, [*corpus.split("train"), *odd]), features))
    assert set(task.held_out.answer) == {UNSEEN}
    torch.manual_seed(0)
    model = Mac(**task.model_sizes(), dim=8, word_dim=4).eval()
    assert task.validate(model)["accuracy"] == 0.0


def test_accuracy_by_type_is_what_counting_gives(world):
    task = prepared(world)
    torch.manual_seed(0)
    model = Mac(**task.model_sizes(), dim=8, word_dim=4).eval()
    found = task.validate(model)
    right: dict[str, list[bool]] = {}
    for i, example in enumerate(task.held_out.examples):
        predicted = task.answers[int(model(task.held_out.batch([i])).argmax())]
        for name in ("accuracy", "accuracy_" + example.extra["type"].replace(" ", "_")):
            right.setdefault(name, []).append(predicted == example.answers[0])
    assert found == pytest.approx({n: 100 * np.mean(v) for n, v in right.items()})
    assert set(found) >= {"accuracy_Query_Attribute", "accuracy_Compare_Integer", "accuracy_Exist"}


def test_pixels_and_a_grid_of_another_source(world):
    corpus, _ = world
    task = CompositionalTask(knowledge="grid", image=12)
    task.prepare(corpus, None)
    pixels = task.train.batch([0, 6])["grid_BCHW"]
    assert pixels.shape == (2, 3, 12, 12) and task.model_sizes()["channels"] == 3
    scene = corpus.scene(task.train.examples[0])
    from PIL import Image

    full = np.asarray(Image.open(corpus.image_path(scene.image_id)), np.float64)
    shrunk = full.reshape(12, 5, 12, 5, 3).mean((1, 3)).transpose(2, 0, 1) / 127.5 - 1
    assert np.abs(pixels[0].numpy() - shrunk).max() < 0.005  # the mean of 5 × 5 pixels, rounded

    class Source:
        channels = 4

        def read(self, image_id):
            return np.full((4, 2, 3), int(image_id[1:]), np.float16)

    task = CompositionalTask(knowledge="grid", grid=Source())
    task.prepare(corpus, None)
    grid = task.train.batch([0, 6])["grid_BCHW"]
    assert grid.shape == (2, 4, 2, 3) and grid.dtype == torch.float32 and grid[1].unique().tolist() == [1.0]
    assert task.model_sizes()["channels"] == 4
    loss = dict(
        task.losses(Mac(**task.model_sizes(), knowledge="grid", dim=8, word_dim=4), task.train.batch([0]), 1)
    )
    assert torch.isfinite(loss["all"])


def test_errors_name_their_cause(world):
    corpus, features = world

    def changed(**more):
        rows = [dataclasses.replace(e, **more) if e.id == "i0000_q0" else e for e in corpus.examples]
        return Corpus(corpus.root, corpus.scenes, rows), features

    with pytest.raises(AtlasError, match="i0000_q0': answers: 2 of them"):
        prepared(changed(answers=["yes", "no"]))
    with pytest.raises(AtlasError, match=r"extra.type: 'Guess' is none of Exist"):
        task = prepared(world)
        task.held_out.examples[0] = dataclasses.replace(task.held_out.examples[0], extra={"type": "Guess"})
        task.validate(Mac(**task.model_sizes(), dim=8, word_dim=4))
    with pytest.raises(AtlasError, match="split 'test' has no example"):
        prepared((Corpus(corpus.root, corpus.scenes, corpus.split("train+val")), features), select_on="test")
    with pytest.raises(AtlasError, match="no region features"):
        prepared((corpus, None))
    for more, message in (
        ({"knowledge": "air"}, "knowledge: 'air'"),
        ({"batch_size": 0}, "batch_size: must be at least 1"),
        ({"knowledge": "grid", "image": 2}, "image: must be at least 8"),
        ({"knowledge": "grid", "naming": 1.0}, "naming: only regions have names"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepared(world, **more)


def test_what_regions_are_called(world):
    task = prepared(world, naming=0.5)
    words = ["ball", "blue", "cone", "cube", "green", "red"]
    assert task.names.words == [w for w in words if w in task.vocab] and len(task.names.words) >= 4
    batch = next(task.batches(0))
    for row, i in enumerate(task.train.order(5, 0, 0)[0]):
        scene = world[0].scene(task.train.examples[i])
        for n, thing in enumerate(scene.objects):
            called = [w for w, there in zip(task.names.words, batch["called_BNW"][row, n]) if there]
            assert called == sorted({thing.label, *thing.attributes} & set(task.names.words))
        assert batch["called_BNW"][row, len(scene.objects) :].sum() == 0  # background and padding
    torch.manual_seed(0)
    model = Mac(**task.model_sizes(), dim=8, word_dim=4, dropout=0.0)
    (_, loss), *rest = task.losses(model, batch, 1)
    scores, called = model(batch, task.names.ids_W)
    answer = -torch.log_softmax(scores, -1)[range(5), batch["answer_B"]].mean()
    total = count = 0.0
    for b in range(5):
        for n in range(int(batch["regions_BN"][b].sum())):
            p, target = torch.sigmoid(called[b, n]), batch["called_BNW"][b, n]
            total -= (target * p.log() + (1 - target) * (1 - p).log()).sum()
            count += 1
    assert not rest and loss.item() == pytest.approx((answer + 0.5 * total / count).item(), rel=1e-4)
    blind = Mac(**task.model_sizes(), dim=8, word_dim=4, blind=True)
    assert torch.isfinite(dict(task.losses(blind, batch, 1))["all"])


@pytest.mark.slow
def test_it_learns_what_the_blind_network_cannot(tmp_path):
    world = shapes(tmp_path / "world", count=300)
    best = {}
    for blind in (False, True):
        task = prepared(world, batch_size=25)
        torch.manual_seed(0)
        model = Mac(**task.model_sizes(), dim=32, word_dim=16, steps=3, dropout=0.0, blind=blind)
        settings = TrainSettings.read({"epochs": 12, "validate_every": 3, "lr": 3e-3, "clip_norm": 8.0})
        _, history = train(task, model, settings, tmp_path / f"work{blind}")
        best[blind] = max(row["accuracy"] for row in history)
    assert best[False] > best[True] + 15


def test_a_killed_run_with_the_published_rates_resumes_to_the_same_bytes(world, tmp_path):
    """MAC with the moving average and the plateau of conf/profiles/paper/train/compositional.yaml."""
    loop = yaml.safe_load((ROOT / "conf/profiles/paper/train/compositional.yaml").read_text())["loop"]
    settings = TrainSettings.read(
        loop | {"epochs": 3, "lr": 0.01, "average": 0.9, "threads": 1, "checkpoint_seconds": 0}
    )
    assert (settings.schedule.name, settings.betas) == ("plateau", (0.9, 0.999))

    def run(folder, die_at=0):
        task = prepared(world)
        original = task.losses

        def losses(model, batch, step):
            if step == die_at:
                raise KeyboardInterrupt
            yield from original(model, batch, step)

        task.losses = losses
        torch.manual_seed(0)
        return train(task, Mac(**task.model_sizes(), dim=8, word_dim=4), settings, tmp_path / folder)

    whole, rows = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("cut", die_at=2 * len(rows))
    again, more = run("cut")
    assert all(torch.equal(whole[name], again[name]) for name in whole) and rows == more
