"""Digests that identify finished and partly finished work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Keys that say where or how fast a stage runs, not what it computes.
MACHINE_KEYS = ("device", "workers", "gpus")
CAPTURE_KEYS = ("shards", "shard", "engine", "actors", "readers")


def config_hash(cfg: DictConfig) -> str:
    """Digest of the configuration without MACHINE_KEYS, and without CAPTURE_KEYS of `capture`."""
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    kept = {k: v for k, v in values.items() if k not in MACHINE_KEYS}
    if "capture" in kept:
        kept["capture"] = {k: v for k, v in kept["capture"].items() if k not in CAPTURE_KEYS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16]


def work_digest(cfg: DictConfig, inputs: Sequence[str], hash_of: Callable[[Path], str]) -> str:
    """Digest of a configuration, the code and the content of all inputs."""
    digest = hashlib.sha256(config_hash(cfg).encode())
    for path in [*sorted(Path(__file__).parents[1].rglob("*.py")), *map(Path, inputs)]:
        digest.update(hash_of(path).encode())
    return digest.hexdigest()[:16]


def content_hash(path: Path) -> str:
    """Digest of a file, or of all files in a folder with their names, including linked subfolders."""
    from attention_atlas.files import files_under, sha256

    if path.is_file():
        return sha256(path)[:16]
    digest = hashlib.sha256()
    for item in files_under(path):
        digest.update(f"{item.relative_to(path)}:{sha256(item)}".encode())
    return digest.hexdigest()[:16]
