"""The build driver: same bytes at any worker count, resumes after SIGKILL, clear errors."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from worlds_toy import Squares

from attention_atlas.data.corpus import read_corpus
from attention_atlas.errors import ConfigError
from attention_atlas.synthetic.build import build_world
from attention_atlas.synthetic.rooms import Rooms

SIZES = {"train": 20, "val": 3, "test": 2}


def digest(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def build(tmp_path: Path, name: str, world=None, sizes=SIZES, seed=5, workers=1) -> Path:
    build_world(world or Squares(), tmp_path / name, tmp_path / f"{name}.work", sizes, seed, workers)
    return tmp_path / name


def test_writes_a_corpus_that_reads_back(tmp_path):
    root = build(tmp_path, "a")
    corpus = read_corpus(root)
    assert {s: len(corpus.split(s)) for s in ("train", "val", "test")} == SIZES
    assert len(list((root / "images").iterdir())) == 25
    assert all(corpus.image_path(i).exists() for i in corpus.scenes)
    rows = [json.loads(line) for line in (root / "colors.jsonl").read_text().splitlines()]
    assert [r["image_id"] for r in rows] == list(corpus.scenes)
    assert not (tmp_path / "a.work").exists()


def test_the_number_of_workers_changes_no_byte(tmp_path):
    assert digest(build(tmp_path, "one")) == digest(build(tmp_path, "three", workers=3))


def test_another_seed_gives_other_images_and_each_scene_is_different(tmp_path):
    first, second = digest(build(tmp_path, "a")), digest(build(tmp_path, "b", seed=6))
    images = [name for name in first if name.endswith(".png")]
    assert sum(first[n] != second[n] for n in images) == len(images)
    assert len({first[n] for n in images}) == len(images)


def test_a_larger_split_begins_with_the_smaller_ones_scenes(tmp_path):
    small = digest(build(tmp_path, "a", sizes={"train": 2, "test": 2}))
    large = digest(build(tmp_path, "b", sizes={"train": 4, "val": 1, "test": 2}))
    assert {n: large[n] for n in small if n.endswith(".png")} == {
        n: d for n, d in small.items() if n.endswith(".png")
    }


def test_an_older_result_is_replaced_whole(tmp_path):
    build(tmp_path, "a")
    (tmp_path / "a" / "stray.txt").write_text("old")
    root = build(tmp_path, "a", sizes={"test": 1})
    assert sorted(digest(root)) == [
        "colors.jsonl",
        "descriptions.jsonl",
        "images/test_00000.png",
        "scenes.jsonl",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_killed_work_resumes_to_the_same_bytes(tmp_path):
    script = (
        "import sys\nfrom worlds_toy import Squares\n"
        "from attention_atlas.synthetic.build import build_world\n"
        f"build_world(Squares(pause=0.15), sys.argv[1], sys.argv[1] + '.work', {SIZES}, 5, 2)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "a")], env=environment)
    rows = tmp_path / "a.work" / "rows"
    deadline = time.time() + 30
    while time.time() < deadline and (not rows.exists() or len(list(rows.glob("*.json"))) < 4):
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert len(workers) >= 2 and not alive  # they leave with their parent
    done = sorted(rows.glob("[!.]*.json"))
    assert 4 <= len(done) < 25 and not (tmp_path / "a").exists()
    kept = (tmp_path / "a.work" / "corpus" / "images" / f"{done[0].stem}.png").stat().st_mtime_ns
    (tmp_path / "a.work" / "corpus" / "images" / ".train_00019.1.part.png").write_bytes(b"half")
    root = build(tmp_path, "a")
    assert (root / "images" / f"{done[0].stem}.png").stat().st_mtime_ns == kept  # not rendered again
    assert digest(root) == digest(build(tmp_path, "b"))


def test_unfinished_work_of_other_settings_is_not_mixed_in(tmp_path):
    build(tmp_path, "b", Squares(side=20))
    work = tmp_path / "a.work"
    (work / "rows").mkdir(parents=True)
    (work / "stamp.json").write_text(json.dumps({"world": {"side": 16}, "seed": 5, "code": "other"}))
    (work / "rows" / "train_00000.json").write_text("{}")
    assert digest(build(tmp_path, "a", Squares(side=20))) == digest(tmp_path / "b")


@pytest.mark.parametrize(
    "sizes, workers, message",
    [
        ({"trian": 3}, 1, "did you mean 'train'"),
        ({"train": -1}, 1, "sizes: train"),
        ({"train": 0}, 1, "no scenes"),
        ({"train": 1}, 0, "workers"),
    ],
)
def test_bad_sizes_are_named(tmp_path, sizes, workers, message):
    with pytest.raises(ConfigError, match=message):
        build(tmp_path, "a", sizes=sizes, workers=workers)


def test_bad_image_size_is_named():
    with pytest.raises(ConfigError, match=r"image_size: 8"):
        Rooms(image_size=8)


@pytest.mark.slow
def test_rooms_are_the_same_bytes_in_one_process_and_in_two(tmp_path):
    sizes = {"train": 14, "val": 1, "test": 2}
    one = digest(build(tmp_path, "one", Rooms(image_size=64), sizes, 0))
    assert one == digest(build(tmp_path, "two", Rooms(image_size=64), sizes, 0, workers=2))
    corpus = read_corpus(tmp_path / "one")
    assert all(len(s.objects) >= 7 for s in corpus.scenes.values())
