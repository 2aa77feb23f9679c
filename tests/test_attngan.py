"""AttnGAN: word attention through the seam, losses by hand, players kept apart, resume, the evaluator's
proxy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import yaml
from attngan_world import COLORS, corpus_of
from conftest import ROOT

from attention_atlas.alignment_study.attngan import AttnGanEvaluator, covered, grounded, mirrored, spread
from attention_atlas.alignments.activated_general import ActivatedGeneral
from attention_atlas.alignments.dot import Dot
from attention_atlas.alignments.general_kq import GeneralKQ
from attention_atlas.capture.seam import AttentionCall, recording
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.attngan import AttnGan
from attention_atlas.models.attngan.discriminator import Discriminator, discriminator_loss, fake, real
from attention_atlas.models.attngan.generator import WordAttention, divergence
from attention_atlas.text_to_image.pairs import padded_words
from attention_atlas.training.loop import train
from attention_atlas.training.run import load_run, save_run
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.tasks.damsm import DamsmTask
from attention_atlas.training.tasks.picture_classifier import PictureClassifierTask
from attention_atlas.training.tasks.text_to_image import TextToImageTask, at_size, nearest

DAMSM = {
    "_target_": "attention_atlas.models.attngan.Damsm",
    "_recursive_": False,
    "name": "damsm",
    "dim": 8,
    "embedding": 6,
    "embedding_init": 1.0,
    "dropout": 0.0,
    "image": {
        "_target_": "attention_atlas.models.attngan.image.ImageEncoder",
        "size": 32,
        "side": 4,
        "channels": 4,
    },
}
SMALL = {
    "stages": 2,
    "first": 16,
    "channels": 4,
    "critic_channels": 4,
    "noise": 4,
    "condition": 6,
    "residuals": 1,
    "average": 0.5,
}
SETTINGS = TrainSettings(epochs=2, max_steps=6, lr=2e-3, betas=(0.5, 0.999), eps=1e-8, threads=1)
DOT = {"_target_": "attention_atlas.alignments.dot.Dot", "name": "dot"}


class Keeper:
    """Keeps calls and, with `replace`, answers with random attention."""

    def __init__(self, replace=False):
        self.calls, self.replace = [], replace

    def attend(self, call: AttentionCall):
        context = call.context()
        if self.replace:
            weights = torch.rand(call.q.shape[:-1] + call.k.shape[2:3]).softmax(-1)
            context = weights @ call.v
        self.calls.append((call, context))
        return context

    def residual_input(self, module, x):
        pass


def model_of(alignment=DOT, **more):
    torch.manual_seed(4)
    return AttnGan(20, DAMSM, alignment, **(SMALL | more)).eval()


BATCH = {"ids_BT": padded_words([[5, 6, 7], [4], [9, 8, 5, 4, 10]])}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Corpus, a DAMSM run and a classifier run."""
    root = tmp_path_factory.mktemp("squares")
    corpus = corpus_of(root / "corpus", 18, 6)
    runs = {}
    damsm = DamsmTask(batch_size=9, max_words=8, candidates=6)
    classifier = PictureClassifierTask(batch_size=9)
    model = {
        "_target_": "attention_atlas.text_to_image.classifier.PictureClassifier",
        "name": "c",
        "channels": 8,
        "dim": 16,
    }
    for name, task, config in (("damsm", damsm, DAMSM), ("classifier", classifier, model)):
        from attention_atlas.training.run import build_model

        task.prepare(corpus)
        torch.manual_seed(0)
        built = build_model(config, **task.model_sizes())
        settings = TrainSettings(epochs=12, validate_every=12, lr=5e-3, eps=1e-8, threads=1)
        weights, history = train(task, built, settings, root / f"{name}.work")
        save_run(root / name, weights, {"model": config, "train": {}, "sizes": task.model_sizes()}, history)
        task.save(root / name)
        runs[name] = (root / name, history)
    return corpus, runs


@pytest.mark.parametrize("kind", [Dot, GeneralKQ, ActivatedGeneral])
@torch.no_grad()
def test_word_attention_against_a_loop(kind):
    torch.manual_seed(2)
    layer = WordAttention(6, 5, 0, kind(5))
    hidden, words = torch.randn(2, 5, 3, 4), torch.randn(2, 7, 6)
    real_BT = torch.arange(7)[None] < torch.tensor([7, 3])[:, None]
    found = layer(hidden, words, real_BT)
    for b, length in enumerate((7, 3)):
        keys = words[b, :length] @ layer.project.weight.T
        for y in range(3):
            for x in range(4):
                score = torch.stack(
                    [layer.alignment.score(hidden[b, :, y, x][None], k[None])[0, 0] for k in keys]
                )
                assert torch.allclose(found[b, :, y, x], score.softmax(0) @ keys, atol=1e-5)


@torch.no_grad()
def test_captured_attention_makes_the_context_and_changes_the_picture():
    model, batch = model_of(), {**BATCH, "noise_BZ": torch.randn(3, 4)}

    def drawn(recorder):
        torch.manual_seed(1)
        with recording(recorder):
            return model(batch)

    keeper = Keeper()
    plain = drawn(None)
    assert torch.equal(plain, drawn(keeper)) and plain.shape == (3, 3, 32, 32)
    ((call, context),) = keeper.calls
    weights = call.weights()
    assert weights.shape == (3, 1, 256, 5) and float(weights[1, :, :, 1:].abs().max()) == 0
    assert torch.allclose(weights @ call.v, context, atol=1e-5)
    assert not torch.allclose(plain, drawn(Keeper(replace=True)), atol=1e-4)
    assert torch.allclose(model.average.next[0].attention.project.weight, call.module.project.weight)


@torch.no_grad()
def test_more_stages_double_the_side():
    model = model_of(stages=3, first=8, average=0.0)
    assert model.generator.sizes == [8, 16, 32] and len(model.critics) == 3
    keeper = Keeper()
    with recording(keeper):
        model(BATCH)
    assert [c.module.layer_index for c, _ in keeper.calls] == [0, 1]
    assert [c.q.shape[2] for c, _ in keeper.calls] == [64, 256]


def test_formulas_by_hand():
    assert float(real(torch.zeros(3))) == pytest.approx(math.log(2))
    assert float(fake(torch.tensor([2.0]))) == pytest.approx(math.log(1 + math.exp(2)))
    mean, logvar = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(2)]])
    wanted = (0.5 * 1 + 0.5 * (0 + 2 - math.log(2) - 1)) / 2
    assert float(divergence(mean, logvar)) == pytest.approx(wanted, rel=1e-5)
    picture = torch.arange(4.0).view(1, 1, 2, 2)
    assert float(nearest(picture, picture.flip(-1), mirror=True)) == 0
    assert float(nearest(picture, picture.flip(-1), mirror=False)) == 1
    assert float(at_size(picture, 1)) == 1.5 and at_size(picture, 2) is picture


def test_discriminator_loss_against_its_parts():
    torch.manual_seed(0)
    critic = Discriminator(16, 8, 4).eval()
    true, made, sentence = torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16), torch.randn(3, 8)
    t, m = critic(true), critic(made)
    parts = [
        real(critic.alone(t).flatten()) / 2,
        real(critic.with_sentence(t, sentence)) / 2,
        fake(critic.alone(m).flatten()) / 3,
        fake(critic.with_sentence(m, sentence)) / 3,
        # Pictures 0 and 1 with the sentences of 1 and 2.
        fake(critic.with_sentence(t[:2], sentence[1:])) / 3,
    ]
    assert float(discriminator_loss(critic, true, made, sentence)) == pytest.approx(
        float(sum(parts)), rel=1e-5
    )


def task_of(world, **more):
    corpus, runs = world
    given = {"size": 32, "batch_size": 6, "max_words": 8, "reconstruction_weight": 1.0, "feature_weight": 1.0}
    task = TextToImageTask(str(runs["damsm"][0]), judged=6, candidates=6, **(given | more))
    task.prepare(corpus)
    return task


def fresh(task, alignment=DOT, **more):
    torch.manual_seed(0)
    model = AttnGan(**task.model_sizes(), alignment=alignment, **(SMALL | more))
    task.start(model)
    return model


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


def test_a_killed_run_goes_on_to_the_same_bytes(world, tmp_path):
    task = task_of(world)
    whole, _ = train(task, fresh(task), SETTINGS, tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(step, values):
        raise Killed

    import dataclasses

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
    result.save(tmp_path / "cell")
    assert set(result.scores) == {
        "R-precision",
        "chance R-precision",
        "attribute accuracy",
        "chance attribute accuracy",
        "attribute accuracy of real pictures",
        "classifier score",
        "classifier Fréchet distance",
    }
    assert result.scores["attribute accuracy of real pictures"] > 90
    shares = [r["value"] for r in result.examples if r["metric"] == "attribute accuracy"]
    assert np.mean(shares) == pytest.approx(result.scores["attribute accuracy"]) and len(shares) == 6
    words = {r["word"] for r in result.grounding}
    assert {"hat", "coat"} <= words <= {"hat", "coat", *COLORS}
    assert [len(s.words) for s in result.shown] == [7, 7] and result.shown[0].picture.shape == (32, 32, 3)
    again = evaluator(load_run(tmp_path / "run")[0], task)
    assert again.scores == result.scores
    assert "attribute accuracy" not in AttnGanEvaluator(candidates=6)(model, task).scores


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
    picture = torch.rand(2, 3, 8, 8)
    assert mirrored(picture, torch.stack([picture[0], picture[1].flip(-1)])) == [False, True]


def test_bad_values(world, tmp_path):
    corpus, runs = world
    with pytest.raises(ConfigError, match="stages"):
        model_of(stages=1)
    with pytest.raises(ConfigError, match="first: 12"):
        model_of(first=12)
    with pytest.raises(AtlasError, match="holds no DAMSM"):
        TextToImageTask(str(runs["classifier"][0]), batch_size=6).prepare(corpus)
    with pytest.raises(AtlasError, match=r"config\.yaml: no such file"):
        TextToImageTask(str(tmp_path / "none"), batch_size=6).prepare(corpus)
    task = task_of(world, size=64)
    with pytest.raises(ConfigError, match=r"size: 64 is not the model's finest picture \(32"):
        fresh(task)
    with pytest.raises(ConfigError, match="candidates"):
        AttnGanEvaluator(candidates=1)


def test_published_sizes_and_weights():
    config = yaml.safe_load((ROOT / "conf/model/attngan_published.yaml").read_text())
    task, loop = config["training"]["task"], config["training"]["loop"]
    assert config["first"] * 2 ** (config["stages"] - 1) == task["size"] == 256
    assert (task["damsm_weight"], loop["lr"], config["noise"]) == (5.0, 2e-4, 100)
    assert task["reconstruction_weight"] == task["feature_weight"] == 0.0
