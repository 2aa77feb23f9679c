"""End a process when its parent is killed; otherwise it would keep running alongside its successor.

`python -m attention_atlas.workflow.orphans WORD ...` runs `dvc WORD ...` in this way.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

LOOK, GRACE = 0.5, 10.0  # seconds between checks of the parent; seconds to close files after it is gone
PATIENCE = GRACE + 10.0  # seconds that a successor waits for the work folder


def end_with_parent(at_once: bool = False) -> None:
    """Watch the parent process from a thread. When it is gone, interrupt this process as Ctrl-C does, which
    closes its files and its MLflow run, and end it if that takes longer than GRACE. at_once: end it without
    an interrupt."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        if not at_once:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(GRACE)
        os._exit(130)

    threading.Thread(target=watch, daemon=True, name="parent").start()


if __name__ == "__main__":
    # DVC ignores an interrupt while a stage runs. After a kill its locks are free.
    end_with_parent(at_once=True)
    from dvc.cli import main

    sys.exit(main(sys.argv[1:]))
