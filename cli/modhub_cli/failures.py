"""One table from exception to message and exit code. Commands never catch."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable

import click

from modhub_cli.terminal import styled

DEBUG_VARIABLE = "MODHUB_DEBUG"
INTERRUPTED = 130
_CHECK_ACCESS = "Check that it exists and that you have permission."
_FREE_SPACE = "Free some space, or choose another disk."
_HINTS = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: "Raise the file size limit (ulimit -f), or choose another disk.",
    errno.ENAMETOOLONG: "Use a shorter name.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
}


def report(error: BaseException) -> int:
    """Print the message for the error on stderr; return the exit code."""
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
    _say("Interrupted. No partial output was left.")
    return INTERRUPTED


def _broken_pipe(_: BaseException) -> int:
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
            _say(f"Cannot write to stdout: {reason}.", "Free some space, or redirect it elsewhere.")
            return 1
        where = f"'{error.filename}': " if error.filename else ""
        _say(f"{where}{reason}.", _HINTS.get(error.errno or 0, _CHECK_ACCESS))
    return 1


def _printing(error: OSError) -> bool:
    """Whether writing to stdout failed: everything that is printed goes through `click.echo`."""
    return any(frame.f_code is click.echo.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def _memory(_: BaseException) -> int:
    _say("Out of memory.", "Use fewer images or classes, or a smaller batch.")
    return 1


def _absent(error: BaseException) -> int:
    """The container image of a hub has no torch, and pip can install modhub without its dependencies."""
    package = ((error.name if isinstance(error, ImportError) else None) or "").partition(".")[0]
    if package in ("", "modhub", "modhub_cli"):
        return _other(error)
    _say(
        f"This command requires the Python package '{package}', which is not installed.",
        "Install it, or install modhub with all its dependencies.",
    )
    return 1


def _other(error: BaseException) -> int:
    from modhub.errors import ModhubError

    if isinstance(error, ModhubError):
        _say(error.message, error.hint)
        return 1
    first = (str(error).strip().splitlines() or [""])[0]
    _say(
        f"{type(error).__name__}{': ' if first else ''}{first} (please report it).",
        f"For a traceback, run it again with {DEBUG_VARIABLE}=1.",
        title="Internal error",
    )
    return 1


def _say(message: str, hint: str = "", *, title: str = "Error") -> None:
    # What other libraries say may be coloured for a terminal.
    click.echo(styled(f"{title}: ", fg="red", bold=True) + click.unstyle(message), err=True)
    if hint:
        click.echo(click.unstyle(hint), err=True)


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
