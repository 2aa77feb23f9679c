"""Memory management of a stage: freed blocks stay, cycles are still collected."""

from __future__ import annotations

import os
import subprocess
import sys

from attention_atlas.workflow.memory import HUGE_PAGES, VARIABLES

# Page faults of taking, filling and freeing 64 MiB again and again.
FAULTS = """
import resource
def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(22):
    if i == 2: before = used()
    block = bytearray(64 << 20); block[::4096] = bytes(len(block[::4096])); del block
print(used() - before)
"""


def run(program: str, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in (*VARIABLES.values(), HUGE_PAGES)}
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, env={**clean, **environment}, capture_output=True, text=True, check=True
    ).stdout.strip()


def glibc() -> bool:
    """Elsewhere the calls are missing and nothing changes."""
    return (
        run("from attention_atlas.workflow.memory import keep_freed_memory; print(keep_freed_memory())")
        == "True"
    )


def test_a_stage_keeps_what_it_frees() -> None:
    plain = int(run(FAULTS))
    kept = int(run("import attention_atlas.workflow.stage\n" + FAULTS))
    assert (plain > 20 * 1000 and kept * 20 < plain) or not glibc()


def test_processes_that_a_stage_starts_do_too() -> None:
    start = (
        f"import subprocess, sys\nprint(subprocess.check_output([sys.executable, '-c', {FAULTS!r}]).decode())"
    )
    kept = int(run("import attention_atlas.workflow.stage\n" + start))
    assert kept * 20 < int(run(FAULTS)) or not glibc()


def test_the_users_environment_stays() -> None:
    show = "import attention_atlas.workflow.stage, os; print(*(os.environ[n] for n in {!r}))"
    names = [*VARIABLES.values(), HUGE_PAGES]
    given = dict(zip(names, ("1048576", "262144", "0")))
    assert run(show.format(names), **given).split() == list(given.values())


def test_cycles_are_still_collected() -> None:
    """Not within the first few thousand, but without an explicit call."""
    program = """
import attention_atlas.workflow.stage, weakref
class Node: pass
first = None
for i in range(200_000):
    node = Node(); node.me = node
    first = first or weakref.ref(node)
    if i == 10_000: early = first() is not None
print(early and first() is None)
"""
    assert run(program) == "True"
