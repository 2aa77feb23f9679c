"""Features of whole CLEVR images, and the network that reads them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from conftest import ROOT
from omegaconf import OmegaConf
from test_clevr import read

from attention_atlas.data.clevr_grid import ClevrGrid
from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError
from attention_atlas.models.mac import Mac
from attention_atlas.training.tasks.compositional import CompositionalTask


def grid_file(path, shape=(2, 6, 3, 3), name="features"):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with h5py.File(path, "w") as file:
        file[name] = values
    return values


def test_features_of_whole_images(tmp_path):
    values = grid_file(tmp_path / "val.h5")
    grid = ClevrGrid({"val": tmp_path / "val.h5"})
    assert grid.channels == 6 and np.array_equal(grid.read("CLEVR_val_000001"), values[1])
    for image_id, message in (
        ("CLEVR_val_000002", "has 2 images"),
        ("CLEVR_train_000000", "files: has no 'train'"),
        ("room7", "is not named CLEVR_"),
    ):
        with pytest.raises(AtlasError, match=message):
            grid.read(image_id)
    grid_file(tmp_path / "train.h5", (2, 5, 3, 3))
    with pytest.raises(AtlasError, match=r"differ in channels: \[5, 6\]"):
        _ = ClevrGrid({"val": tmp_path / "val.h5", "train": tmp_path / "train.h5"}).channels
    grid_file(tmp_path / "flat.h5", (2, 5))
    grid_file(tmp_path / "other.h5", name="other")
    for name, message in (("flat", "shape"), ("other", "cannot be read"), ("none", "no such file")):
        with pytest.raises(AtlasError, match=message):
            ClevrGrid({"val": tmp_path / f"{name}.h5"}).read("CLEVR_val_000000")


def test_the_published_network_reads_such_files(tmp_path):
    grid_file(tmp_path / "val.h5")
    corpus = read(tmp_path)
    both = [*corpus.examples]
    corpus.scenes["CLEVR_val_000000"].split = "train"
    task = CompositionalTask(knowledge="grid", grid=ClevrGrid({"val": tmp_path / "val.h5"}), batch_size=4)
    task.prepare(Corpus(tmp_path, corpus.scenes, both), None)
    conf = OmegaConf.load(ROOT / "conf/profiles/paper/model/mac.yaml")
    assert conf._target_.endswith(".Mac") and conf.knowledge == "grid"
    model = Mac(**task.model_sizes(), knowledge="grid", dim=8, word_dim=4, stem=[8], strides=[1])
    batch = task.train.batch(range(11))
    assert model(batch).shape == (11, len(task.answers)) and model.grid_shape(batch) == (3, 3)
    assert set(task.validate(model.eval())) == {"accuracy", "accuracy_Exist"}
