"""The whole pipeline in a temporary clone: `dvc repro` with the smoke profile, and what must hold then."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import ROOT

from attention_atlas.workflow.manifests import FOLDER, NAME, Manifests
from attention_atlas.workflow.parallel import repro_side_by_side
from attention_atlas.workflow.profiles import apply_profile, copy_repository
from attention_atlas.workflow.sources import MACHINERY

# One worker runs all of these, the others the unit tests.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]

FIXTURES = Path(__file__).parent / "fixtures"
# Figures of each study, at least.
STUDIES = {"grounding": 6, "modality": 12, "alignment": 16, "vilt_layers": 20, "vlm_phases": 11}
# Killed in each of these, this many seconds after the stage's process has started to work.
KILLED = {
    "pipeline.world": 4.0,
    "pipeline.features": 6.0,
    "pipeline.train": 7.0,
    "pipeline.dump": 5.0,
    "pipeline.metrics": 4.0,
}
# The stages up to this one are run, killed and run on: all of study 1 but its two tables.
KILLED_UNTIL = "grounding_plot"


def environment() -> dict[str, str]:
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC", "PYTEST", "OMP"))
    }
    # One thread everywhere: sums over two differ in their last digits, and outputs are compared by digest.
    kept["OMP_NUM_THREADS"] = "1"
    kept["PYTHONPATH"] = str(FIXTURES / "imported")  # each stage notes what it imports
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def dvc(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=folder, env=environment(), capture_output=True, text=True
    )


def clone(folder: Path) -> Path:
    copy_repository(ROOT, folder)
    apply_profile(folder, "smoke")
    Manifests(folder).write_graph()
    for words in (["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "smoke"]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = clone(tmp_path_factory.mktemp("smoke") / "clone")
    assert repro_side_by_side(folder, environment()) == 0, "see the lines above"
    # Kept aside: some tests run experiments in the clone.
    shutil.copy(folder / "dvc.lock", folder / "clean.lock")
    return folder


@pytest.fixture(scope="module")
def clean_lock(smoke: Path) -> dict[str, Any]:
    return yaml.safe_load((smoke / "clean.lock").read_text())["stages"]


def lock(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "dvc.lock").read_text())["stages"]


def children_running(parent: psutil.Process, module: str) -> psutil.Process | None:
    for process in parent.children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if module in words and Path(words[0]).name.startswith("python"):
            return process
    return None


def run_until_killed(folder: Path, module: str, after: float) -> bool:
    """Start `dvc repro` and SIGKILL its whole process group `after` s into `module`; False if it ended."""
    started = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", KILLED_UNTIL],
        cwd=folder,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    parent = psutil.Process(started.pid)
    while started.poll() is None:
        if children_running(parent, module):
            time.sleep(after)
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
            return True
        time.sleep(0.05)
    return False


def test_every_table_and_figure_is_there(smoke: Path) -> None:
    results = smoke / "results"
    tables = {p.stem for p in (results / "grounding/tables").glob("*.csv")}
    assert {"captions", "linkers", "metrics"} <= tables
    report = (results / "report.html").read_text()
    for study, least in STUDIES.items():
        assert (results / study / "tables/metrics.csv").exists() and f'id="{study}"' in report
        figures = sorted((results / study / "figures").glob("*.png"))
        assert len(figures) >= least, study
        for figure in figures:
            assert figure.stat().st_size > 5000
            assert figure.with_suffix(".pdf").exists()
    for number in ("39.68", "14.97", "0.313", "44.39"):
        assert number in report, f"the paper's {number} is not in the report"


def test_a_no_op_repro_ends_within_five_seconds(smoke: Path) -> None:
    # Processor time: the clock also counts what else runs on the machine.
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = dvc(smoke, "repro")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert "Data and pipelines are up to date" in result.stdout + result.stderr, result.stdout[-800:]
    assert min(times) < 5, times


def test_a_manifest_lists_every_file_that_its_stage_imports(smoke: Path) -> None:
    """Against what each process of the smoke run, workers included, really imported."""
    ignored = {
        f"src/attention_atlas/{name}.py" for name in (*MACHINERY, "workflow/manifests", "workflow/sources")
    }
    listed_total = imported_total = 0
    for name in set(lock(smoke)) - {NAME}:
        noted = map(Path, (smoke / ".work/imported" / f"{name}.txt").read_text().split())
        # MLflow's own process is of the environment, not of the clone.
        imported = {str(p.relative_to(smoke)) for p in noted if p.is_relative_to(smoke)} - ignored
        listed = set(manifest(smoke, name)["code"])
        assert imported and imported <= listed, f"{name}: {sorted(imported - listed)}"
        listed_total, imported_total = listed_total + len(listed), imported_total + len(imported)
    # Branches that this profile does not take are listed too; many more would make stages stale for nothing.
    assert imported_total > 0.7 * listed_total, (imported_total, listed_total)


def manifest(folder: Path, name: str) -> dict[str, Any]:
    return yaml.load((folder / FOLDER / f"{name}.yaml").read_bytes(), yaml.CSafeLoader)


MAC = {"alignment_runs-mac", "alignment_runs-mac_blind"}
ATTNGAN = {"alignment_runs-attngan"}
CLASSIFIERS = {"alignment_encoders-image_classifier"}
SOURCE = "src/attention_atlas"
# An edit, and the stages that it must make stale.
EDITS: dict[str, tuple[str, set[str]]] = {
    "conf/train/captions.yaml": ("# only a comment", set()),
    "conf/linker/glove_add.yaml": ("edited: here", {"grounding_linkers"}),
    "conf/figure/grounding.yaml": ("edited: here", {"grounding_plot"}),
    "conf/study/grounding.yaml": (
        "edited: here",
        {"grounding_captions", "grounding_linkers", "grounding_learning", "grounding_metrics"},
    ),
    "conf/report/modality.yaml": ("edited: here", {"report"}),
    "conf/ocr/rapidocr.yaml": ("edited: here", {"ocr-rooms_with_signs"}),
    "conf/model/gpt2_paragraphs.yaml": ("edited: here", {"modality_train-gpt2_paragraphs"}),
    "conf/train/self_critical.yaml": ("edited: here", {"modality_train-captioner"}),
    f"{SOURCE}/workflow/tracking.py": ("# logs, computes nothing", set()),
    f"{SOURCE}/models/lstm.py": (
        "#",
        {"grounding_train-lstm", "grounding_generate-lstm", "grounding_learning"},
    ),
    f"{SOURCE}/models/mac.py": ("#", MAC),
    f"{SOURCE}/models/image_classifier.py": ("#", CLASSIFIERS | ATTNGAN),
    f"{SOURCE}/linking/bertscore.py": ("#", {"grounding_linkers"}),
    f"{SOURCE}/measures/pos.py": ("#", {"grounding_metrics", "modality_metrics"}),
    f"{SOURCE}/measures/text/bleu.py": ("#", {"grounding_captions", "modality_captions"}),
    f"{SOURCE}/regions/region_cnn.py": (
        "#",
        {"features-rooms", "features-tabletop", "features-rooms_with_signs"},
    ),
    f"{SOURCE}/reporting/template.py": ("#", {"report"}),
    f"{SOURCE}/studies/grounding/figures.py": ("#", {"grounding_plot"}),
    f"{SOURCE}/studies/vilt_layers/figures_heads.py": ("#", {"vilt_layers_plot"}),
    f"{SOURCE}/synthetic/birds/bird.py": ("#", {"world-birds", "annotate-birds_captions"}),
    f"{SOURCE}/synthetic/rooms/signed.py": ("#", {"world-rooms_with_signs"}),
    f"{SOURCE}/synthetic/tabletop/order.py": ("#", {"annotate-tabletop_order"}),
    f"{SOURCE}/training/tasks/language_model.py": (
        "#",
        {"modality_train-gpt2_captions", "modality_train-gpt2_paragraphs"},
    ),
}


def test_an_edit_makes_exactly_its_stages_stale(smoke: Path) -> None:
    before = {name: manifest(smoke, name) for name in set(lock(smoke)) - {NAME}}
    for path, (added, stages) in EDITS.items():
        text = (smoke / path).read_text()
        try:
            (smoke / path).write_text(f"{text}\n{added}\n")
            assert dvc(smoke, "repro", NAME).returncode == 0
            changed = {name for name, old in before.items() if manifest(smoke, name) != old}
            assert changed == stages, path
            if stages:  # DVC sees it, too
                assert set().union(*(v for k, v in changed_deps(smoke).items())) == stages, path
        finally:
            (smoke / path).write_text(text)
    assert dvc(smoke, "repro", NAME).returncode == 0
    assert not changed_deps(smoke)


def changed_deps(folder: Path) -> dict[str, set[str]]:
    """Changed input, and the stages that it makes stale."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        status = repo.status()
    stale: dict[str, set[str]] = {}
    for name, changes in status.items():
        for change in changes:
            for path in change.get("changed deps", {}) if isinstance(change, dict) else ():
                # Outside the repository's folder DVC puts the path of dvc.yaml before a stage's name.
                stale.setdefault(path, set()).add(name.rsplit("dvc.yaml:", 1)[-1])
    return stale


def test_experiments_keep_their_runs(smoke: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{smoke / 'mlflow.db'}")
    ours = [e.experiment_id for e in client.search_experiments() if e.name.startswith("attention-atlas/")]
    assert len(ours) == 6, "one for each study, and one for the data"

    def names() -> list[str]:
        return [
            r.info.run_name for r in client.search_runs(ours, max_results=5000) if "dvc.exp" in r.data.tags
        ]

    assert names() == []
    tagged = [r for r in client.search_runs(ours, max_results=5000) if "stage" in r.data.tags]
    stages = [
        r for r in tagged if r.data.tags["stage"] != "run"
    ]  # runs of study 3 are in that of their stage
    assert len(stages) == len(lock(smoke)) - 1  # all but the manifests
    assert len({r.data.tags["mlflow.parentRunId"] for r in stages}) == len(ours)
    measures = smoke / "conf/metrics/grounding.yaml"
    edited = measures.read_text().replace("order: skip ", "order: zero ")
    assert edited != measures.read_text()
    for words in (["--temp", "-S", "conf/linker/glove_add.yaml:tolerance=1.0e-5"], []):
        if not words:
            measures.write_text(edited)  # an experiment is also what the working tree holds
        before = len(names())
        result = dvc(smoke, "exp", "run", *words, "report")
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
        assert len(names()) > before, f"dvc exp run {words} lost its MLflow runs"


@pytest.mark.slow
def test_a_run_killed_in_five_stages_completes_to_the_same(
    clean_lock: dict[str, Any], tmp_path: Path
) -> None:
    folder = clone(tmp_path / "killed")
    for module, after in KILLED.items():
        assert run_until_killed(folder, module, after), f"{module} was not killed: it had ended"
    result = dvc(folder, "repro", KILLED_UNTIL)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    completed = lock(folder)
    assert len(completed) >= 8
    assert completed == {name: clean_lock[name] for name in completed}
    assert not list((folder / "data").rglob("*.part*"))
