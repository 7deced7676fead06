"""One table from exception to what is printed and the exit code. Commands never catch."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

import click

from modhub_cli.output import styled

__all__ = ["DEBUG_VARIABLE", "INTERRUPTED", "report"]

DEBUG_VARIABLE = "MODHUB_DEBUG"
INTERRUPTED = 130


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
    # Whoever read stdout has seen enough; Python must not complain when it flushes it at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _system(error: BaseException) -> int:
    if isinstance(error, OSError):
        where = f"'{error.filename}': " if error.filename else ""
        _say(f"{where}{error.strerror or error}.", "Check that it is there, and that you may use it.")
    return 1


def _memory(_: BaseException) -> int:
    _say("There is not enough memory for this.", "Take fewer images or classes, or a smaller batch.")
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
)
