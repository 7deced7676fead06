"""The pages of docs/commands, made of each command's own help: `python -m modhub_cli.pages docs/commands`."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import click

from modhub_cli.main import COMMANDS, SECTIONS, cli

__all__ = ["index_page", "page_of", "write_pages"]


def page_of(name: str) -> str:
    """The Markdown page of one command."""
    root = click.Context(cli, info_name="modhub", **cli.context_settings)
    command = cli.get_command(root, name)
    if command is None:
        raise click.UsageError(f"There is no command '{name}'.")
    text, _, example = inspect.cleandoc(command.help or "").partition("Example: ")
    parts = [f"# modhub {name}", text.strip(), f"```sh\n{example.strip()}\n```"]
    parts.append(_usage(click.Context(command, info_name=name, parent=root)))
    if isinstance(command, click.Group):
        for sub in sorted(command.commands):
            context = click.Context(command, info_name=name, parent=root)
            child = command.commands[sub]
            text, _, example = inspect.cleandoc(child.help or "").partition("Example: ")
            parts += [f"## modhub {name} {sub}", text.strip(), f"```sh\n{example.strip()}\n```"]
            parts.append(_usage(click.Context(child, info_name=sub, parent=context)))
    return "\n\n".join(parts) + "\n"


def index_page() -> str:
    """The list of the commands."""
    root = click.Context(cli, info_name="modhub", **cli.context_settings)
    lines = [
        "# The commands",
        "",
        "Data on stdout, talk on stderr. Exit codes: 0 done, 1 a clear error, 2 wrong usage, 130 stopped by",
        "Ctrl-C (143 by SIGTERM, 129 by SIGHUP). A stopped command clears away what it had begun; what one",
        "that was killed left beside its target is removed by the next that writes there.",
        "`--json` prints one JSON document, `--quiet` only what a script would read. Where a command fails,",
        "stdout stays empty, but for `predict` and `fsck`, whose documents say which images or places are",
        "bad.",
        "",
        "In documents `bytes` and `seconds` are what they say, `flops` multiply-adds for one image; shares",
        "(`…_fraction`, `recall`, `precision`, `f1`, `top1`, `ece`, `probabilities`, …) are from 0 to 1, and",
        "what is not a number is `null`.",
        "",
        "Equal runs print equal documents, but for times and memory (`seconds`, `elapsed_seconds` and",
        "`peak_bytes` of `decompose`, `seconds` of `demo`, `seconds`, `latency` and `latency_spread` of",
        "`frontier`), what a hub makes anew (`commit` of `push`; `id`, `token` and dates of `token create`),",
        "and what the cache had (`downloaded_bytes` and `cached_bytes` of `pull`).",
        "",
        "| variable | what it says |",
        "|---|---|",
        "| `MODHUB_HUB` | the hub, where no `--hub` names one; else the user's own directory "
        "(Linux: `~/.local/share/modhub/hub`) |",
        "| `MODHUB_CACHE` | where pulled files are kept (Linux: `~/.cache/modhub`; see `modhub cache`) |",
        "| `MODHUB_OFFLINE` | 1: as `--offline` |",
        "| `MODHUB_ROOT` | the store of `serve`, `token`, `gc` and `fsck`, where no `--root` names one |",
        "| `HF_TOKEN` | the token for a hub with accounts |",
        "| `MODHUB_DEBUG` | 1: a traceback with every error |",
    ]
    for title, names in SECTIONS.items():
        lines += ["", f"## {title}", ""]
        for name in names:
            command = cli.get_command(root, name)
            if command is not None:
                lines.append(f"- [modhub {name}]({name}.md): {command.get_short_help_str(100)}")
    return "\n".join(lines) + "\n"


def write_pages(directory: Path) -> None:
    """Write every page, and remove those of commands that are gone."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.md"):
        if old.stem not in (*COMMANDS, "README"):
            old.unlink()
    (directory / "README.md").write_text(index_page(), encoding="utf-8")
    for name in COMMANDS:
        (directory / f"{name}.md").write_text(page_of(name), encoding="utf-8")


def _usage(context: click.Context) -> str:
    formatter = click.HelpFormatter(width=100)
    context.command.format_usage(context, formatter)
    context.command.format_options(context, formatter)
    return f"```\n{formatter.getvalue().strip()}\n```"


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
