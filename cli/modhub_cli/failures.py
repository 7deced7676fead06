"""One table from exception to what is printed and the exit code. Commands never catch."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable

import click

from modhub_cli.output import styled

__all__ = ["DEBUG_VARIABLE", "INTERRUPTED", "report"]

DEBUG_VARIABLE = "MODHUB_DEBUG"
INTERRUPTED = 130
_NO_USE = "Check that it is there, and that you may use it."
_NO_ROOM = "Make room on that disk, or take a place on another."
_HINTS = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: "Allow larger files (ulimit -f), or take a place on another disk.",
    errno.ENAMETOOLONG: "Take a shorter name.",
    errno.EMFILE: "Allow more open files at once (ulimit -n).",
}


def report(error: BaseException) -> int:
    """Tell what went wrong on stderr; the exit code."""
    if os.environ.get(DEBUG_VARIABLE) and not isinstance(error, SystemExit | click.exceptions.Exit):
        traceback.print_exception(error)
    for kinds, answer in _TABLE:
        if isinstance(error, kinds):
            return answer(error)
    return _other(error)


def _exit(error: BaseException) -> int:
    code = getattr(error, "exit_code", None)
    if code is None:
        code = getattr(error, "code", 0)
    return code if isinstance(code, int) else 1


def _usage(error: BaseException) -> int:
    if isinstance(error, click.ClickException):
        error.show()
    return 2


def _click(error: BaseException) -> int:
    if isinstance(error, click.ClickException):
        _say(error.format_message())
    return 1


def _interrupted(_: BaseException) -> int:
    _say("Stopped. Nothing was left half-written.")
    return INTERRUPTED


def _broken_pipe(_: BaseException) -> int:
    # Whoever read stdout has seen enough.
    _leave_stdout()
    return 0


def _leave_stdout() -> None:
    """Python must not complain when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _system(error: BaseException) -> int:
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        if _printing(error):
            _leave_stdout()
            _say(f"The output cannot be written: {reason}.", "Make room there, or send it to another place.")
            return 1
        where = f"'{error.filename}': " if error.filename else ""
        _say(f"{where}{reason}.", _HINTS.get(error.errno or 0, _NO_USE))
    return 1


def _printing(error: OSError) -> bool:
    """Whether stdout refused: everything that is printed goes through `click.echo`."""
    return any(frame.f_code is click.echo.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def _memory(_: BaseException) -> int:
    _say("There is not enough memory for this.", "Take fewer images or classes, or a smaller batch.")
    return 1


def _absent(error: BaseException) -> int:
    """A hub's image is built without torch, and pip may be told to leave out what modhub depends on."""
    package = ((error.name if isinstance(error, ImportError) else None) or "").partition(".")[0]
    if package in ("", "modhub", "modhub_cli"):
        return _other(error)
    _say(
        f"This command needs the Python package '{package}', which is not installed here.",
        "Install it, or run this where modhub is installed with all that it depends on.",
    )
    return 1


def _other(error: BaseException) -> int:
    from modhub.errors import ModhubError

    if isinstance(error, ModhubError):
        _say(error.message, error.hint)
        return 1
    first = (str(error).strip().splitlines() or [""])[0]
    _say(
        f"modhub made a mistake: {type(error).__name__}{': ' if first else ''}{first}",
        f"Run it again with {DEBUG_VARIABLE}=1 and report what it prints.",
    )
    return 1


def _say(message: str, hint: str = "") -> None:
    click.echo(styled("Error: ", fg="red", bold=True) + message, err=True)
    if hint:
        click.echo(hint, err=True)


_TABLE: tuple[
    tuple[type[BaseException] | tuple[type[BaseException], ...], Callable[[BaseException], int]], ...
] = (
    ((click.exceptions.Exit, SystemExit), _exit),
    ((click.Abort, KeyboardInterrupt), _interrupted),
    (click.UsageError, _usage),
    (click.ClickException, _click),
    (BrokenPipeError, _broken_pipe),
    (MemoryError, _memory),
    (OSError, _system),
    (ModuleNotFoundError, _absent),
)
