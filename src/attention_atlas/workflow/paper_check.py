"""`make paper-check`: which files of the papers' own set-up are present, and where to get the others.

The list is `conf/paper_files.yaml`; each study adds its files there. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError, did_you_mean
from attention_atlas.files import files_under, sha256

LIST = Path("conf/paper_files.yaml")
_FIELDS = {"study", "path", "what", "source", "bytes", "sha256", "files", "disk", "gpu", "optional"}
_REQUIRED = ("study", "path", "what", "source")


@dataclass
class Finding:
    """One entry of the list and its state: present, missing, optional (and absent), or wrong."""

    entry: dict[str, Any]
    state: str
    detail: str


def read_list(path: str | Path = LIST) -> dict[str, list[dict[str, Any]]]:
    """The list: `files` and `needs`. Raises AtlasError for an unknown or missing field."""
    import yaml

    path = Path(path)
    if not path.exists():
        raise AtlasError(f"{path}: no such file; run this in the root of the repository")
    table = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    for number, entry in enumerate(table.get("files", []), start=1):
        for name in _REQUIRED:
            if name not in entry:
                raise AtlasError(f"{path}: file {number}: {name}: field is missing; add it")
        for name in entry:
            if name not in _FIELDS:
                raise AtlasError(
                    f"{path}: {entry['path']}: {name}: unknown field{did_you_mean(name, _FIELDS)}"
                )
    return {"files": table.get("files", []), "needs": table.get("needs", [])}


def check_entry(entry: dict[str, Any], root: str | Path = ".", hashes: bool = True) -> Finding:
    """Compare one entry with the disk. `hashes=False` skips reading whole files."""
    path = Path(root) / entry["path"]
    if not path.exists():
        return Finding(entry, "optional" if entry.get("optional") else "missing", "")
    if path.is_dir():
        count = len(files_under(path))
        wanted = entry.get("files")
        if count == 0 or (isinstance(wanted, int) and count != wanted):
            return Finding(entry, "wrong", f"{count:,} files, expected {wanted or 'some'}")
        return Finding(entry, "present", f"{count:,} files")
    size = path.stat().st_size
    wanted = entry.get("bytes")
    if isinstance(wanted, int) and size != wanted:
        return Finding(entry, "wrong", f"{size:,} bytes, expected {wanted:,}; download it again")
    digest = entry.get("sha256")
    if digest and hashes and sha256(path) != digest:
        return Finding(entry, "wrong", f"unexpected content (sha256 {digest[:12]}...)")
    checked = (
        "size and hash correct" if digest and hashes else "size correct" if wanted == size else "not checked"
    )
    return Finding(entry, "present", f"{size:,} bytes, {checked}")


def report(list_path: str | Path = LIST, root: str | Path = ".", hashes: bool = True) -> tuple[str, bool]:
    """The report text, and whether everything that is not optional is present and correct."""
    table = read_list(list_path)
    lines: list[str] = []
    findings = [check_entry(e, root, hashes) for e in table["files"]]
    studies = list(dict.fromkeys(f.entry["study"] for f in findings))
    studies += [n["study"] for n in table["needs"] if n["study"] not in studies]
    for study in dict.fromkeys(studies):
        lines.append(f"{study}")
        for finding in findings:
            entry = finding.entry
            if entry["study"] != study:
                continue
            lines.append(f"  [{finding.state:^8}] {entry['path']}  {finding.detail}".rstrip())
            lines.append(f"             {' '.join(str(entry['what']).split())}")
            if finding.state != "present":
                lines.append(f"             from: {' '.join(str(entry['source']).split())}")
                lines.append(f"             size: {_size(entry)}; sha256: {entry.get('sha256', 'unknown')}")
            if "disk" in entry or "gpu" in entry:
                lines.append(f"             {_needs(entry)}")
        for need in table["needs"]:
            if need["study"] == study:
                lines.append(f"  {need['what']}: {_needs(need)}")
        lines.append("")
    absent = [f for f in findings if f.state in ("missing", "wrong")]
    lines.append(_machine(root))
    lines.append(
        f"{len(findings) - len(absent)} of {len(findings)} entries are in order, {len(absent)} need action."
    )
    return "\n".join(lines), not absent


def _size(entry: dict[str, Any]) -> str:
    size = entry.get("bytes", "unknown")
    return f"{size:,} bytes" if isinstance(size, int) else str(size)


def _needs(entry: dict[str, Any]) -> str:
    def gigabytes(value: Any) -> str:
        return "none" if value is None else str(value) if isinstance(value, str) else f"{value} GB"

    return f"disk: {gigabytes(entry.get('disk'))}, GPU memory: {gigabytes(entry.get('gpu'))}"


def _machine(root: str | Path) -> str:
    import torch

    free = shutil.disk_usage(root).free / 1e9
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    found = ", ".join(f"{g.name} {g.total_memory / 1e9:.0f} GB" for g in gpus) or "no GPU"
    return f"This machine: {free:.0f} GB of disk free, {found}."


def main(arguments: list[str] | None = None) -> int:
    """Print the report; with --strict the exit code is 1 when something is missing or wrong."""
    parser = argparse.ArgumentParser(prog="papercheck", description="What the papers' own set-up needs.")
    parser.add_argument("--list", default=str(LIST), help="the list of files")
    parser.add_argument("--root", default=".", help="the folder that paths are relative to")
    parser.add_argument("--no-hash", action="store_true", help="do not read files to compare hashes")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a file is missing or wrong")
    options = parser.parse_args(arguments)
    try:
        text, complete = report(options.list, options.root, not options.no_hash)
    except AtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return 1 if options.strict and not complete else 0


if __name__ == "__main__":
    sys.exit(main())
