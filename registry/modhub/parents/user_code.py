"""`FILE.py:CALLABLE`, the user's own model, and `DIR`, a classifier written as data by `write_parent`."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from modhub.errors import IntegrityError, ParentError, hinting
from modhub.files import new_directory, write_bytes
from modhub.manifest import Fields, InputSpec
from modhub.nets.graph import Graph, Network
from modhub.parents.base import ParentSource, stated_input
from modhub.parents.weights import fit_weights, load_weights, read_weights
from modhub.text import parse_json, pretty_json

GRAPH, WEIGHTS, ABOUT = "graph.json", "weights.safetensors", "parent.json"
ABOUT_VERSION = 1


def callable_parent(
    path: Path, name: str, weights: Path | None, arguments: Mapping[str, Any]
) -> ParentSource:
    """Runs the user's own Python file and calls `name(**arguments)` in it; it must return a module.

    Raises `ParentError` when the file, the callable or its result is not what it should be.
    """
    build = callable_of(path, name, "A parent is FILE.py:CALLABLE.")
    try:
        inspect.signature(build).bind(**arguments)
        module = build(**arguments)
    except TypeError as error:
        raise ParentError(
            f"{name} in '{path}' cannot be called like this: {error}.", hint="Check --arg."
        ) from error
    except (Exception, SystemExit) as error:
        raise ParentError(
            f"{name} in '{path}' failed: {type(error).__name__}: {error}.", hint="Check --arg, and the file."
        ) from error
    if not isinstance(module, nn.Module):
        raise ParentError(
            f"{name} in '{path}' returns a {type(module).__name__}; it should return a torch.nn.Module.",
            hint="Name a class of modules, or a function that builds one.",
        )
    if weights is not None:
        fit_weights(module, read_weights(weights), f"'{weights.name}'", name)
    return ParentSource(
        name=name,
        architecture=f"{path.name}:{name}",
        model=module.eval(),
        input=stated_input(module, name),
    )


def callable_of(path: Path, name: str, form: str) -> Callable[..., Any]:
    """Runs the user's own Python file; the callable `name` in it. `form` is the hint where there is no file.

    Raises `ParentError`.
    """
    if not path.is_file():
        raise ParentError(f"The file '{path}' does not exist.", hint=form)
    unique = f"_modhub_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None:
        raise ParentError(f"'{path}' cannot be read as a Python file.", hint=form)
    code = importlib.util.module_from_spec(spec)
    sys.modules[unique] = code
    # What lies beside it can be imported, as in a script, but hides nothing that is installed.
    if (beside := str(path.resolve().parent)) not in sys.path:
        sys.path.append(beside)
    try:
        spec.loader.exec_module(code)
    except (Exception, SystemExit) as error:
        raise ParentError(
            f"'{path}' does not run: {type(error).__name__}: {error}.", hint=f"Try it with: python {path}"
        ) from error
    called: object = getattr(code, name, None)
    if not callable(called):
        callables = [key for key, value in vars(code).items() if callable(value) and not key.startswith("_")]
        defined = [key for key in callables if getattr(getattr(code, key), "__module__", unique) == unique]
        raise ParentError(
            f"'{path}' has no callable '{name}'.", hint=f"It has {', '.join(sorted(defined)) or 'none'}."
        )
    return called


def write_parent(
    directory: Path | str,
    network: Network,
    *,
    name: str,
    architecture: str,
    labels: Sequence[str],
    input: InputSpec,  # noqa: A002 - the manifest's own word
    license: str | None = None,  # noqa: A002
    dataset: str | None = None,
) -> None:
    """Write a whole classifier as data: graph.json, weights.safetensors and parent.json in a new directory.

    The same classifier gives the same bytes. Raises `StorageError` when `directory` exists already or cannot
    be written.
    """
    about = {
        "schema_version": ABOUT_VERSION,
        "name": name,
        "architecture": architecture,
        "labels": list(labels),
        "input": input.to_dict(),
        "license": license,
        "dataset": dataset,
        "sha256": network.sha256,
    }
    with new_directory(Path(directory)) as scratch:
        write_bytes(scratch / GRAPH, pretty_json(network.graph.to_dict()))
        write_bytes(scratch / WEIGHTS, save(dict(network.tensors)))
        write_bytes(scratch / ABOUT, pretty_json(about))


@hinting("Write it again from the trained network.")
def directory_parent(directory: Path) -> ParentSource:
    """What `write_parent` wrote. Raises `ParentError`, `ManifestError` or `IntegrityError`."""
    for name in (GRAPH, WEIGHTS, ABOUT):
        if not (directory / name).is_file():
            raise ParentError(
                f"The directory '{directory}' is not a parent: {name} is missing.",
                hint=f"A parent's directory holds {GRAPH}, {WEIGHTS} and {ABOUT}.",
            )
    about = Fields(parse_json((directory / ABOUT).read_bytes(), ABOUT), ABOUT)
    about.check_version(ABOUT_VERSION)
    graph = Graph.from_dict(parse_json((directory / GRAPH).read_bytes(), GRAPH), GRAPH)
    network = Network(graph, load_weights(directory / WEIGHTS))
    if network.sha256 != about.digest("sha256"):
        raise IntegrityError(
            f"The network in '{directory}' is not the one that {ABOUT} describes.",
            hint="Write it again; files of two parents may have been mixed.",
        )
    return ParentSource(
        name=about.string("name", limit=200),
        architecture=about.string("architecture", limit=200),
        model=network,
        labels=about.strings("labels"),
        input=InputSpec.from_dict(about.child("input")),
        license=about.optional_string("license"),
        dataset=about.optional_string("dataset"),
    )
