"""The JSON Schemas of every file format and of what commands print, as they are shipped."""

from __future__ import annotations

import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from modhub.errors import NotFoundError

SCHEMAS = ("build", "card", "composition", "documents", "graph", "lock", "module", "options", "repository")
"""Of build.json, the card's front matter, modhub.toml, what commands print with --json, graph.json,
modhub.lock, module.json, a build's options.json, modhub.json."""


def schema(name: str) -> dict[str, Any]:
    """One of `SCHEMAS`, JSON Schema 2020-12. Raises `NotFoundError`."""
    if name not in SCHEMAS:
        raise NotFoundError(f"There is no schema '{name}'.", hint=f"There are: {', '.join(SCHEMAS)}.")
    document: dict[str, Any] = json.loads((_folder() / f"{name}.schema.json").read_text(encoding="utf-8"))
    return document


def document_schema(command: str) -> dict[str, Any]:
    """Of what `modhub COMMAND --json` prints; `command` as it is typed, such as "token list". Raises
    `NotFoundError`."""
    document, name = schema("documents"), "-".join(command.split())
    if name not in document["properties"]:
        raise NotFoundError(f"No command '{command}' prints a document.", hint="See 'modhub --help'.")
    return {
        "$schema": document["$schema"],
        "$id": f"{document['$id']}:{name}",
        "title": f"what 'modhub {command}' prints with --json",
        **document["properties"][name],
        "$defs": document["$defs"],
    }


def _folder() -> Traversable:
    """`modhub/_schemas` when installed from a wheel, `schemas/` in a checkout."""
    shipped = files("modhub") / "_schemas"
    return shipped if shipped.is_dir() else Path(__file__).resolve().parents[2] / "schemas"
