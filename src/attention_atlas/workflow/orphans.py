"""A stage ends when the `dvc` that started it is killed; otherwise it would write beside its successor."""

from __future__ import annotations

import os
import signal
import threading
import time

LOOK, GRACE = 0.5, 10.0  # seconds between looks at the parent; seconds to close files after it is gone
PATIENCE = GRACE + 10.0  # seconds that a successor waits for the work folder


def end_with_parent() -> None:
    """Watch the parent process from a thread. When it is gone, interrupt this process as Ctrl-C does, which
    closes its files and its MLflow run, and end it if that takes longer than GRACE."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(GRACE)
        os._exit(130)

    threading.Thread(target=watch, daemon=True, name="parent").start()
