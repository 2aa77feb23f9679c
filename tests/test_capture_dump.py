"""The dump of a captioning model: the right rows, resumable to the same bytes; both conventions."""

import dataclasses
import hashlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from attention_atlas.capture import Capture, validate
from attention_atlas.data.corpus import Corpus, Example, Scene
from attention_atlas.dumps.captioning import CaptioningDump
from attention_atlas.dumps.dump import DumpSettings, Shard, dump, read_settings
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.vocabulary import Vocabulary
from attention_atlas.models.lstm import HierarchicalLSTM
from attention_atlas.models.object_relation import ObjectRelationTransformer
from attention_atlas.recording import AttentionStore, StatisticsStore
from attention_atlas.recording.index import write_index
from attention_atlas.regions.features_file import FeaturesFile
from attention_atlas.regions.features_writer import FeaturesWriter

TEXTS = [
    "A red chair stands left of the table. It is old.",
    "The lamp is on.",
    "There is a small brown table in the middle of this room, and a lamp.",
    "A zebra!",
    "Nothing here but a chair.",
]
# Of the texts all but "zebra".
WORDS = [
    *(
        "a",
        "red",
        "chair",
        "stands",
        "left",
        "of",
        "the",
        "table",
        ".",
        "it",
        "is",
        "old",
        "lamp",
        "on",
        "there",
    ),
    *("small", "brown", "in", "middle", "this", "room", ",", "and", "nothing", "here", "but"),
]
STATISTICS = ["attn", "mass", "entropy", "lse", "received", "head_norm", "norm_mass"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    scenes, examples = {}, []
    with FeaturesWriter(
        root / "features.h5", dim=6, regions=5, labels=["chair", "lamp"], source="test"
    ) as file:
        for i, text in enumerate(TEXTS):
            count = 2 + i % 4
            boxes = np.sort(rng.random((count, 2, 2)) * 60, axis=1).reshape(count, 4)
            file.add(
                f"image{i}",
                features=rng.standard_normal((count, 6)),
                boxes=boxes + np.array([0, 0, 2, 2]),
                size=(64, 64),
                label=np.arange(count) % 2,
                label_confidence=np.ones(count),
            )
            scenes[f"image{i}"] = Scene(f"image{i}", f"images/{i}.png", 64, 64, "test")
            examples.append(Example(f"text{i}", f"image{i}", text))
    with FeaturesFile(root / "features.h5") as features:
        yield Corpus(root, scenes, examples, "drawn"), features, Vocabulary(WORDS)


def captioner(**more):
    torch.manual_seed(0)
    sizes = {"layers": 2, "heads": 2, "dim": 8, "inner": 16, **more}
    model = ObjectRelationTransformer(vocab_size=4 + len(WORDS), feature_dim=6, **sizes)
    return model.eval()


def run_dump(world, folder, task=None, model=None, name="captioner", shard=None, engine=None, **settings):
    corpus, features, vocab = world
    task = task or CaptioningDump(batch_size=2)
    task.prepare(corpus, features, vocab, {})
    (folder / "work").mkdir(parents=True, exist_ok=True)
    return dump(
        task,
        model or captioner(),
        DumpSettings(**{"statistics": STATISTICS, "backend": "materialised", **settings}),
        folder / "out",
        folder / "work",
        model_name=name,
        config_hash="hash",
        shard=shard,
        engine=engine,
    )


@pytest.fixture(scope="module")
def dumped(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dumped")
    assert run_dump(world, folder)["examples"] == len(TEXTS)
    return folder / "out"


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_the_generated_words_have_their_log_probabilities(world, dumped):
    """Row i generates word i + 1: its probability is in the softmax of position i, of one text at a time."""
    corpus, features, vocab = world
    task, model = CaptioningDump(batch_size=1), captioner()
    task.prepare(corpus, features, vocab, {})
    with AttentionStore(dumped / "attention.h5") as store, StatisticsStore(dumped / "statistics.h5") as other:
        for batch in task.batches(set()):
            ids_T = batch.inputs["ids_BT"][0]
            with torch.no_grad():
                p_TV = model(batch.inputs)[0].softmax(-1).numpy()
            axis = store.axis(batch.ids[0], "target")
            assert axis.logprob == pytest.approx(other.axis(batch.ids[0], "target").logprob, nan_ok=True)
            for row, (token, logprob) in enumerate(zip(axis.tokens, axis.logprob, strict=True)):
                if token in ("zebra", "!"):  # UNK has a probability, but the word itself has none
                    assert math.isnan(logprob)
                else:
                    assert math.exp(logprob) == pytest.approx(p_TV[row, ids_T[row + 1]], rel=1e-4), token
            assert store.axis(batch.ids[0], "source").logprob == []


def test_rows_columns_and_axes(world, dumped):
    with AttentionStore(dumped / "attention.h5", config_hash="hash") as store:
        store.validate()
        assert store.ids == [f"text{i}" for i in range(5)]
        assert store.kinds == {
            "cross": ("target", "region"),
            "decoder_self": ("target", "source"),
            "encoder_self": ("region", "region"),
        }
        target, source = store.axis("text3", "target"), store.axis("text3", "source")
        assert target.tokens == ["a", "zebra", "!", "<eos>"] and target.roles[-1] == "eos"
        assert source.tokens == ["<bos>", "a", "zebra", "!"] and source.word == [-1, 0, 1, 2]
        assert store.axis("text1", "region").tokens == ["chair", "lamp", "chair"]
        assert store.shape("text3", "cross") == (2, 2, 4, 5)
        self_attn = store.read("text3", "decoder_self")
        assert (self_attn[:, :, 0, 0] == 1).all() and (np.triu(np.ones((4, 4)), 1) * self_attn == 0).all()
        assert (self_attn[:, :, 3] > 0).all()


def test_a_batch_gives_what_each_example_gives_alone(world, dumped, tmp_path):
    one = CaptioningDump(batch_size=1)
    run_dump(world, tmp_path, one, backend="fused", check=False, statistics=STATISTICS[1:])
    assert not (tmp_path / "out" / "attention.h5").exists()
    with (
        StatisticsStore(dumped / "statistics.h5") as batched,
        StatisticsStore(tmp_path / "out" / "statistics.h5") as alone,
    ):
        assert batched.groups == {"region": ["image"], "source": ["bos", "text"]}
        for id in batched.ids:
            for kind in batched.kinds:
                assert batched.names(id, kind) == sorted(STATISTICS[1:])
                for name in batched.names(id, kind):
                    a, b = batched.read(id, kind, name), alone.read(id, kind, name)
                    assert a.shape == b.shape, (id, kind, name)
                    np.testing.assert_allclose(a, b, atol=2e-5, err_msg=f"{id} {kind} {name}")


def test_statistics_are_those_of_the_matrices(dumped):
    with (
        AttentionStore(dumped / "attention.h5") as attention,
        StatisticsStore(dumped / "statistics.h5") as statistics,
    ):
        attn = attention.read("text0", "decoder_self")
        mass = statistics.read("text0", "decoder_self", "mass")
        np.testing.assert_allclose(mass[..., 0], attn[..., 0], atol=1e-3)
        np.testing.assert_allclose(mass[..., 1], attn[..., 1:].sum(-1), atol=1e-3)
        received = statistics.read("text0", "decoder_self", "received")
        np.testing.assert_allclose(received, attn.sum(2), atol=5e-3)


def test_a_stopped_dump_resumes_to_the_same_bytes(world, dumped, tmp_path):
    class Stops(CaptioningDump):
        prepared = 0

        def batch(self, ids):
            self.prepared += 1
            if self.prepared > 3 + 2:  # three batches are measured before the first one is run
                raise KeyboardInterrupt
            return super().batch(ids)

    with pytest.raises(KeyboardInterrupt):
        run_dump(world, tmp_path, Stops(batch_size=2), check=False)
    assert len(list((tmp_path / "work" / "attention.h5.part").glob("text*"))) == 4
    assert not (tmp_path / "out").exists()
    run_dump(world, tmp_path)
    assert digests(dumped) == digests(tmp_path / "out")


def test_unnormalised_attends_with_the_residual_input(world):
    """Against the formula, layer by layer, with x taken from the model itself."""
    corpus, features, vocab = world
    task = CaptioningDump(batch_size=5)
    task.prepare(corpus, features, vocab, {})
    (batch,) = task.batches(())
    model = captioner()
    x_of = {}
    for name, norm in model.named_modules():
        if name.endswith(("norm_self", "norm_cross")):
            norm.register_forward_pre_hook(lambda _, args, name=name: x_of.__setitem__(name, args[0]))
    with torch.no_grad():
        plain = model(batch.inputs)
    used = Capture(model, ["attn"], convention="used").run(lambda: model(batch.inputs))
    other = Capture(model, ["attn"], convention="unnormalised").run(lambda: model(batch.inputs))
    assert torch.equal(other.output, plain)
    assert sorted(other) == ["cross", "decoder_self", "encoder_self"]
    with torch.no_grad():
        memory = model.encode_regions(batch.inputs)
    for layer in range(2):
        block = model.decoder.layers[layer]
        x = x_of[f"decoder.layers.{layer}.norm_self"]
        attention = block.self_attention
        score = _scores(attention, x, x)
        score = score.masked_fill(torch.ones(score.shape[-2:]).triu(1).bool(), -math.inf)
        _close(other["decoder_self"].attn[:, layer], score.softmax(-1))
        assert not torch.allclose(used["decoder_self"].attn[:, layer], score.softmax(-1), atol=1e-2)
        x = x_of[f"decoder.layers.{layer}.norm_cross"]
        score = _scores(block.cross_attention, x, memory)
        score = score.masked_fill(~batch.inputs["regions_BN"][:, None, None], -math.inf)
        _close(other["cross"].attn[:, layer], score.softmax(-1))


def _scores(attention, x, y):
    q, k = (
        w(z).unflatten(-1, (2, -1)).transpose(1, 2) for w, z in ((attention.query, x), (attention.key, y))
    )
    return q @ k.mT / math.sqrt(q.shape[-1])


def _close(a, b):
    assert float((a - b).detach().abs().max()) <= 1e-5


def test_unnormalised_refuses_what_it_cannot_do(world):
    corpus, features, vocab = world
    task = CaptioningDump(batch_size=5)
    task.prepare(corpus, features, vocab, {})
    (batch,) = task.batches(())
    model = captioner()
    capture = Capture(model, ["attn"], convention="unnormalised", layers="decoder_self.*")
    with pytest.raises(AtlasError, match="self_attention: keys and values were made before the call"):
        capture.run(lambda: model.decode_step(model.encode(batch.inputs), batch.inputs["ids_BT"]))
    with pytest.raises(AtlasError, match=r"layers: 'cros.\*' matches nothing"):
        Capture(model, ["attn"], convention="unnormalised", layers="cros.*").run(lambda: model(batch.inputs))
    with pytest.raises(AtlasError, match="needs a model that calls the seam"):
        Capture(torch.nn.Linear(2, 2), ["attn"], convention="unnormalised")(torch.ones(2))
    attention = model.decoder.layers[0].self_attention
    with pytest.raises(AtlasError, match="its block did not call residual_input"):
        Capture(attention, ["attn"], convention="unnormalised")(torch.ones(1, 2, 8))


def test_own_models_pass_the_checks(world):
    corpus, features, vocab = world
    task = CaptioningDump(batch_size=3)
    task.prepare(corpus, features, vocab, {})
    batch = next(iter(task.batches(())))
    torch.manual_seed(0)
    model = captioner()
    assert len(validate(model, lambda: model(batch.inputs))) == 6


def test_wrong_dumps_are_one_line(world, tmp_path):
    with pytest.raises(ConfigError, match="gives no kind of lstm"):
        lstm = HierarchicalLSTM(4 + len(WORDS), 6, pooled=8, hidden=8)
        run_dump(world, tmp_path / "a", model=lstm.eval(), name="lstm")
    with pytest.raises(ConfigError, match=r"layers: 'cros.\*'"):
        run_dump(world, tmp_path / "b", layers="cros.*")
    with pytest.raises(ConfigError, match="settings: backends: no such setting; did you mean 'backend'"):
        read_settings({"backends": "fused", "statistics": ["lse"]})
    with pytest.raises(AtlasError, match="split 'val' has no example"):
        run_dump(world, tmp_path / "c", CaptioningDump(split="val"))
    corpus, *others = world
    named = dataclasses.replace(
        corpus, examples=[dataclasses.replace(e, id=f"train/{e.id}") for e in corpus.examples]
    )

    def never(*_):
        raise AssertionError("ids are checked before the first pass")

    with pytest.raises(AtlasError, match="id: 'train/text3' cannot name an example; use one without '/'"):
        run_dump((named, *others), tmp_path / "e", engine=never)
    with pytest.raises(ConfigError, match=r"capture.shards: must be a whole number, not 2.5"):
        Shard(0, 2.5)
    run_dump(world, tmp_path / "d", CaptioningDump(examples=2), layers=["cross.*"], check=False)
    with AttentionStore(tmp_path / "d/out/attention.h5") as store:
        assert store.ids == ["text0", "text1"] and list(store.kinds) == ["cross"]


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_shards_give_what_one_dump_gives(world, dumped, tmp_path, shards, capsys):
    """Batches of two, three of them: of seven shards, four are empty."""
    for shard in reversed(range(shards)):
        assert not (tmp_path / "out" / "attention.h5").exists()
        run_dump(world, tmp_path, check=False, shard=Shard(shard, shards, "work"))
    assert "bytes per example, from" in capsys.readouterr().out
    for name, store in (("attention.h5", AttentionStore), ("statistics.h5", StatisticsStore)):
        with store(dumped / name) as whole, store(tmp_path / "out" / name, config_hash="hash") as parts:
            assert parts.digest() == whole.digest()
        assert write_index(tmp_path / "out" / name, shards, copy=True) == len(TEXTS)
    whole = {name: value for name, value in digests(tmp_path / "out").items() if "-of-" not in name}
    assert whole == digests(dumped)
    with pytest.raises(AtlasError, match="whole file"):
        run_dump(world, tmp_path, check=False, shard=Shard(0, shards, "work"))


def test_a_shard_that_does_not_exist_is_one_line():
    with pytest.raises(
        ConfigError, match=r"capture.shard: 3 is outside 0..2; all of them: 'capture.shard=range\(3\)'"
    ):
        Shard(3, 3)
    with pytest.raises(ConfigError, match=r"capture.shards: must be at least 1"):
        Shard(0, 0)


MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {here!r})
import torch
from test_capture_dump import CaptioningDump, DumpSettings, captioner, dump, large_world
corpus, features, vocab = large_world(Path(sys.argv[1]), int(sys.argv[2]))
task = CaptioningDump(batch_size=16)
task.prepare(corpus, features, vocab, {{}})
statistics = ["mass", "entropy", "received"]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out, work = (Path(sys.argv[1]) / name for name in ("out", "work"))
dump(task, captioner(), DumpSettings(statistics, "fused"), out, work, model_name="m", config_hash="h")
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def large_world(root, count, images=50):
    """`count` captions of one length: what differs is their number."""
    scenes, examples = {}, []
    rng = np.random.default_rng(0)
    with FeaturesWriter(root / "features.h5", dim=6, regions=5, labels=["chair"], source="test") as file:
        for i in range(images):
            boxes = np.tile([0, 0, 32, 32], (5, 1))
            file.add(
                f"i{i}",
                features=rng.standard_normal((5, 6)),
                boxes=boxes,
                size=(64, 64),
                label=np.zeros(5, int),
                label_confidence=np.ones(5),
            )
            scenes[f"i{i}"] = Scene(f"i{i}", f"{i}.png", 64, 64, "test")
    for i in range(count):
        examples.append(Example(f"t{i}", f"i{i % images}", " ".join([WORDS[i % 20]] * 60)))
    return Corpus(root, scenes, examples, "large"), FeaturesFile(root / "features.h5"), Vocabulary(WORDS)


def peak(folder, count):
    """kB of memory before and at the peak of a dump."""
    folder.mkdir()
    script = MEMORY.format(here=str(Path(__file__).parent))
    run = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(count)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return [int(word) for word in run.stdout.split("\n")[-2].split()]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_examples(tmp_path):
    """Statistics of one example take 94 kB here: 300 more in memory would be 28 MB."""
    few, many = peak(tmp_path / "few", 50), peak(tmp_path / "many", 350)
    assert many[1] - few[1] < 10_000, (few, many)
