"""One writer of a file at a time; a complete file holds readable examples only."""

import os
import platform
import signal
import subprocess
import sys
import textwrap

import h5py
import pytest
from test_store_files import IDENTITY, SCRIPT, example

from attention_atlas.errors import AtlasError
from attention_atlas.files import write_text
from attention_atlas.recording import AttentionStore, AttentionWriter


def test_a_second_writer_fails_in_one_line_and_does_not_disturb_the_first(tmp_path):
    path = tmp_path / "a.h5"
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(SCRIPT.format(here=os.path.dirname(__file__))))
    command = [sys.executable, script, path]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    first.stdout.readline()  # it is at work
    os.kill(first.pid, signal.SIGSTOP)
    try:
        with pytest.raises(AtlasError, match=r"a\.h5: another process is writing here; wait") as error:
            AttentionWriter(path, **IDENTITY)
        assert "\n" not in str(error.value)
        second = subprocess.run(command, capture_output=True, text=True)
        assert second.returncode and "another process is writing here" in second.stderr
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.communicate()
    assert first.returncode == 0
    with AttentionStore(path) as store:
        assert len(store.ids) == 300
        store.validate()


def test_a_writer_that_fails_frees_its_file(tmp_path):
    with pytest.raises(RuntimeError), AttentionWriter(tmp_path / "a.h5", **IDENTITY) as failed:
        failed.write("id 0", *example(0))
        raise RuntimeError
    with AttentionWriter(tmp_path / "a.h5", **IDENTITY) as second:
        assert second.done == {"id 0"}
        with pytest.raises(AtlasError, match="another process"):
            AttentionWriter(tmp_path / "a.h5", **IDENTITY)
    assert not (tmp_path / "a.h5.part").exists()


@pytest.mark.parametrize("damage", ["cut", "zeros", "empty", "chunk"])
def test_an_unreadable_example_of_an_earlier_run_is_written_again(tmp_path, damage):
    shape = {"words": 70, "regions": 36}
    writer = AttentionWriter(tmp_path / "a.h5", **IDENTITY)
    for seed in (0, 1):
        writer.write(f"id {seed}", *example(seed, **shape))
    writer.close()
    shard = tmp_path / "a.h5.part" / "id%201.h5"
    whole = shard.read_bytes()
    half = len(whole) // 2
    shard.write_bytes(
        {
            "cut": whole[:half],
            "zeros": bytes(len(whole)),
            "empty": b"",
            # The file opens, but a compressed chunk does not unpack.
            "chunk": whole[:half] + b"\xff" * 4000 + whole[half + 4000 :],
        }[damage]
    )
    with AttentionWriter(tmp_path / "a.h5", **IDENTITY) as resumed:
        assert resumed.done == {"id 0"}
        resumed.write("id 1", *example(1, **shape))
    with AttentionStore(tmp_path / "a.h5") as store:
        assert store.ids == ["id 0", "id 1"]
        store.validate()


def test_a_damaged_chunk_is_one_line_when_it_is_read(tmp_path):
    with AttentionWriter(tmp_path / "a.h5", **IDENTITY) as writer:
        writer.write("id 0", *example(0, words=70, regions=36))
    with h5py.File(tmp_path / "a.h5") as file:
        start = file["examples/id 0/cross"].id.get_chunk_info(0).byte_offset
    with (tmp_path / "a.h5").open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 4000)
    with AttentionStore(tmp_path / "a.h5") as store, pytest.raises(AtlasError, match="unreadable") as error:
        store.validate()
    assert "\n" not in str(error.value)


def test_a_write_removes_what_a_killed_process_left_and_nothing_else(tmp_path):
    out = tmp_path / "table.csv"
    code = "import os, sys; from attention_atlas.files import atomic_path\n"
    code += "with atomic_path(sys.argv[1]) as part: part.write_text('half'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, out], check=False)
    (left,) = tmp_path.iterdir()
    others = [
        left.with_name(left.name.replace(*change)) for change in ((".table.", ".other."), (".csv", ".tex"))
    ]
    running = left.with_name(f".table.{platform.node()}-{os.getppid()}.part.csv")
    elsewhere = left.with_name(".table.elsewhere-1234567.part.csv")
    for kept in (*others, running, elsewhere):
        kept.write_text("x")
    write_text(out, "whole")
    assert set(tmp_path.iterdir()) == {out, *others, running, elsewhere}
    assert out.read_text() == "whole"
