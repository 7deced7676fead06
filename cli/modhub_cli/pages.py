"""The pages of docs/commands, made of each command's own help: `python -m modhub_cli.pages docs/commands`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import click

from modhub.errors import NotFoundError
from modhub.schemas import document_schema
from modhub_cli.main import COMMANDS, SECTIONS, cli

__all__ = ["index_page", "page_of", "write_pages"]

Schema: TypeAlias = Mapping[str, Any]


def page_of(name: str) -> str:
    """The Markdown page of one command."""
    root = click.Context(cli, info_name="modhub", **cli.context_settings)
    command = cli.get_command(root, name)
    if command is None:
        raise click.UsageError(f"There is no command '{name}'.")
    text, _, example = inspect.cleandoc(command.help or "").partition("Example: ")
    parts = [f"# modhub {name}", text.strip(), f"```sh\n{example.strip()}\n```"]
    parts += [_usage(click.Context(command, info_name=name, parent=root)), *_document(name)]
    if isinstance(command, click.Group):
        for sub in sorted(command.commands):
            context = click.Context(command, info_name=name, parent=root)
            child = command.commands[sub]
            text, _, example = inspect.cleandoc(child.help or "").partition("Example: ")
            parts += [f"## modhub {name} {sub}", text.strip(), f"```sh\n{example.strip()}\n```"]
            usage = _usage(click.Context(child, info_name=sub, parent=context))
            parts += [usage, *_document(f"{name} {sub}")]
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
        "Every page lists the keys of its document, with `[]` for each of an array, `*` for each name;",
        '`modhub.schemas.document_schema("pull")` gives them as JSON Schema. Later versions may add keys.',
        "`bytes` and `seconds` are what they say, `flops` multiply-adds for one image; a share is from 0 to",
        "1, a moment ISO 8601 in UTC; what is not a number is `null`.",
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


def _document(command: str) -> list[str]:
    """The keys of what a command prints with --json, as a table; nothing where it prints no document."""
    try:
        schema = document_schema(command)
    except NotFoundError:
        return []
    lines = ["With `--json`:", "", "| key | value | what |", "|---|---|---|"]
    # Two kinds of one object may share a key.
    lines += dict.fromkeys(
        f"| `{key}` | {kind} | {said} |" for key, kind, said in _keys("", schema, schema["$defs"])
    )
    return ["\n".join(lines)]


def _keys(before: str, schema: Schema, known: Schema) -> Iterator[tuple[str, str, str]]:
    """Of every key inside `schema`: where it is, the kinds of value it has, and what it says."""
    for each in _variants(schema, known):
        for name, value in each.get("properties", {}).items():
            place, variants = f"{before}.{name}".removeprefix("."), _variants(value, known)
            told = [said for one in (value, *variants) if (said := one.get("description"))]
            yield place, _kinds(variants, known), told[0] if told else ""
            yield from _keys(place, value, known)
        for mark, inner in (("[]", each.get("items")), (".*", each.get("additionalProperties"))):
            if inner:
                yield from _keys(before + mark, inner, known)


def _variants(schema: Schema, known: Schema) -> list[Schema]:
    """What a value may be, each of one type; a kind that has a name says it as its title."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        own = {key: value for key, value in schema.items() if key != "$ref"}
        found = {**known[name], **own}
        return _variants(found if found["type"] == "object" else {**found, "title": name}, known)
    if "anyOf" in schema:
        return [each for one in schema["anyOf"] for each in _variants(one, known)]
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": each} for each in schema["type"]]
    return [schema]


def _kinds(variants: Iterable[Schema], known: Schema) -> str:
    return " or ".join(dict.fromkeys(_kind(each, known) for each in variants))


def _kind(schema: Schema, known: Schema) -> str:
    """Of one of `_variants`."""
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("title", schema["type"]))
    inner = schema.get("items" if kind == "array" else "additionalProperties")
    return f"{kind} of {_kinds(_variants(inner, known), known)}" if inner else kind


def _usage(context: click.Context) -> str:
    formatter = click.HelpFormatter(width=100)
    context.command.format_usage(context, formatter)
    context.command.format_options(context, formatter)
    return f"```\n{formatter.getvalue().strip()}\n```"


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
