"""Errors a person can act on: one line that names the file, the field and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AtlasError(Exception):
    """Bad input. Printed as one line; the stage then ends with `exit_code`, without a traceback."""

    exit_code = 1


class ConfigError(AtlasError):
    """A wrong configuration or command line (exit code 2)."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for a close match, else the known names, to append to an error line."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"; known: {shown}"
