"""The process that sends the runs of a stage to MLflow while the stage works. Importing MLflow and opening
its store takes longer (2 to 3 s) than many stages.

It reads one JSON object per line: {"begin": folder of a record, "root": ..., "uri": ...} starts to send this
record; {"end": true} sends the rest of all of them and hands over older records. The answer to "end" is
{"kept": {name of a record: reason}}, empty if MLflow has everything. If its input ends without an "end", the
stage was killed: its runs are marked FAILED.

The lines come from standard input, or from a socket (`listen`): workflow/parallel.py starts one process for
all its stages, which imports MLflow once and forks for each of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from attention_atlas.workflow.tracking_delivery import Delivery
from attention_atlas.workflow.tracking_runs import claimed, kept, records_folder
from attention_atlas.workflow.tracking_store import Store

EVERY = 1.0  # seconds between checks of the records
PAUSE = 30.0  # seconds without attempts after a failed one, also in the stages that follow
SLOW = 5.0  # seconds; a faster failure costs the next stage little
HAND_OVER = 20.0  # seconds that a stage spends on the records of others


class _Sender:
    """The records of one stage."""

    def __init__(self) -> None:
        self.store: Store | None = None
        self.open: list[Delivery] = []
        self.reason = ""
        self._failed_at = -PAUSE

    def begin(self, folder: Path, root: Path, uri: str) -> None:
        if self.store is None or self.store.uri != uri:
            self.store = Store(root, uri)
        self.open.append(Delivery(self.store, folder))

    def advance(self, last: bool = False) -> None:
        """Send what is new; with `last` to the end of each record."""
        if self.store is None or (not last and time.monotonic() - self._failed_at < PAUSE):
            return
        if reason := _known_failure(self.store):
            self._fail(reason)
            return
        start = time.monotonic()
        try:
            for delivery in self.open:
                delivery.finish() if last else delivery.advance()
        except Exception as error:
            self._fail(_first_line(error))
            if time.monotonic() - start > SLOW:
                _remember_failure(self.store, self.reason)
        else:
            self.reason = ""

    def _fail(self, reason: str) -> None:
        self.reason, self._failed_at = reason, time.monotonic()

    def end(self) -> dict[str, str]:
        """Reasons for the records that MLflow has not taken. The stage removes the others."""
        self.advance(last=True)
        left = {d.folder.name: self.reason for d in self.open if not d.closed}
        if self.store is not None and not left:
            hand_over(self.store, HAND_OVER, besides={d.folder for d in self.open})
        self.open = []
        return left

    def abandoned(self) -> None:
        """The stage is gone, or did not wait for `end`."""
        self.advance(last=True)
        for delivery in self.open:
            with claimed(delivery.folder) as mine:
                if mine and delivery.closed:
                    shutil.rmtree(delivery.folder, ignore_errors=True)


def hand_over(store: Store, seconds: float, besides: set[Path] | None = None) -> tuple[int, str]:
    """Send the records that were kept, for at most `seconds`. Returns how many, and why not all ("": all)."""
    start, count = time.monotonic(), 0
    for folder in kept(store.root):
        if folder in (besides or ()):
            continue
        if time.monotonic() - start > seconds:
            return count, "out of time"
        with claimed(folder) as mine:
            if not mine:
                continue
            try:
                Delivery(store, folder).finish()
            except Exception as error:
                return count, _first_line(error)
            shutil.rmtree(folder, ignore_errors=True)
            count += 1
    return count, ""


def _failure_file(store: Store) -> Path:
    return records_folder(store.root) / "unreachable.json"


def _known_failure(store: Store) -> str:
    """The failure that another stage met less than PAUSE seconds ago, or "": every attempt to reach a server
    that does not answer takes its full timeout."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(_failure_file(store).read_text(encoding="utf-8"))
        if known["uri"] == store.uri and 0 <= time.time() - known["time"] < PAUSE:
            return str(known["reason"])
    return ""


def _remember_failure(store: Store, reason: str) -> None:
    with contextlib.suppress(OSError):
        known = {"uri": store.uri, "time": time.time(), "reason": reason}
        _failure_file(store).write_text(json.dumps(known), encoding="utf-8")


def _first_line(error: Exception) -> str:
    return (next(iter(str(error).splitlines()), "") or type(error).__name__)[:300]


def serve(lines: TextIO, answers: TextIO) -> None:
    """Follow the lines until they end."""
    waiting: queue.Queue[str] = queue.Queue()

    def read() -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in lines:
                waiting.put(line)
        waiting.put("")

    threading.Thread(target=read, daemon=True).start()
    sender = _Sender()
    while True:
        try:
            line = waiting.get(timeout=EVERY)
        except queue.Empty:
            sender.advance()
            continue
        if not line:
            sender.abandoned()
            return
        message = json.loads(line)
        if "begin" in message:
            sender.begin(Path(message["begin"]), Path(message["root"]), message["uri"])
        else:
            print(json.dumps({"kept": sender.end()}), file=answers, flush=True)


def listen(path: str) -> None:
    """`serve` in a fork for each connection to the socket `path`, until standard input ends. The first line
    of a connection is its working directory and environment as JSON."""
    import selectors
    import signal
    import socket

    with socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as waiting:
        server.bind(path)
        server.listen(64)  # before the import: early stages wait in the queue
        import mlflow.tracking  # noqa: F401

        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
        waiting.register(server, selectors.EVENT_READ)
        waiting.register(sys.stdin, selectors.EVENT_READ)
        while all(key.fileobj is server for key, _ in waiting.select()):
            connection, _ = server.accept()
            if os.fork():
                connection.close()
                continue
            try:
                server.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                with connection.makefile("r") as lines, connection.makefile("w") as answers:
                    folder, environment = json.loads(lines.readline())
                    os.chdir(folder)
                    os.environ.clear()
                    os.environ.update(environment)
                    serve(lines, answers)
            finally:
                os._exit(0)


def main() -> None:
    if sys.argv[1:]:
        listen(sys.argv[1])
        return
    # MLflow and its plugins print to standard output, which is the pipe for our answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        # The import takes most of the time: start before the first line arrives.
        import mlflow.tracking  # noqa: F401

        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
