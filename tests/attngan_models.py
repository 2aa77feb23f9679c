"""Small models, and runs of a DAMSM and a classifier, for the tests of AttnGAN."""

from __future__ import annotations

import torch
from attngan_world import corpus_of

from attention_atlas.capture.seam import AttentionCall
from attention_atlas.models.attngan import AttnGan
from attention_atlas.models.run_folder import save_run
from attention_atlas.training.batches import padded_ids
from attention_atlas.training.loop import train
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.tasks.damsm import DamsmTask
from attention_atlas.training.tasks.image_classifier import ImageClassifierTask
from attention_atlas.training.tasks.text_to_image import TextToImageTask

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


BATCH = {"ids_BT": padded_ids([[5, 6, 7], [4], [9, 8, 5, 4, 10]])}


def make_world(root):
    """Corpus, a DAMSM run and a classifier run."""
    corpus = corpus_of(root / "corpus", 18, 6)
    runs = {}
    damsm = DamsmTask(batch_size=9, max_words=8, candidates=6)
    classifier = ImageClassifierTask(batch_size=9)
    model = {
        "_target_": "attention_atlas.models.image_classifier.ImageClassifier",
        "name": "c",
        "channels": 8,
        "dim": 16,
    }
    for name, task, config in (("damsm", damsm, DAMSM), ("classifier", classifier, model)):
        from attention_atlas.models.run_folder import build_model

        task.prepare(corpus)
        torch.manual_seed(0)
        built = build_model(config, **task.model_sizes())
        settings = TrainSettings(epochs=12, validate_every=12, lr=5e-3, eps=1e-8, threads=1)
        weights, history = train(task, built, settings, root / f"{name}.work")
        save_run(root / name, weights, {"model": config, "train": {}, "sizes": task.model_sizes()}, history)
        task.save(root / name)
        runs[name] = (root / name, history)
    return corpus, runs


def task_of(world, **more):
    corpus, runs = world
    given = {"size": 32, "batch_size": 6, "max_words": 8, "reconstruction_weight": 1.0, "feature_weight": 1.0}
    task = TextToImageTask(damsm=str(runs["damsm"][0]), judged=6, candidates=6, **(given | more))
    task.prepare(corpus)
    return task


def fresh(task, alignment=DOT, **more):
    torch.manual_seed(0)
    model = AttnGan(**task.model_sizes(), alignment=alignment, **(SMALL | more))
    task.start(model)
    return model
