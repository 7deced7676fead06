"""Generates docs/commands from the help of the commands: `python -m modhub_cli.pages docs/commands`."""

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

Schema: TypeAlias = Mapping[str, Any]

_INDEX = """
# Commands

Data goes to stdout, messages go to stderr. Exit codes: 0 success, 1 error, 2 wrong usage, 130 interrupted
by Ctrl-C (143 by SIGTERM, 129 by SIGHUP). An interrupted command removes its partial output; if the process
was killed, the next command that writes to the same place removes it.

`--json` prints one JSON document, `--quiet` only the essential values. If a command fails, stdout is empty,
except for `predict` and `fsck`, whose documents list the unreadable images and the damage.

A table on a terminal fits its width: columns that do not fit are left out, and a message names them. Piped
output is never shortened.

Each page lists the keys of the JSON document, with `[]` for every element of an array and `*` for every key
of an object; `modhub.schemas.document_schema("pull")` returns them as JSON Schema. Later versions may add
keys. `bytes` and `seconds` are in these units, `flops` are multiply-adds per image, fractions are between 0
and 1, times are ISO 8601 in UTC, and a value that is not a number is `null`.

Equal runs print equal documents, except for time and memory (`seconds`, `elapsed_seconds` and `peak_bytes`
of `decompose`, `seconds` of `demo`, `seconds`, `latency` and `latency_spread` of `frontier`), values that a
hub generates (`commit` of `push`; `id`, `token` and dates of `token create`), and the state of the cache
(`downloaded_bytes` and `cached_bytes` of `pull`).

| variable | meaning |
|---|---|
| `MODHUB_HUB` | the hub, unless `--hub` is given (default on Linux: `~/.local/share/modhub/hub`) |
| `MODHUB_CACHE` | directory of downloaded files (Linux: `~/.cache/modhub`; see `modhub cache`) |
| `MODHUB_OFFLINE` | 1: the same as `--offline` |
| `MODHUB_ROOT` | directory of the hub for `serve`, `token`, `gc` and `fsck`, unless `--root` is given |
| `HF_TOKEN` | access token for the hub of `HF_ENDPOINT` (unset: huggingface.co); see `modhub login` |
| `MODHUB_DEBUG` | 1: print a traceback with every error |
"""


def page_of(name: str) -> str:
    """The Markdown page of one command."""
    root = click.Context(cli, info_name="modhub", **cli.context_settings)
    command = cli.get_command(root, name)
    if command is None:
        raise click.UsageError(f"No such command '{name}'.")
    text, example = _parts(command)
    parts = [f"# modhub {name}", text.strip(), f"```sh\n{example.strip()}\n```"]
    parts += [_usage(click.Context(command, info_name=name, parent=root)), *_document(name)]
    if isinstance(command, click.Group):
        for sub in sorted(command.commands):
            context = click.Context(command, info_name=name, parent=root)
            child = command.commands[sub]
            text, example = _parts(child)
            parts += [f"## modhub {name} {sub}", text.strip(), f"```sh\n{example.strip()}\n```"]
            usage = _usage(click.Context(child, info_name=sub, parent=context))
            parts += [usage, *_document(f"{name} {sub}")]
    return "\n\n".join(parts) + "\n"


def index_page() -> str:
    """The Markdown page that lists the commands."""
    root = click.Context(cli, info_name="modhub", **cli.context_settings)
    lines = [_INDEX.strip()]
    for title, names in SECTIONS.items():
        lines += ["", f"## {title}", ""]
        for name in names:
            command = cli.get_command(root, name)
            if command is not None:
                lines.append(f"- [modhub {name}]({name}.md): {command.get_short_help_str(100)}")
    return "\n".join(lines) + "\n"


def write_pages(directory: Path) -> None:
    """Write every page, and delete the pages of commands that no longer exist."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.md"):
        if old.stem not in (*COMMANDS, "README"):
            old.unlink()
    (directory / "README.md").write_text(index_page(), encoding="utf-8")
    for name in COMMANDS:
        (directory / f"{name}.md").write_text(page_of(name), encoding="utf-8")


def _parts(command: click.Command) -> tuple[str, str]:
    """The help text and its example; click marks lines that it must not wrap with a backspace."""
    text, _, example = inspect.cleandoc(command.help or "").replace("\b\n", "").partition("Example: ")
    return text, example


def _document(command: str) -> list[str]:
    """The keys of the --json document as a table; nothing for a command that prints no document."""
    try:
        schema = document_schema(command)
    except NotFoundError:
        return []
    lines = ["With `--json`:", "", "| key | value | meaning |", "|---|---|---|"]
    # Two variants of an object may share a key.
    lines += dict.fromkeys(
        f"| `{key}` | {kind} | {description} |"
        for key, kind, description in _keys("", schema, schema["$defs"])
    )
    return ["\n".join(lines)]


def _keys(prefix: str, schema: Schema, definitions: Schema) -> Iterator[tuple[str, str, str]]:
    """Of every key inside `schema`: its path, the types of its value, and its description."""
    for variant in _variants(schema, definitions):
        for name, value in variant.get("properties", {}).items():
            path, variants = f"{prefix}.{name}".removeprefix("."), _variants(value, definitions)
            descriptions = [text for part in (value, *variants) if (text := part.get("description"))]
            yield path, _types(variants, definitions), descriptions[0] if descriptions else ""
            yield from _keys(path, value, definitions)
        for mark, inner in (("[]", variant.get("items")), (".*", variant.get("additionalProperties"))):
            if inner:
                yield from _keys(prefix + mark, inner, definitions)


def _variants(schema: Schema, definitions: Schema) -> list[Schema]:
    """The schemas of one type each that a value may have; a named definition becomes the title."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        overrides = {key: value for key, value in schema.items() if key != "$ref"}
        merged = {**definitions[name], **overrides}
        return _variants(merged if merged["type"] == "object" else {**merged, "title": name}, definitions)
    if "anyOf" in schema:
        return [variant for part in schema["anyOf"] for variant in _variants(part, definitions)]
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": name} for name in schema["type"]]
    return [schema]


def _types(variants: Iterable[Schema], definitions: Schema) -> str:
    return " or ".join(dict.fromkeys(_type(variant, definitions) for variant in variants))


def _type(schema: Schema, definitions: Schema) -> str:
    """Of one of `_variants`."""
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    name = str(schema.get("title", schema["type"]))
    inner = schema.get("items" if name == "array" else "additionalProperties")
    return f"{name} of {_types(_variants(inner, definitions), definitions)}" if inner else name


def _usage(context: click.Context) -> str:
    formatter = click.HelpFormatter(width=100)
    context.command.format_usage(context, formatter)
    context.command.format_options(context, formatter)
    return f"```\n{formatter.getvalue().strip()}\n```"


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
