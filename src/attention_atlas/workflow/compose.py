"""Compose the configuration of a script, with the files of the current profile.

conf/profiles/<profile>/<group>/<name>.yaml takes the place of conf/<group>/<name>.yaml under that profile.
The folder is not called conf/profile, because Hydra would then read `profile=paper` as the choice of a file
in it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hydra.plugins.search_path_plugin import SearchPathPlugin

from attention_atlas.errors import AtlasError, ConfigError, did_you_mean
from attention_atlas.workflow import resolvers  # noqa: F401  (registers what conf/ uses

if TYPE_CHECKING:
    from hydra.core.config_search_path import ConfigSearchPath
    from omegaconf import DictConfig


class ProfileFiles(SearchPathPlugin):  # type: ignore[misc]  # Hydra has no types
    """Make Hydra look into the folder of the profile before conf/."""

    folder: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder is not None:
            search_path.prepend("profile", f"file://{self.folder}")


def profile_of(root: Path, overrides: Iterable[str] = ()) -> str:
    """The profile that the override `profile=NAME` selects, otherwise the one in params.yaml.

    Raises ConfigError for an unknown profile or for several."""
    import yaml

    found = [match[1] for word in overrides if (match := re.fullmatch(r"\+{0,2}profile=(.*)", word))]
    if found:
        name, where = found[-1].strip("'\""), f"profile={found[-1]}"
        if re.search(r"[,(\[]", name):
            raise ConfigError(f"{where}: a sweep cannot change the profile; run one command for each profile")
    else:
        path = root / "params.yaml"
        if not path.exists():
            raise ConfigError(f"{path}: no such file; run from the repository root")
        name = str(yaml.safe_load(path.read_text(encoding="utf-8")).get("profile"))
        where = f"{path}: profile: {name}"
    known = sorted(p.stem for p in (root / "conf" / "profiles").glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"{where}: no such profile{did_you_mean(name, known)}")
    return name


@contextlib.contextmanager
def profile_files(root: Path, overrides: Iterable[str] = ()) -> Iterator[None]:
    """Within this context, Hydra reads the files of the profile before those of conf/."""
    from hydra.core.plugins import Plugins

    folder = root.resolve() / "conf" / "profiles" / profile_of(root, overrides)
    Plugins.instance().register(ProfileFiles)
    ProfileFiles.folder = folder if folder.is_dir() else None
    try:
        yield
    finally:
        ProfileFiles.folder = None


def compose(root: Path, script: str, overrides: Iterable[str] = (), with_hydra: bool = False) -> DictConfig:
    """The configuration of `python -m pipeline.<script> <overrides>` in the repository `root`, unresolved.

    `with_hydra` keeps Hydra's own section. Raises ConfigError for an unknown profile, and Hydra's errors."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    root = root.resolve()
    words = [f"hydra.searchpath=['file://{root}']", *overrides]  # where params.yaml is
    GlobalHydra.instance().clear()
    with (
        profile_files(root, words),
        hydra.initialize_config_dir(str(root / "conf"), version_base="1.3"),
    ):
        return hydra.compose(f"stage/{script}", overrides=words, return_hydra_config=with_hydra)


def check_overrides(words: Sequence[str]) -> None:
    """Raise ConfigError for a NAME=VALUE that Hydra's grammar does not accept, such as a path with '='."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or word.startswith("-"):
            continue
        if not name:
            raise ConfigError(f"command line: '{word}': has no name before '='; give name=value")
        try:
            read = parser.parse_override(word)
        except HydraException:
            read = None
        # A value with a comma is a sweep, which needs -m.
        if read is None or (read.is_sweep_override() and not {"-m", "--multirun"} & set(words)):
            quoted = '"' + name + "='" + value.replace("'", "\\'") + "'\""
            raise ConfigError(
                f"command line: '{word}': Hydra cannot read the value; put it in quotation marks: {quoted}"
            )


def config_error(error: BaseException) -> AtlasError:
    import yaml

    cause = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(cause, AtlasError):
        return cause
    if isinstance(cause, yaml.YAMLError):  # names file and line
        return ConfigError(f"{' '.join(str(cause).split())}; correct the YAML")
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    known = ""
    if "Available options" in str(error) or "available options" in str(error):
        options = [line for line in lines if line and " " not in line]
        known = f"; known: {', '.join(options)}"
    return ConfigError(
        f"conf: {lines[0] if lines else type(cause).__name__}{known}; correct the command line or conf/"
    )
