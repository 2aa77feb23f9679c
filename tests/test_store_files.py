"""attention.h5 and statistics.h5: round trips, resuming, same bytes, bad files."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attention_atlas.errors import AtlasError
from attention_atlas.recording import AttentionStore, AttentionWriter, Axis, StatisticsStore, StatisticsWriter
from attention_atlas.recording.attention import as_float32
from attention_atlas.recording.shards import CHUNK_BYTES, row_chunks

KINDS = {"cross": ("target", "region"), "decoder_self": ("target", "source")}
IDENTITY = {"model": "tiny", "config_hash": "abc", "kinds": KINDS}


def example(seed=0, words=5, regions=4):
    rng = np.random.default_rng(seed)

    def rows(keys):
        weights = rng.random((2, 3, words + 1, keys)).astype(np.float32)
        return weights / weights.sum(-1, keepdims=True)

    tokens = [f"wört{i}" for i in range(words)]
    axes = {
        "target": Axis([*tokens, "<eos>"], ["text"] * words + ["eos"], [*range(words), -1]),
        "source": Axis(["<bos>", *tokens], ["bos"] + ["text"] * words, [-1, *range(words)]),
        "region": Axis(["red chair"] * regions, ["image"] * regions, [-1] * regions),
    }
    return {"cross": rows(regions), "decoder_self": rows(words + 1)}, axes


def write(path, seeds, **options):
    with AttentionWriter(path, **{**IDENTITY, **options}) as writer:
        for seed in seeds:
            writer.write(f"id {seed}", *example(seed))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("filter", ["bitshuffle", "gzip", "none"])
def test_round_trip(tmp_path, filter):
    path = tmp_path / "attention.h5"
    with AttentionWriter(path, **IDENTITY, filter=filter) as writer:
        writer.write("a", *example(0, words=70, regions=36))
    attn, axes = example(0, words=70, regions=36)
    with AttentionStore(path, config_hash="abc") as store:
        assert store.ids == ["a"] and store.kinds == KINDS and store.attrs["convention"] == "used"
        got = store.read("a", "cross")
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, attn["cross"].astype(np.float16).astype(np.float32))
        np.testing.assert_array_equal(
            store.read("a", "cross", layers=[1, 0], rows=[7, 3, 3]), got[[1, 0]][:, :, [7, 3, 3]]
        )
        np.testing.assert_array_equal(
            store.read("a", "cross", layers=-1, rows=slice(2, 9, 3)), got[1:, :, 2:9:3]
        )
        np.testing.assert_array_equal(
            store.read("a", "cross", layers=[0], rows=[70, 2]), got[:1][:, :, [70, 2]]
        )
        np.testing.assert_array_equal(store.read("a", "cross", rows=slice(None, None, -2)), got[:, :, ::-2])
        assert store.axis("a", "target") == axes["target"]
        assert store.axis("a", "target").where("eos").sum() == 1
        store.validate()


def test_same_bytes_whether_or_not_interrupted_and_at_any_time(tmp_path):
    write(tmp_path / "one.h5", [0, 1, 2])
    time.sleep(1.1)  # HDF5 time stamps have seconds.
    other = tmp_path / "two.h5"
    AttentionWriter(other, **IDENTITY).write("id 2", *example(2))  # and no finish
    resumed = AttentionWriter(other, **IDENTITY)
    assert resumed.done == {"id 2"}
    resumed.write("id 1", *example(1))
    resumed.write("id 0", *example(0))
    resumed.finish()
    assert digest(other) == digest(tmp_path / "one.h5")
    assert not (tmp_path / "two.h5.part").exists()
    finished = AttentionWriter(other, **IDENTITY)
    assert len(finished.done) == 3
    finished.finish()
    with pytest.raises(AtlasError, match="complete without"):
        finished.write("new", *example(3))


SCRIPT = """
    import sys
    sys.path.insert(0, {here!r})
    from test_store_files import AttentionWriter, IDENTITY, example
    writer = AttentionWriter(sys.argv[1], **IDENTITY)
    for seed in range(300):
        if f"id {{seed}}" not in writer.done:
            writer.write(f"id {{seed}}", *example(seed, words=30, regions=36))
        print(seed, flush=True)
    writer.finish()
"""


def test_a_killed_writer_resumes_to_the_same_bytes(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(SCRIPT.format(here=os.path.dirname(__file__))))
    killed = tmp_path / "killed.h5"
    for stop_after in (3, 40, 290):
        process = subprocess.Popen([sys.executable, script, killed], stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if int(line) >= stop_after:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(AtlasError, match="incomplete"):
            AttentionStore(killed)
    for path in (killed, tmp_path / "whole.h5"):
        subprocess.run([sys.executable, script, path], check=True, stdout=subprocess.DEVNULL)
    assert digest(killed) == digest(tmp_path / "whole.h5")


def test_a_leftover_of_a_kill_during_assembly_is_ignored(tmp_path):
    write(tmp_path / "one.h5", [0, 1])
    writer = AttentionWriter(tmp_path / "two.h5", **IDENTITY)
    writer.write("id 0", *example(0))
    writer.close()
    (tmp_path / "two.h5.part" / "assembled.tmp").write_bytes(b"half")
    (tmp_path / "two.h5.part" / "id%201.h5.tmp").write_bytes(b"half")
    write(tmp_path / "two.h5", [1])
    assert digest(tmp_path / "one.h5") == digest(tmp_path / "two.h5")


@pytest.mark.parametrize(
    "change, field",
    [
        ({"config_hash": "other"}, "config_hash"),
        ({"model": "other"}, "model"),
        ({"convention": "unnormalised"}, "convention"),
        ({"kinds": {"cross": ("target", "region")}}, "kinds/decoder_self"),
        ({"filter": "gzip"}, "filter"),
    ],
)
def test_parts_and_results_of_another_configuration_are_refused(tmp_path, change, field):
    AttentionWriter(tmp_path / "a.h5", **IDENTITY).write("id 0", *example(0))
    with pytest.raises(AtlasError, match=f"a.h5.part/header.h5: {field}: written with"):
        AttentionWriter(tmp_path / "a.h5", **{**IDENTITY, **change})
    write(tmp_path / "b.h5", [0])
    with pytest.raises(AtlasError, match=f"b.h5: {field}: written with"):
        AttentionWriter(tmp_path / "b.h5", **{**IDENTITY, **change})


def test_bad_files_fail_in_one_line(tmp_path):
    path = tmp_path / "attention.h5"
    with pytest.raises(AtlasError, match="no such file"):
        AttentionStore(path)
    write(path, [0])
    with pytest.raises(AtlasError, match="config_hash: from configuration abc, expected xyz"):
        AttentionStore(path, config_hash="xyz")
    with pytest.raises(AtlasError, match=r"schema: 'atlas.attention/1' instead of 'atlas.statistics/1'"):
        StatisticsStore(path)
    with AttentionStore(path) as store:
        with pytest.raises(AtlasError, match="did you mean 'id 0'"):
            store.read("id 9", "cross")
        with pytest.raises(AtlasError, match="did you mean 'cross'"):
            store.read("id 0", "crosss")
        with pytest.raises(AtlasError, match=r"index 6 is outside 0..5"):
            store.read("id 0", "cross", rows=[6])
        with pytest.raises(AtlasError, match="no axis"):
            store.axis("id 0", "regions")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AtlasError, match="truncated or not HDF5") as error:
        AttentionStore(path)
    assert "\n" not in str(error.value)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file["examples/id 0/cross"][0, 0, 2, 1] = np.nan
        file["examples/id 0/decoder_self"][0, 0, 2, 1] += 0.5
    with (
        AttentionStore(path) as store,
        pytest.raises(AtlasError, match=r"cross: NaN or infinity at \(0, 0, 2, 1\)"),
    ):
        store.read("id 0", "cross")
    with h5py.File(path, "r+") as file:
        file["examples/id 0/cross"][0, 0, 2, 1] = 0.1
        file["examples/id 0/cross"][0, 0, 2, 0] = 0.2
    with AttentionStore(path) as store, pytest.raises(AtlasError, match="rows are not distributions"):
        store.validate()


def test_bad_examples_are_refused(tmp_path):
    writer = AttentionWriter(tmp_path / "a.h5", **IDENTITY)
    attn, axes = example()
    nan = attn["cross"].copy()
    nan[1, 2, 0, 3] = np.nan
    for bad, match in [
        (({"cross": nan}, axes), r"examples/x/cross: NaN or infinity at \(1, 2, 0, 3\)"),
        (({"cross": attn["cross"][..., 1:]}, axes), "does not match"),
        (({"crosss": attn["cross"]}, axes), "did you mean 'cross'"),
        (({"cross": attn["cross"]}, {"target": axes["target"]}), "axis 'region' is missing"),
    ]:
        with pytest.raises(AtlasError, match=match):
            writer.write("x", *bad)
    for id in ("", "a/b", "x" * 300):
        with pytest.raises(AtlasError, match="cannot name an example"):
            writer.write(id, attn, axes)
    assert writer.done == set()
    with pytest.raises(AtlasError, match="did you mean 'text'"):
        Axis(["a"], ["texte"])
    with pytest.raises(AtlasError, match="2 values for 1 tokens"):
        Axis(["a"], ["text"], [0, 1])
    with pytest.raises(AtlasError, match="logprob: 1 values for 2 tokens"):
        Axis(["a", "b"], logprob=[-1.0])
    with pytest.raises(AtlasError, match=r"logprob: 0\.5 is above 0; give natural logarithms"):
        Axis(["a"], logprob=[0.5])
    with pytest.raises(AtlasError, match="did you mean 'bitshuffle'"):
        AttentionWriter(tmp_path / "b.h5", **IDENTITY, filter="bitshufle")


def test_float32_of_every_half_value():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(4, -1)
    np.testing.assert_array_equal(as_float32(every), every.astype(np.float32))
    np.testing.assert_array_equal(as_float32(every[:, ::3]), every[:, ::3].astype(np.float32))


def test_log_probabilities_are_optional(tmp_path):
    """A file has them for the axes that were given them; others, and files of older versions, have none."""
    attn, axes = example(0, words=2)
    axes["target"] = Axis(axes["target"].tokens, axes["target"].roles, logprob=[-0.5, np.nan, -2.0])
    with AttentionWriter(tmp_path / "attention.h5", **IDENTITY) as writer:
        writer.write("a", attn, axes)
    with AttentionStore(tmp_path / "attention.h5") as store:
        np.testing.assert_allclose(store.axis("a", "target").logprob, [-0.5, np.nan, -2.0])
        assert store.axis("a", "source").logprob == []


def test_axis_defaults_make_every_text_token_a_word():
    assert Axis(["<s>", "a", "b"], ["bos", "text", "text"]).word == [-1, 0, 1]


@given(st.tuples(*[st.integers(1, 5000)] * 4), st.sampled_from([2, 4]))
@settings(max_examples=200, deadline=None)
def test_chunks_are_about_a_mebibyte_and_hold_few_rows(shape, itemsize):
    chunks = row_chunks(shape, itemsize)
    assert all(1 <= c <= s for c, s in zip(chunks, shape))
    size, total = (int(np.prod([*x, itemsize], dtype=np.int64)) for x in (chunks, shape))
    if total <= CHUNK_BYTES:
        assert chunks == shape
    else:
        assert size > CHUNK_BYTES // 2
        assert size <= CHUNK_BYTES or chunks[:3] == (1, 1, 1)


def test_statistics_round_trip(tmp_path):
    path = tmp_path / "statistics.h5"
    rng = np.random.default_rng(0)
    _, axes = example()
    mass = rng.random((2, 3, 6, 2))
    lse = rng.random((2, 3, 6)).astype(np.float32)
    lse[0, 0, 0] = -np.inf
    options = dict(model="m", config_hash="h", kinds=KINDS, groups={"region": ["a", "b"]})
    with StatisticsWriter(path, **options) as writer:
        writer.write("x", {"cross": {"mass": mass, "lse": lse}}, axes)
        with pytest.raises(AtlasError, match="does not match the groups of 'region'"):
            writer.write("y", {"cross": {"mass": mass[..., :1]}}, axes)
        with pytest.raises(AtlasError, match="does not match 6 query tokens"):
            writer.write("y", {"cross": {"lse": lse[:, :, 1:]}}, axes)
        with pytest.raises(AtlasError, match="entropy: NaN or infinity"):
            writer.write("y", {"cross": {"entropy": lse}}, axes)
    with StatisticsStore(path) as store:
        assert store.groups == {"region": ["a", "b"]}
        assert store.names("x", "cross") == ["lse", "mass"]
        np.testing.assert_array_equal(store.read("x", "cross", "mass"), mass.astype(np.float32))
        np.testing.assert_array_equal(store.read("x", "cross", "lse"), lse)
        with pytest.raises(AtlasError, match="did you mean 'mass'"):
            store.read("x", "cross", "masse")


def test_parts_without_their_header_are_not_taken_over(tmp_path):
    """Nobody knows with which configuration they were written."""
    writer = AttentionWriter(tmp_path / "a.h5", work="old", **IDENTITY)
    writer.write("id 0", *example(0))
    writer.close()
    with pytest.raises(AtlasError, match=rf"'old', but 'new' is requested; delete {tmp_path}/a.h5.part to"):
        AttentionWriter(tmp_path / "a.h5", work="new", **IDENTITY)
    (tmp_path / "a.h5.part/header.h5").unlink()
    writer = AttentionWriter(tmp_path / "a.h5", work="new", **IDENTITY)
    assert writer.done == set()
    writer.close()


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_results_move_to_another_file_system(tmp_path):
    import shutil
    import tempfile
    from pathlib import Path

    from attention_atlas.files import link, move

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        other = Path(folder)
        if other.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("/dev/shm is on the same file system")
        for target in (tmp_path / "here", other / "there"):
            source = tmp_path / "run"
            (source / "deep").mkdir(parents=True)
            (source / "deep/file").write_text("new")
            target.mkdir()
            (target / "old").touch()
            move(source, target)
            assert [p.name for p in target.iterdir()] == ["deep"] and not source.exists()
            assert (target / "deep/file").read_text() == "new"
            file = tmp_path / "file"
            file.write_text("linked")
            link(file, target / "file")
            assert (target / "file").read_text() == "linked"
            assert file.exists() == (target.parent == tmp_path)
            assert {p.name for p in target.parent.iterdir()} <= {target.name, "file", "here"}
            file.unlink(missing_ok=True)
            shutil.rmtree(target)
