"""Entry point: find the command, run it, turn every failure into one sentence and an exit code."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import click

from modhub_cli.failures import INTERRUPTED, report

SECTIONS = {
    "Get started": ("demo",),
    "Make modules": ("decompose", "methods", "teach", "convert"),
    "Share modules": (
        "push",
        "pull",
        "search",
        "info",
        "versions",
        "yank",
        "verify",
        "cache",
        "login",
        "logout",
    ),
    "Define a composition": ("init", "add", "remove", "lock", "tree"),
    "Build a classifier": ("frontier", "compose", "replace"),
    "Use a classifier": ("predict", "evaluate", "diff", "export"),
    "Run a hub": ("serve", "token", "release", "gc", "fsck"),
}
COMMANDS = tuple(name for names in SECTIONS.values() for name in names)


class _LazyGroup(click.Group):
    """Commands by name; the file of a command is imported when the command is looked up."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"modhub_cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            message = f"No such command '{args[0]}'."
            if nearest := difflib.get_close_matches(args[0], COMMANDS, n=1):
                message += f" Did you mean '{nearest[0]}'?"
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click would exit with 1 and print nothing.
            return report(error)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in SECTIONS.items():
            rows = [
                (name, command.get_short_help_str(80))
                for name in names
                if (command := self.get_command(ctx, name)) is not None
            ]
            with formatter.section(title):
                formatter.write_dl(rows)


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from modhub import __version__

        click.echo(f"modhub {__version__}")
        ctx.exit()


@click.command(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def cli() -> None:
    """The package registry for parts of neural networks.

    Decompose a trained CNN classifier into class modules, share them on a hub, and compose selected modules
    into one runnable classifier.

    To get started: modhub demo
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        from modhub.errors import StorageError

        # Some libraries abort the process in this case when they are imported.
        raise StorageError(
            "The current directory no longer exists.", hint="Change to an existing directory."
        ) from None


def run(interrupted: Callable[[], bool] = lambda: False) -> int:
    """Run the command line. Exit codes: 0 success, 1 error, 2 wrong usage, 130 interrupted.

    Some imports swallow Ctrl-C and fail in another way later: any failure after `interrupted` is true is
    reported as an interruption.
    """
    try:
        code = cli.main(prog_name="modhub", standalone_mode=False)
    except BaseException as error:
        code = report(KeyboardInterrupt() if interrupted() else error)
    return code if isinstance(code, int) else 0


class _StandardError(io.TextIOWrapper):
    """stderr that ignores write errors: a log on a full disk or a closed pipe must not stop the work."""

    def write(self, text: str, /) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def _streams() -> None:
    """Make stdout and stderr accept any text, closed or not."""
    # Otherwise the next file opened could become descriptor 2, to which libraries write directly.
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    elif isinstance(sys.stderr, io.TextIOWrapper):
        old = sys.stderr
        sys.stderr = _StandardError(old.buffer, encoding=old.encoding, errors=old.errors, line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names may not be valid text; they are printed as their bytes, for scripts to use.
        utf8 = sys.stdout.encoding.lower() in ("utf-8", "utf8")
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "replace")


def main() -> None:
    """The console script: `run`, then the end of the process.

    SIGTERM and SIGHUP, sent by a timeout or a closed terminal, stop the work as Ctrl-C does; partial output
    is removed, and then the process ends by that signal (143 and 129 in a shell).
    """
    signals: list[int] = []
    stopped: list[int] = []
    # The client of the Hub logs every retry; one sentence at the end is enough.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    _streams()

    def handle(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if _importing("torch"):
            # An exception during the import aborts the process, without a message and without cleaning up.
            threading.Timer(0.05, signal.raise_signal, [number]).start()
        elif number == signal.SIGINT or not stopped:
            # A second signal must not interrupt the clean-up; a second Ctrl-C may.
            stopped.append(number)
            signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, handle)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, handle)
    code = run(lambda: bool(signals))
    if signals and code == INTERRUPTED:
        with suppress(OSError):
            if sys.stdout is not None:
                sys.stdout.flush()
        if signals[0] == signal.SIGINT:
            # The message is printed; torch would take seconds to shut down.
            os._exit(code)
        signal.signal(signals[0], signal.SIG_DFL)
        signal.raise_signal(signals[0])
    # The work is done; Ctrl-C while Python shuts down would only print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _importing(package: str) -> bool:
    return bool(getattr(getattr(sys.modules.get(package), "__spec__", None), "_initializing", False))


if __name__ == "__main__":
    main()
