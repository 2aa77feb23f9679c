"""capture.engine=ray on a real local cluster of two nodes: the same bytes as without Ray, also when an actor
is killed."""

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import partial

import pytest
from test_capture_dump import TEXTS, captioner, digests, run_dump, world  # noqa: F401
from test_own_phases import own_data
from tiny_checkpoints import FAMILIES

from attention_atlas.dumps.captioning import CaptioningDump
from attention_atlas.dumps.dump import DumpSettings, Shard, dump
from attention_atlas.dumps.jobs import _load_vlm
from attention_atlas.dumps.on_ray import RayEngine
from attention_atlas.dumps.vision_llm import VisionLlmDump
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.vlm.load import load_vlm
from attention_atlas.recording.index import write_index
from attention_atlas.studies.vlm_phases.own import own_corpus


def test_without_ray_it_says_how_to_install_it(world, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"capture.engine: ray: .*pip install 'attention-atlas\[ray\]'"):
        run_dump(world, tmp_path, check=False, engine=RayEngine(load))


def load(device):
    assert device == "cpu"
    return captioner()


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'attention-atlas[ray]')")
    from ray.cluster_utils import Cluster

    # Workers find this file and the library.
    here = [os.path.dirname(__file__), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 100_000_000})
    made.add_node(num_cpus=2, object_store_memory=100_000_000)
    ray.init(
        address=made.address,
        logging_level="error",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(here)}},
    )
    yield ray
    ray.shutdown()
    made.shutdown()


@dataclass
class Watched(CaptioningDump):
    """Each pass adds to a file named after its process, and takes a while. Not those of the process `here`,
    which measures sizes."""

    folder: str = ""
    pause: float = 0.0
    fails: bool = False
    here: int = field(default_factory=os.getpid)

    def forward(self, model, inputs):
        if os.getpid() != self.here:
            if self.fails:
                raise AtlasError("weights: broken; train again")
            with open(os.path.join(self.folder, str(os.getpid())), "a") as file:
                file.write("x")
            time.sleep(self.pause)
        return super().forward(model, inputs)


@pytest.fixture(scope="module")
def here(world, tmp_path_factory):  # noqa: F811
    """A dump without Ray."""
    folder = tmp_path_factory.mktemp("here")
    run_dump(world, folder, CaptioningDump(batch_size=1), check=False)
    return digests(folder / "out")


@pytest.mark.slow
def test_ray_writes_the_same_bytes(cluster, world, here, tmp_path):  # noqa: F811
    assert len([n for n in cluster.nodes() if n["Alive"]]) == 2
    run_dump(world, tmp_path, CaptioningDump(batch_size=1), engine=RayEngine(load, actors=2))
    assert digests(tmp_path / "out") == here


@pytest.mark.slow
def test_a_killed_actor_changes_nothing(cluster, world, here, tmp_path):  # noqa: F811
    passes = tmp_path / "passes"
    passes.mkdir()
    killed = []

    def kill():
        while not killed:
            time.sleep(0.05)
            for file in passes.iterdir():
                os.kill(int(file.name), signal.SIGKILL)
                killed.append(file.name)
                return

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    task = Watched(batch_size=1, folder=str(passes), pause=1.0)
    run_dump(world, tmp_path, task, check=False, engine=RayEngine(load, actors=1))
    killer.join(1)
    others = [file for file in passes.iterdir() if file.name not in killed]
    assert len(killed) == 1 and others, "another actor went on"
    assert sum(len(file.read_text()) for file in others) >= len(TEXTS) - 1
    assert digests(tmp_path / "out") == here


@pytest.mark.slow
def test_an_error_in_an_actor_is_one_line_and_the_next_run_goes_on(cluster, world, here, tmp_path):  # noqa: F811
    task = Watched(batch_size=1, folder=str(tmp_path), fails=True)
    with pytest.raises(AtlasError) as raised:
        run_dump(world, tmp_path, task, check=False, engine=RayEngine(load, actors=1))
    assert str(raised.value) == "weights: broken; train again"
    for shard in range(2):
        run_dump(
            world,
            tmp_path,
            CaptioningDump(batch_size=1),
            check=False,
            engine=RayEngine(load),
            shard=Shard(shard, 2, "work"),
        )
    for name in here:
        write_index(tmp_path / "out" / name, 2, copy=True)
        assert digests(tmp_path / "out")[name] == here[name]


@pytest.mark.slow
def test_a_vision_llm_on_ray(cluster, tmp_path):
    """Images are prepared in processes without the model."""
    source = {"_target_": "attention_atlas.studies.vlm_phases.any_model.load_any", "name": "qwen2_vl"}
    source |= {"run_folder": None, "path": str(FAMILIES["qwen2_vl"](tmp_path / "model"))}
    task = VisionLlmDump("train+val+test")
    loaded = load_vlm(source)
    task.prepare(own_corpus(own_data(tmp_path / "data")), None, loaded.inputs, {})
    settings = DumpSettings(["mass", "entropy"], layers="decoder", check=False)
    found = []
    for engine in (None, RayEngine(partial(_load_vlm, source), actors=2, device="cpu")):
        out, work = (tmp_path / f"{name}{len(found)}" for name in ("out", "work"))
        dump(task, loaded.model, settings, out, work, model_name="m", config_hash="h", engine=engine)
        found.append((out / "statistics.h5").read_bytes())
    assert found[0] == found[1]
