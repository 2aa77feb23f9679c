"""Errors that the user can act on: one line with the file or argument, the fault and the remedy."""

from __future__ import annotations

import difflib
import errno
import os
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
    except AtlasError:
        raise
    except Exception as error:  # also those of safetensors, pickle and huggingface_hub
        first = " ".join(str(error).split())[:160] or type(error).__name__
        if "weights_only" in first:  # torch advises opening the file without this protection
            first = "the weights are a pickle of more than tensors, which is not opened"
        raise AtlasError(f"{what} cannot be loaded ({first}); {remedy}") from None


def first_line(error: object) -> str:
    """The first line of an error's message, or the name of its type."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


# Exceptions that Python raises while parsing a damaged file.
DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    OverflowError,
    MemoryError,
)


@contextmanager
def reading(where: object, remedy: str) -> Iterator[None]:
    """Turn an exception from reading a damaged file into one line. where: the file, and the row if known."""
    try:
        yield
    except DAMAGE as error:
        first = " ".join(str(error).split())[:160]
        if isinstance(error, KeyError):
            what = f"{first.strip(chr(39))}: is missing"
        else:
            what = f"cannot be read ({first or type(error).__name__})"
        raise system_error(error, where) or AtlasError(f"{where}: {what}; {remedy}") from None


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_REMEDIES = {
    **dict.fromkeys(_FULL, "free some space, then run the same command again"),
    **dict.fromkeys(_CLOSED, "give yourself the permission, or choose another place"),
}


def system_error(error: BaseException, where: object = None) -> AtlasError | None:
    """One line for a full disk or a missing permission; None for any other error.

    where: the file, if the error does not name it."""
    # torch.save: an error about the end of the file hides the error of the write.
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        error = error.__context__
    number = error.errno if isinstance(error, OSError) else None
    if number is None:  # packages that write files themselves: only the text says why
        number = next((n for n in _REMEDIES if os.strerror(n) in str(error)), None)
    if number not in _REMEDIES or isinstance(error, AtlasError):
        return None
    name = getattr(error, "filename", None) or where or "disk"
    return AtlasError(f"{name}: {os.strerror(number).lower()}; {_REMEDIES[number]}")
