"""The door: find the command, run it, turn whatever goes wrong into one sentence and an exit code."""

from __future__ import annotations

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

__all__ = ["COMMANDS", "cli", "main", "run"]

SECTIONS = {
    "Start": ("demo",),
    "Make modules": ("decompose", "teach"),
    "Share them": ("push", "pull", "search", "info", "versions", "yank", "verify", "cache"),
    "Say what you want": ("init", "add", "remove", "lock", "tree"),
    "Build a classifier": ("frontier", "compose", "replace"),
    "Use it": ("predict", "evaluate", "diff", "export"),
    "Run a hub": ("serve", "token", "gc", "fsck"),
}
COMMANDS = tuple(name for names in SECTIONS.values() for name in names)


class _LazyGroup(click.Group):
    """Commands by name; each one's file is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"modhub_cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click would make a silent failure of it.
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
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print it."
)
def cli() -> None:
    """The package registry for parts of neural networks.

    A trained CNN classifier is decomposed into class modules; modules are shared on a hub, picked by name and
    composed into one runnable classifier.

    Begin with: modhub demo
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        from modhub.errors import StorageError

        # Some libraries abort the process for it when they are imported.
        raise StorageError("The current directory is gone.", hint="Change to one that is there.") from None


def run(interrupted: Callable[[], bool] = lambda: False) -> int:
    """Do what the command line says. Exit codes: 0 done, 1 a clear error, 2 wrong usage, 130 interrupted.

    Some imports swallow Ctrl-C half-way and fail in another way later: what goes wrong once somebody has
    `interrupted` is told as an interruption.
    """
    try:
        code = cli.main(prog_name="modhub", standalone_mode=False)
    except BaseException as error:
        code = report(KeyboardInterrupt() if interrupted() else error)
    return code if isinstance(code, int) else 0


class _Talk(io.TextIOWrapper):
    """stderr, where nobody has to listen: a log on a full disk or a reader that left stops no work."""

    def write(self, text: str, /) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def _streams() -> None:
    """Make stdout and stderr take what comes."""
    # A file that is opened next must not become stderr, where libraries write by its number.
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    elif isinstance(sys.stderr, io.TextIOWrapper):
        old = sys.stderr
        sys.stderr = _Talk(old.buffer, encoding=old.encoding, errors=old.errors, line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The name of a file may be no text; it is printed as the bytes that it is, for scripts to use.
        utf8 = sys.stdout.encoding.lower() in ("utf-8", "utf8")
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "replace")


def main() -> None:
    """The console script: `run`, then the end of the process.

    SIGTERM and SIGHUP, as a timeout or a closed terminal sends them, stop the work as Ctrl-C does; what was
    begun is cleared away, and then the process ends by that signal (for a shell: 143, 129).
    """
    signals: list[int] = []
    stopped: list[int] = []
    # The client of the Hub tells of each new try; one sentence at the end is enough.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    _streams()

    def noted(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if _importing("torch"):
            # An exception half-way through aborts the process, without a word and without cleaning up.
            threading.Timer(0.05, signal.raise_signal, [number]).start()
        elif number == signal.SIGINT or not stopped:
            # A second one must not stop the clearing away; who presses Ctrl-C twice may.
            stopped.append(number)
            signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, noted)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, noted)
    code = run(lambda: bool(signals))
    if signals and code == INTERRUPTED:
        with suppress(OSError):
            if sys.stdout is not None:
                sys.stdout.flush()
        if signals[0] == signal.SIGINT:
            # Whoever pressed Ctrl-C has been told; torch would take seconds to take itself down.
            os._exit(code)
        signal.signal(signals[0], signal.SIG_DFL)
        signal.raise_signal(signals[0])
    # The work is done and told; Ctrl-C while Python takes itself down would only print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _importing(package: str) -> bool:
    return bool(getattr(getattr(sys.modules.get(package), "__spec__", None), "_initializing", False))


if __name__ == "__main__":
    main()
