"""The jobs of a sweep: their status files, and combinations that make no sense."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import write_json

if TYPE_CHECKING:
    from omegaconf import DictConfig

STATUS = "job.json"


def uses_alignment(model: DictConfig) -> bool:
    """Whether conf/model/<name>.yaml uses the chosen alignment: `${alignment}`, `${oc.select:alignment}`."""
    from omegaconf import OmegaConf

    def mentions(value: Any) -> bool:
        if isinstance(value, dict):
            return any(mentions(v) for v in value.values())
        if isinstance(value, list):
            return any(mentions(v) for v in value)
        return isinstance(value, str) and bool(re.search(r"\$\{([\w.]+:)?\s*alignment\b", value))

    return mentions(OmegaConf.to_container(model, resolve=False))


def skip_reason(cfg: DictConfig) -> str:
    """Why a combination of model and alignment makes no sense, or "". A model without an alignment function
    is trained with the study's reference only."""
    if cfg.get("alignment") is None:
        return ""
    name, chosen = cfg.model.name, cfg.alignment.name
    if "train" not in cfg or "data" not in cfg:
        return f"model {name}: not part of this study; conf/trained/alignment/ has no {name}.yaml"
    reference = cfg.study.get("reference")
    if uses_alignment(cfg.model) or reference in (None, chosen):
        return ""
    return f"model {name} with alignment {chosen}: it takes no alignment; trained once, with {reference}"


def skipped(cfg: DictConfig, in_sweep: bool) -> bool:
    """Whether to skip this job of a sweep because it makes no sense; prints why. A single command trains the
    model it names; raises ConfigError if there is nothing to train it on."""
    why = skip_reason(cfg)
    if why and ("train" not in cfg or "data" not in cfg) and not in_sweep:
        raise ConfigError(f"{why}; choose another model, or give data= and train=")
    if why and in_sweep:
        print(f"skipped: {why}")
    return bool(why) and in_sweep


def read_status(folder: Path) -> dict[str, Any]:
    """The content of a job's status file: status (running, done or failed), digest, error, written (paths).
    Empty if the job never started, or the file is not one of ours."""
    try:
        found = json.loads((folder / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def forget_status(folder: Path) -> None:
    (folder / STATUS).unlink(missing_ok=True)


@contextlib.contextmanager
def job_status(
    folder: Path | None, digest: Callable[[], str], written: Sequence[Path] = ()
) -> Iterator[None]:
    """Write the status of a sweep's job into `folder` (None: not a job of a sweep), with the digest of its
    configuration, code and inputs, which identifies a finished job, and the outputs in `written` that exist.
    A job that is killed stays "running"."""
    if folder is None:
        yield
        return
    status: dict[str, Any] = {"status": "running"}
    write_json(folder / STATUS, status)
    try:
        status["digest"] = digest()
        yield
    except Exception as error:
        line = next(iter(str(error).strip().splitlines()), "")
        if not isinstance(error, AtlasError):
            line = f"{type(error).__name__}: {line}"
        write_json(folder / STATUS, {**status, "status": "failed", "error": line})
        raise
    left = [os.path.relpath(path) for path in written if path.exists()]
    write_json(folder / STATUS, {**status, "status": "done", "written": left})
