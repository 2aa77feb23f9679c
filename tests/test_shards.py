"""A capture in shards: what is read does not depend on their number; space on the disk; unfinished files."""

import errno
import hashlib
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from test_store_files import IDENTITY, example

from attention_atlas.dumps.sizes import human, table
from attention_atlas.errors import AtlasError
from attention_atlas.recording import (
    AttentionStore,
    AttentionWriter,
    Axis,
    StatisticsStore,
    StatisticsWriter,
    index,
    inspect,
)
from attention_atlas.recording.index import shard_path, write_index

MANY = 11


def sharded(folder, shards, ids=range(MANY), **options):
    folder.mkdir(exist_ok=True)
    for shard in range(shards):
        with AttentionWriter(
            shard_path(folder / "attention.h5", shard, shards), **IDENTITY, **options
        ) as writer:
            for seed in list(ids)[shard::shards]:
                writer.write(f"id {seed}", *example(seed, words=3 + seed))
    return folder / "attention.h5"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return sharded(tmp_path_factory.mktemp("plain"), 1)


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("shards", [2, 3, 7, 13])
def test_what_is_read_does_not_depend_on_the_number_of_shards(tmp_path, plain, shards):
    path = sharded(tmp_path, shards, work="abc")
    assert write_index(path, shards) == MANY
    assert path.stat().st_size < plain.stat().st_size / 2
    with AttentionStore(plain, config_hash="abc") as whole, AttentionStore(path, config_hash="abc") as parts:
        assert parts.ids == whole.ids and parts.attrs == whole.attrs and parts.kinds == whole.kinds
        assert parts.digest() == whole.digest()
        for id in whole.ids:
            np.testing.assert_array_equal(
                parts.read(id, "cross", rows=[-1]), whole.read(id, "cross", rows=[-1])
            )
            assert parts.axis(id, "target") == whole.axis(id, "target")
        parts.validate()
    with h5py.File(path, "r") as file:  # any HDF5 tool
        assert file["examples/id 3/cross"].shape == (2, 3, 7, 4)
    moved = tmp_path.rename(tmp_path.with_name(f"moved {shards}"))
    assert index.main([str(moved), "--copy"]) == 0
    assert sha(moved / "attention.h5") == sha(plain)


def test_the_digest_changes_with_any_value(tmp_path, plain):
    other = sharded(tmp_path, 1)
    with h5py.File(other, "r+") as file:
        file["examples/id 4/cross"][0, 0, 0, 0] += np.float16(0.01)
    with AttentionStore(plain) as a, AttentionStore(other) as b:
        assert a.digest() != b.digest()


def test_no_index_of_missing_or_foreign_shards(tmp_path, plain):
    path = sharded(tmp_path, 3, work="abc")
    second = shard_path(path, 1, 3)
    second.rename(tmp_path / "away")
    with pytest.raises(AtlasError, match=r"attention-00001-of-00003\.h5: shard: is not complete"):
        write_index(path, 3)
    assert not path.exists()
    write_index(path, 3, partial=True)
    with pytest.raises(AtlasError, match="complete: the file is incomplete"):
        AttentionStore(path)
    with AttentionStore(path, partial=True) as store:
        assert len(store) == 7
    with AttentionWriter(second, **IDENTITY, work="other") as writer:
        writer.write("id 1", *example(1))
    with pytest.raises(AtlasError, match="work: 'other', but 'abc' in the first shard"):
        write_index(path, 3)
    second.unlink()
    with AttentionWriter(second, **IDENTITY, work="abc") as writer:
        writer.write("id 0", *example(0))
    with pytest.raises(AtlasError, match=r"id: 'id 0' is also in attention-00000-of-00003\.h5"):
        write_index(path, 3)
    second.unlink()
    (tmp_path / "away").rename(second)
    write_index(path, 3)
    second.write_bytes(second.read_bytes()[:-1])
    with pytest.raises(AtlasError, match=r"attention-00001-of-00003\.h5: is not as it was indexed"):
        AttentionStore(path)
    second.unlink()
    with pytest.raises(AtlasError, match=r"attention-00001-of-00003\.h5: shard is missing"):
        AttentionStore(path)
    with pytest.raises(AtlasError, match="is a whole file"):
        write_index(plain, 3, partial=True)


def test_the_command_names_what_is_wrong(tmp_path, capsys):
    assert index.main([str(tmp_path)]) == 1 and "no shards here" in capsys.readouterr().err
    sharded(tmp_path, 2)
    assert index.main([str(tmp_path)]) == 0 and "11 examples in 2 of 2 shards" in capsys.readouterr().out
    sharded(tmp_path, 3)
    assert index.main([str(tmp_path)]) == 1 and "of 2 and of 3" in capsys.readouterr().err


def test_more_shards_than_files_may_be_open(tmp_path, plain, monkeypatch):
    path = sharded(tmp_path, 7)
    write_index(path, 7)
    monkeypatch.setattr("attention_atlas.recording.reader.OPEN_SHARDS", 2)
    with AttentionStore(path) as store:
        for _ in range(2):
            for id in store.ids:
                store.read(id, "cross")
        assert len(store._open_shards) == 2


def test_an_unfinished_file_can_be_read(tmp_path, capsys):
    path = tmp_path / "attention.h5"
    writer = AttentionWriter(path, **IDENTITY)
    writer.write("id 1", *example(1))
    with pytest.raises(AtlasError, match="incomplete"):
        AttentionStore(path)
    with AttentionStore(path, partial=True) as store:
        assert store.ids == ["id 1"] and store.read("id 1", "cross").shape == (2, 3, 6, 4)
    assert inspect.main([str(path), "--partial"]) == 0 and "examples: 1" in capsys.readouterr().out


FULL = """
import resource, signal, sys
sys.path.insert(0, {here!r})
from test_store_files import AttentionWriter, AtlasError, IDENTITY, example
folder, limit = sys.argv[1], int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with AttentionWriter(folder + "/attention.h5", **IDENTITY, filter="none") as writer:
        for seed in range(40):
            if f"id {{seed}}" not in writer.done:
                writer.write(f"id {{seed}}", *example(seed, words=40, regions=36))
except AtlasError as error:
    print(error)
    sys.exit(1)
"""


def fill(folder, limit):
    script = FULL.format(here=os.path.dirname(__file__))
    return subprocess.run([sys.executable, "-c", script, folder, str(limit)], capture_output=True, text=True)


def survives(folder, run):
    """One line; what is there can be read; the next run continues to the same bytes."""
    assert run.returncode == 1 and run.stdout.count("\n") == 1 and run.stderr == "", run.stderr
    assert "no space left" in run.stdout
    assert not (folder / "attention.h5").exists() and not list(folder.glob("*/*.tmp"))
    with AttentionStore(folder / "attention.h5", partial=True) as store:
        store.validate()
        return len(store)


def test_a_limit_on_file_sizes_ends_in_one_line(tmp_path):
    """The parts fit, the file that they are put together in does not."""
    assert survives(tmp_path, fill(tmp_path, 200_000)) == 40
    assert fill(tmp_path, 0).returncode == 0
    other = tmp_path / "other"
    other.mkdir()
    fill(other, 0)
    assert sha(tmp_path / "attention.h5") == sha(other / "attention.h5")


def test_a_full_disk_ends_in_one_line(tmp_path):
    """A real one, of 1 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        assert 3 <= survives(tmp_path, fill(tmp_path, 0)) < 40
        subprocess.run(["mount", "-o", "remount,size=32m", tmp_path], check=True)
        assert fill(tmp_path, 0).returncode == 0
        with AttentionStore(tmp_path / "attention.h5") as store:
            assert len(store) == 40
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_other_errors_of_the_disk_are_not_called_full(tmp_path, monkeypatch):
    writer = AttentionWriter(tmp_path / "attention.h5", **IDENTITY)

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="Input/output"):
        writer.write("id 0", *example(0))


def test_bytes_per_example_are_those_of_the_file(tmp_path):
    """Against the sizes that HDF5 reports for the finished file."""
    kinds, groups = {"joint": ("sequence", "sequence")}, {"sequence": ["text", "image"]}
    mass = np.random.default_rng(0).random((2, 3, 50, 2)).astype(np.float32)
    values = {"joint": {"mass": mass, "lse": mass[..., 0]}}
    axes = {"sequence": Axis(["x"] * 50)}
    with StatisticsWriter(
        tmp_path / "s.h5", model="m", config_hash="h", kinds=kinds, groups=groups, filter="none"
    ) as writer:
        size = writer.stored("a", values, axes)
        writer.write("a", values, axes)
    assert size["mass"] == mass.nbytes and size["lse"] == mass.nbytes / 2
    with StatisticsStore(tmp_path / "s.h5") as store:
        assert store._file["examples/a/joint/mass"].id.get_storage_size() == size["mass"]
    part = (tmp_path / "s.h5").stat().st_size
    assert 0.5 * part < sum(size.values()) <= part


def test_the_table_says_when_the_disk_is_too_small():
    class Writer:
        def stored(self, id, values, axes):
            return {"mass": 1000 * len(axes), "axes": 24}

    from attention_atlas.dumps.batches import Found

    samples = [Found("a", {}, {"x": None}), Found("b", {}, {"x": None, "y": None})]
    lines = table(samples, {"statistics.h5": Writer()}, left=1000, free=3_047_999)
    assert lines[1].split() == ["statistics.h5", "mass", "1,500"]
    assert lines[3] == "1,000 examples: 1.5 MB, until they are put together 3.0 MB"
    assert lines[4].startswith("free: 3.0 MB; NOT ENOUGH")
    assert table(samples, {"s": Writer()}, left=1000, free=3_048_000)[-1] == "free: 3.0 MB"
    assert human(0) == "0 B"
