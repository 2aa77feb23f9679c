"""Errors that the user can act on: one line with the file or argument, the fault and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class AtlasError(Exception):
    """Bad input. A stage prints it as one line and exits with `exit_code`, without a traceback."""

    exit_code = 1


class ConfigError(AtlasError):
    """A wrong configuration or command line (exit code 2)."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error line: '; did you mean X?' for a close match, else the known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"; known: {shown}"


@contextmanager
def loading(what: str, remedy: str = "give a hub id or a folder") -> Iterator[None]:
    """Turn the errors of transformers' `from_pretrained` into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        first = " ".join(str(error).split())[:160] or "unreadable"
        raise AtlasError(f"{what} cannot be loaded ({first}); {remedy}") from None
