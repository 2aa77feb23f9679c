"""Faults on purpose (docs/reliability.md): `python tests/torture.py PART ... [--graph toy] [--kills N]`.

Each part runs a graph of stages under a fault, starts it again where the fault stopped it, and compares the
digest of every output with an undisturbed run. `toy` is a graph of two stages, which take seconds; `smoke` is
the smoke profile of this repository.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30
TOY = """
import sys
import time

import numpy as np
from attention_atlas.files import read_json, write_json
from attention_atlas.recording import AttentionStore, AttentionWriter, Axis
from attention_atlas.workflow.stage import stage

NAME = sys.argv.pop(1)


@stage("world")
def dump(cfg, job):
    work = job.work()
    with AttentionWriter(work / "a.h5", model="m", config_hash="h", kinds={"k": ("q", "k")}) as writer:
        for n in range(40):
            if f"e{n:02}" not in writer.done:
                rows = np.random.default_rng(n).random((2, 2, 30, 30)).astype("f4")
                axes = {name: Axis(["x"] * 30) for name in "qk"}
                writer.write(f"e{n:02}", {"k": rows / rows.sum(-1, keepdims=True)}, axes)
                time.sleep(0.05)
    import shutil
    from pathlib import Path

    Path("data").mkdir(exist_ok=True)
    shutil.move(work / "a.h5", "data/a.h5")


@stage("world")
def measure(cfg, job):
    with AttentionStore("data/a.h5") as store:
        store.validate()
        write_json("data/b.json", {i: float(store.read(i, "k").max()) for i in store.ids})


if __name__ == "__main__":
    {"dump": dump, "measure": measure}[NAME]()
"""
TOY_STAGES = {
    "dump": {"cmd": "python toy.py dump", "deps": ["toy.py"], "outs": ["data/a.h5"]},
    "measure": {"cmd": "python toy.py measure", "deps": ["toy.py", "data/a.h5"], "outs": ["data/b.json"]},
}


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"} | more


@dataclass
class Graph:
    """A repository with a graph of stages, and the command that runs it."""

    name: str
    targets: tuple[str, ...] = ()

    def make(self, folder: Path) -> Path:
        from attention_atlas.workflow.manifests import Manifests
        from attention_atlas.workflow.profiles import apply_profile, copy_repository

        if self.name == "smoke":
            copy_repository(ROOT, folder)
            apply_profile(folder, "smoke")
            Manifests(folder).write_graph()
            return folder
        shutil.copytree(ROOT / "conf", folder / "conf")
        shutil.copy(ROOT / "params.yaml", folder)
        (folder / "toy.py").write_text(TOY)
        (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": TOY_STAGES}))
        (folder / ".gitignore").write_text("/data\n/.work\n/mlflow.db\n/mlartifacts\n")
        for words in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
            subprocess.run(words, cwd=folder, env=environment(), check=True, capture_output=True)
        return folder

    def command(self) -> list[str]:
        if self.name == "toy":
            return [sys.executable, "-m", "dvc", "repro"]
        return [sys.executable, "-m", "attention_atlas.workflow.parallel", *self.targets]


def outputs(folder: Path) -> dict[str, str]:
    """{file below an output of dvc.lock: SHA-256}."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    found = {}
    for stage in stages.values():
        for out in stage.get("outs", ()):
            place = folder / out["path"]
            for file in [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file()):
                name = file.relative_to(folder).as_posix()
                found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def start(graph: Graph, folder: Path, log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """The graph's command in its own process group; its output is appended to `log`."""
    options.setdefault("env", environment())
    before = options.pop("before", [])
    with log.open("ab") as file:
        return subprocess.Popen(
            [*before, *graph.command()],
            cwd=folder, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, **options,
        )  # fmt: skip


class Torture:
    """The parts; each returns what came out, and raises AssertionError where it is wrong."""

    def __init__(self, graph: Graph, kills: int, seed: int, folder: Path) -> None:
        self.graph, self.kills, self.folder = graph, kills, folder
        self.random = random.Random(seed)
        self._wanted: dict[str, str] = {}
        self.seconds = 0.0

    @property
    def wanted(self) -> dict[str, str]:
        """Digests of an undisturbed run, made at first use."""
        if not self._wanted:
            begin = time.monotonic()
            self._wanted = self.finished(self.graph.make(self.folder / "undisturbed"))
            self.seconds = time.monotonic() - begin
        return self._wanted

    def finished(self, folder: Path, **options: Any) -> dict[str, str]:
        """Digests after a run to the end, which must succeed."""
        log = self.folder / f"{folder.name}.log"
        code = start(self.graph, folder, log, **options).wait()
        assert code == 0, f"exit code {code}, see {log}: {tail(log)}"
        return outputs(folder)

    def same(self, folder: Path, **options: Any) -> str:
        wanted, found = self.wanted, self.finished(folder, **options)
        differing = sorted(
            name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
        )
        assert not differing, f"{len(differing)} of {len(wanted)} outputs differ: {differing[:5]}"
        return f"{len(wanted)} of {len(wanted)} outputs equal"

    def kill(self) -> str:
        """SIGKILL to the process group at random moments, each followed by a start of the same command."""
        _ = self.wanted
        folder = self.graph.make(self.folder / "kill")
        for _ in range(self.kills):
            process = start(self.graph, folder, self.folder / "kill.log")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.random.uniform(0.05, 0.95) * self.seconds / max(1, self.kills / 3))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return f"{self.kills} kills, then {self.same(folder)}"

    def orphan(self) -> str:
        """SIGKILL to DVC alone while a stage runs; the next start succeeds."""
        _ = self.wanted
        folder = self.graph.make(self.folder / "orphan")
        process = start(self.graph, folder, self.folder / "orphan.log")
        end = time.monotonic() + 120
        while not list(folder.glob(".work/*/*/*")) and time.monotonic() < end:
            time.sleep(0.05)
        process.kill()
        process.wait()
        return self.same(folder)

    def disk(self) -> str:
        """A tmpfs too small for the outputs, then one that is large enough."""
        wanted = self.wanted
        size = sum((self.folder / "undisturbed" / name).stat().st_size for name in wanted)
        with tmpfs(self.folder / "disk", 64 * GIB) as grow:
            folder = self.graph.make(self.folder / "disk" / "repository")
            used = shutil.disk_usage(folder).used
            grow(used + max(size // 3, 2**18))
            log = self.folder / "disk.log"
            code = start(self.graph, folder, log).wait()
            text = log.read_text(errors="replace")
            assert code not in (0, -signal.SIGSEGV, 139) and "no space left" in text.lower(), tail(log)
            assert "Traceback" not in text, text[text.index("Traceback") :][:900]
            grow(64 * GIB)
            return f"full at a third, no traceback; then {self.same(folder)}"

    def truncate(self) -> str:
        """Each input of each stage cut at a random place: the stage ends with one line, or reads it."""
        _ = self.wanted
        folder = self.folder / "undisturbed"
        stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
        made = {out["path"] for s in stages.values() for out in s.get("outs", ())}
        refused = accepted = 0
        unclear: list[str] = []
        for stage in stages.values():
            for dep in [d["path"] for d in stage.get("deps", ()) if d["path"] in made]:
                place = folder / dep
                files = [place] if place.is_file() else [p for p in sorted(place.rglob("*")) if p.is_file()]
                file = self.random.choice(files)
                whole = file.read_bytes()
                keep = [(folder / o["path"], self.folder / "kept" / o["path"]) for o in stage.get("outs", ())]
                for out, copy in keep:
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copytree(out, copy) if out.is_dir() else shutil.copy2(out, copy)
                file.write_bytes(whole[: self.random.randrange(len(whole))])
                done = subprocess.run(
                    stage["cmd"], shell=True, cwd=folder, env=environment(), capture_output=True, text=True
                )
                file.write_bytes(whole)
                for out, copy in keep:
                    shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
                    shutil.move(copy, out)
                errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
                if done.returncode == 0:
                    accepted += 1
                    continue
                clear = done.returncode in (1, 2) and len(errors) == 1 and "Traceback" not in done.stderr
                refused += clear
                if not clear:
                    unclear.append(f"{stage['cmd']}: {dep} cut: {done.returncode}, {done.stderr[-900:]}")
        assert not unclear, f"{len(unclear)} of {refused + accepted + len(unclear)}: " + "\n".join(unclear)
        return f"{refused} refused in one line, {accepted} read to an earlier end"

    def twice(self) -> str:
        """Two runs started at once in one repository."""
        folder = self.graph.make(self.folder / "twice")
        both = [start(self.graph, folder, self.folder / f"twice{n}.log") for n in range(2)]
        codes = [process.wait() for process in both]
        for n in range(2):
            text = (self.folder / f"twice{n}.log").read_text(errors="replace")
            assert "Traceback" not in text, text[-900:]
        return f"exit codes {sorted(codes)}, then {self.same(folder)}"

    def store(self) -> str:
        """MLflow's store without permission to write."""
        folder = self.graph.make(self.folder / "store")
        (folder / "mlflow.db").write_bytes(b"")
        (folder / "mlflow.db").chmod(0o444)
        log = self.folder / "store.log"
        code = start(self.graph, folder, log, preexec_fn=obey_permissions).wait()
        text = log.read_text(errors="replace")
        assert code == 0 and "Traceback" not in text, text[-900:]
        (folder / "mlflow.db").unlink()
        return f"exit code 0, no traceback; then {self.same(folder)}"

    def path(self) -> str:
        return self.same(self.graph.make(self.folder / "spaces in it, é and 100%20 项目"))

    def home(self) -> str:
        """HOME cannot be written."""
        home = self.folder / "home"
        home.mkdir()
        home.chmod(0o555)
        env = environment(HOME=str(home))
        return self.same(self.graph.make(self.folder / "no home"), env=env, preexec_fn=obey_permissions)

    def nohome(self) -> str:
        env = environment()
        env.pop("HOME", None)
        return self.same(self.graph.make(self.folder / "without home"), env=env)

    def lang(self) -> str:
        env = {k: v for k, v in environment(LANG="C", LC_ALL="C").items() if k != "PYTHONUTF8"}
        return self.same(self.graph.make(self.folder / "lang"), env=env)

    def core(self) -> str:
        """One core."""
        return self.same(self.graph.make(self.folder / "core"), before=["taskset", "-c", "0"])

    def memory(self) -> str:
        """8 GiB of address space for each process."""

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (8 * GIB, 8 * GIB))

        return self.same(self.graph.make(self.folder / "memory"), preexec_fn=limit)


PARTS = (
    "kill",
    "orphan",
    "disk",
    "truncate",
    "twice",
    "store",
    "path",
    "home",
    "nohome",
    "lang",
    "core",
    "memory",
)


def obey_permissions() -> None:
    """From the next exec on, root too needs the permission to write (Linux)."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


@contextlib.contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[Callable[[int], None]]:
    """A mounted tmpfs (needs root); yields a function that sets its size in bytes."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(words, capture_output=True).returncode:
        raise SkippedError("mounting a tmpfs needs root")

    def resize(wanted: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={wanted}", str(folder)], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class SkippedError(Exception):
    pass


def tail(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-3:])[-600:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--graph", choices=("toy", "smoke"), default="smoke")
    parser.add_argument("--targets", nargs="+", default=(), help="only these stages and what they need")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--in", dest="into", type=Path, help="folder to work in, kept (default: temporary)")
    arguments = parser.parse_args()
    for part in arguments.parts:
        if part not in PARTS:
            parser.error(f"{part}: is no part; known: {', '.join(PARTS)}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="atlas-torture-") as temporary:
        folder = arguments.into or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        graph = Graph(arguments.graph, tuple(arguments.targets))
        torture = Torture(graph, arguments.kills, arguments.seed, folder)
        for part in arguments.parts or PARTS:
            begin = time.monotonic()
            try:
                result = getattr(torture, part)()
            except SkippedError as error:
                result = f"skipped: {error}"
            except AssertionError as error:
                result, failed = f"FAILED: {error}", failed + 1
            print(f"{part:9} {time.monotonic() - begin:6.0f} s  {result}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
