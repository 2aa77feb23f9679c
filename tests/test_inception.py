"""IS and FID: the network's own class with random weights, against naive computations; bad files."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
import yaml
from attngan_models import fresh, make_world, task_of
from conftest import ROOT
from rehearsal.weights import fresh_inception

from attention_atlas.errors import AtlasError
from attention_atlas.files import sha256
from attention_atlas.measures.generation import score_of
from attention_atlas.models import inception
from attention_atlas.models.inception import InceptionReader, as_bytes, network_class, split_score
from attention_atlas.studies.alignment.attngan import AttnGanEvaluator


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network of the same class, loud enough for its answers to differ from image to image, saved
    under a name that says its hash, as published."""

    network = fresh_inception()
    network.eval()
    with torch.no_grad():
        # Classes that are likeness to some images, less what all images share; a bias to be left out.
        features_BD, _ = network(images(5, 3))
        mean_D = features_BD.mean(0)
        away_BD = features_BD - mean_D
        away_BD -= torch.outer(away_BD @ mean_D, mean_D) / (mean_D @ mean_D)
        network.fc.weight.zero_()[:5] = 12 * away_BD / (away_BD**2).sum(1, keepdim=True)
        network.fc.bias.normal_(std=3.0)
    folder = tmp_path_factory.mktemp("inception")
    # The published file is of the older format, too.
    torch.save(network.state_dict(), folder / "w.pth", _use_new_zipfile_serialization=False)
    named = folder / f"weights-inception-2015-12-05-{sha256(folder / 'w.pth')[:8]}.pth"
    return network.eval(), (folder / "w.pth").rename(named)


def images(count, seed, size=9):
    """Colours at random in coarse blocks."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 3, 3, 3), generator=generator, dtype=torch.uint8)
    return coarse.repeat_interleave(size // 3, 2).repeat_interleave(size // 3, 3)


def naive(network, made, real):
    """Image by image, loops over classes, the root's trace from the singular values of the features."""
    rows, features = [], {"made": [], "real": []}
    for name, group in (("made", made), ("real", real)):
        for image in group:
            feature, _ = network(image[None])
            features[name].append(feature[0].double().numpy())
            if name == "made":
                logits = network.fc.weight.double().numpy() @ features[name][-1]
                shares = [math.exp(x - logits.max()) for x in logits]
                rows.append([s / sum(shares) for s in shares])
    mean = [sum(column) / len(rows) for column in zip(*rows)]
    whole = math.exp(sum(p * math.log(p / q) for row in rows for p, q in zip(row, mean) if p) / len(rows))
    a, b = np.array(features["made"]), np.array(features["real"])
    left, right = ((x - x.mean(0)) / math.sqrt(len(x) - 1) for x in (a, b))
    root = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    fid = ((a.mean(0) - b.mean(0)) ** 2).sum() + (left**2).sum() + (right**2).sum() - 2 * root
    return whole, fid, np.array(rows)


@pytest.fixture(scope="module")
def seen(weights):
    """What the reader reports of made and real images, and the naive answers."""
    network, path = weights
    made, real = images(11, 1), images(4, 2, size=12)
    reader = InceptionReader(path)
    with torch.no_grad():
        return reader, reader(made.split(8)), reader([real]), naive(network, made, real)


def test_probabilities_and_inception_score_equal_naive_ones(seen):
    reader, (probabilities, features), _, (whole, _, rows) = seen
    assert probabilities.shape == (11, 1008) and features.shape == (11, 2048)
    assert np.allclose(probabilities, rows, rtol=1e-3, atol=1e-7)
    assert whole > 1.2  # the images differ for this network
    assert score_of(probabilities) == pytest.approx(whole, rel=1e-4)
    order = np.random.default_rng(0).permutation(11)
    first = rows[order[:2]]  # a part of two images, and nine of one, which score 1
    kl = (first * np.log(first / first.mean(0))).sum(1).mean()
    assert split_score(probabilities) == pytest.approx((math.exp(kl) + 9) / 10, rel=1e-4)
    assert kl > 0.01
    assert not any(p.requires_grad for p in reader.network.parameters()) and not reader.network.training


@pytest.mark.slow
def test_fid_equals_the_naive_one(seen, monkeypatch):
    reader, made, real, (whole, fid, _) = seen
    answers = {"made": made, "real": real}
    monkeypatch.setattr(InceptionReader, "__call__", lambda self, batches: answers[batches])
    scores = reader.scores("made", "real")
    assert scores["FID"] == pytest.approx(fid, rel=1e-3) and fid > 0
    assert scores["Inception score of all images"] == pytest.approx(whole, rel=1e-4)
    assert scores["Inception score"] == split_score(made[0])


def test_split_score_by_hand():
    eye = np.eye(2)[[0, 1] * 10]
    assert split_score(eye, splits=1) == pytest.approx(2)
    assert split_score(np.full((10, 4), 0.25)) == pytest.approx(1)
    assert split_score(eye[:10]) == pytest.approx(1)  # one image in each part
    ordered = np.repeat(np.eye(2), 500, 0)  # by category: every part would hold one class only
    assert split_score(ordered) == pytest.approx(2, abs=0.05)
    with pytest.raises(AtlasError, match="9 images for 10 parts"):
        split_score(eye[:9])


def test_images_as_bytes():
    x = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 7.0])
    assert as_bytes(x).tolist() == [0, 0, 128, 255, 255, 255] and as_bytes(x).dtype == torch.uint8


def test_bad_files_are_reported_in_one_line(weights, tmp_path):
    _, path = weights
    digits = path.stem[-8:]

    def message_for(file):
        with pytest.raises(AtlasError) as caught:
            InceptionReader(file)
        text = str(caught.value)
        assert text.startswith(f"{file}: ") and "\n" not in text and inception.PUBLISHED in text
        return text

    assert "no such file" in message_for(tmp_path / "none.pth")
    assert "no such file" in message_for(tmp_path)
    half = path.read_bytes()[: path.stat().st_size // 2]
    cut = tmp_path / path.name
    cut.write_bytes(half)
    assert f"sha256 does not begin with {digits}" in message_for(cut)
    (tmp_path / "cut.pth").write_bytes(half)
    assert "damaged" in message_for(tmp_path / "cut.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    assert "damaged" in message_for(tmp_path / "empty.pth")
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    assert "not the weights of the 2015 Inception-v3" in message_for(tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    assert "not the weights of the 2015 Inception-v3" in message_for(tmp_path / "list.pth")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "code.pth")
    assert "not only tensors" in message_for(tmp_path / "code.pth")


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(inception.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AtlasError, match=r"pip install --no-deps torch-fidelity==0\.4\.0"):
        network_class()


def test_the_rest_of_the_package_is_left_alone():
    network_class()
    assert "torch_fidelity" not in sys.modules and "torchvision" not in sys.modules


def test_evaluator_compares_the_images_it_made_with_the_whole_split(tmp_path, monkeypatch):
    task = task_of(make_world(tmp_path))
    model = fresh(task)
    given = {"split": "train", "judged": 12, "candidates": 6, "shown": 0}
    plain = AttnGanEvaluator(**given)(model, task)
    seen = {}

    def shrunk(self, batches):
        """Few units instead of 2,048; keeps what the network would have been shown."""
        pixels = torch.cat(list(batches))
        seen[len(seen)] = pixels
        small = torch.nn.functional.adaptive_avg_pool2d(pixels.double(), 2).flatten(1)
        return (small / 50).softmax(1).numpy(), small.numpy()

    monkeypatch.setattr(InceptionReader, "__init__", lambda self, path, device: None)
    monkeypatch.setattr(InceptionReader, "__call__", shrunk)
    evaluator = AttnGanEvaluator(**given, inception="w.pth")
    result = evaluator(model, task).check()
    added = set(result.scores) - set(plain.scores)
    assert added == {"Inception score", "Inception score of all images", "FID"}
    assert all(np.isfinite(result.scores[name]) for name in added) and result.scores["FID"] > 0
    assert {k: v for k, v in result.scores.items() if k not in added} == plain.scores
    pairs = evaluator.pairs(task, model.size)
    made, _ = evaluator.images(model, pairs, pairs.first_captions(12), "cpu")
    assert len(made) == 12 and torch.equal(seen[0], as_bytes(made))
    real = pairs.pixels.batch([pairs.examples[i] for i in pairs.first_captions()])
    assert len(real) == 18 and torch.equal(seen[1], as_bytes(real))


def test_the_damsm_s_encoder_is_the_network_up_to_two_of_its_layers(weights):
    """Regions and whole against the network's own forward pass, whose 768 units are the regions' mean."""
    from attention_atlas.models.attngan.image import InceptionEncoder

    network, path = weights
    torch.manual_seed(0)
    encoder = InceptionEncoder(8, str(path)).train()
    bytes_B3SS = images(2, 5, size=299)  # already of the network's size: no scaling
    whole = type(network).__mro__[1]
    saved = network.features_list
    network.features_list = ["768", "2048"]
    try:
        with torch.no_grad():
            mean_BD, pooled_BD = whole.forward(network, bytes_B3SS)
    finally:
        network.features_list = saved
    pixels = bytes_B3SS.float() / 127.5 - 1
    regions_BND, sentence_BD = encoder(pixels)
    assert regions_BND.shape == (2, 17 * 17, 8) and sentence_BD.shape == (2, 8)
    assert torch.allclose(regions_BND.mean(1), encoder.region(mean_BD), rtol=1e-3, atol=1e-3)
    assert torch.allclose(sentence_BD, encoder.sentence(pooled_BD), rtol=1e-3, atol=1e-3)
    learned = {n for n, p in encoder.named_parameters() if p.requires_grad}
    assert learned == {"region.weight", "sentence.weight", "sentence.bias"}
    assert not any(m.training for m in encoder.inner.modules())
    # A generator learns through it.
    small = torch.zeros(1, 3, 16, 16, requires_grad=True)
    encoder(small)[0].sum().backward()
    assert small.grad is not None and small.grad.abs().sum() > 0


def test_the_encoder_s_file_is_checked(tmp_path):
    from attention_atlas.models.attngan.image import InceptionEncoder

    with pytest.raises(AtlasError, match=r"none\.pth: no such file"):
        InceptionEncoder(8, str(tmp_path / "none.pth"))


def test_a_missing_file_is_reported_before_any_work(tmp_path):
    with pytest.raises(AtlasError, match="no such file"):
        AttnGanEvaluator(inception=str(tmp_path / "w.pth"))(None, None)


def test_the_published_model_asks_for_the_file_that_is_listed():
    config = yaml.safe_load((ROOT / "conf/profiles/paper/model/attngan.yaml").read_text())
    wanted = config["evaluator"]["inception"]
    listed = {f["path"]: f for f in yaml.safe_load((ROOT / "conf/paper_files.yaml").read_text())["files"]}
    assert listed[wanted]["source"].startswith(inception.PUBLISHED)
    published = listed[wanted]["source"].split()[0]
    assert listed[wanted]["sha256"].startswith(inception.NAMED_HASH.search(published)[1])
