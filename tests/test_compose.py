"""A profile's own files take the place of those in conf/: in compose(), in a script and in a sweep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from attention_atlas.errors import ConfigError
from attention_atlas.workflow.compose import compose, profile_of

FILES = {
    "params.yaml": "profile: mini\nseed: 0\n",
    "conf/config.yaml": "hydra: {run: {dir: .}, output_subdir: null, sweep: {dir: multirun}}\n",
    "conf/stage/train.yaml": "# @package _global_\ndefaults: [/config, /model: base, /params, _self_]\n"
    "hydra: {searchpath: ['file://.']}\n",
    "conf/model/base.yaml": "name: base\ndim: 8\n",
    "conf/model/blind.yaml": "defaults: [base, _self_]\nblind: true\n",
    "conf/model/small.yaml": "dim: 1\n",
    "conf/profiles/mini.yaml": "profile: mini\n",
    "conf/profiles/paper.yaml": "profile: paper\n",
    "conf/profiles/paper/model/base.yaml": "name: base\ndim: 512\n",
    "conf/profiles/paper/model/other.yaml": "defaults: [small, _self_]\nother: true\n",
    "conf/profiles/smoke.yaml": "profile: smoke\n",
}
SCRIPT = """
import sys
import hydra
from pathlib import Path
from attention_atlas.workflow.compose import profile_files

def job(cfg):
    print("job", cfg.profile, cfg.model.dim, flush=True)

if __name__ == "__main__":
    with profile_files(Path.cwd(), sys.argv[1:]):
        hydra.main(version_base="1.3", config_path=str(Path.cwd() / "conf"), config_name="stage/train")(job)()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def set_profile(root: Path, name: str) -> None:
    (root / "params.yaml").write_text(f"profile: {name}\nseed: 0\n")


def test_a_file_of_the_profile_takes_the_place_of_the_one_in_conf(root: Path) -> None:
    assert compose(root, "train").model == {"name": "base", "dim": 8}
    set_profile(root, "paper")
    assert compose(root, "train").model == {"name": "base", "dim": 512}
    assert "hydra" in compose(root, "train", with_hydra=True)


def test_defaults_lists_read_the_files_of_the_profile(root: Path) -> None:
    """Both ways: from a file of conf/ and from a file of the profile."""
    set_profile(root, "paper")
    assert compose(root, "train", ["model=blind"]).model == {"name": "base", "dim": 512, "blind": True}
    assert compose(root, "train", ["model=other"]).model == {"dim": 1, "other": True}


def test_the_command_line_chooses_the_profile(root: Path) -> None:
    cfg = compose(root, "train", ["profile=paper"])
    assert (cfg.profile, cfg.model.dim) == ("paper", 512)
    set_profile(root, "paper")
    assert compose(root, "train", ["profile=mini"]).model.dim == 8
    assert compose(root, "train", ["profile=smoke"]).model.dim == 8  # has no files of its own
    assert compose(root, "train").model.dim == 512


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["profile=papr"], "profile=papr: no such profile; did you mean 'paper'?"),
        (
            ["profile=mini,paper"],
            "profile=mini,paper: a sweep cannot change the profile; run one command for",
        ),
        (["profile=glob(*)"], "a sweep cannot change the profile"),
    ],
)
def test_wrong_profiles_are_named(root: Path, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        profile_of(root, overrides)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrong_profile_in_params_yaml_is_named(root: Path) -> None:
    set_profile(root, "papr")
    with pytest.raises(ConfigError, match=r"params\.yaml: profile: papr: no such profile"):
        compose(root, "train")


@pytest.mark.parametrize(
    ("words", "dims"),
    [
        ([], ["8"]),
        (["profile=paper"], ["512"]),
        (["-m", "model=base,small", "profile=paper"], ["512", "1"]),
        (["-m", "model=base,blind,small", "profile=paper", "hydra/launcher=joblib"], ["512", "512", "1"]),
    ],
)
def test_in_a_script_and_in_a_sweep(root: Path, words: list[str], dims: list[str]) -> None:
    (root / "script.py").write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, "script.py", *words], cwd=root, capture_output=True, text=True, check=True
    )
    found = [line.split() for line in run.stdout.splitlines() if line.startswith("job ")]
    profile = "paper" if "profile=paper" in words else "mini"
    assert sorted(found) == sorted(["job", profile, dim] for dim in dims)
