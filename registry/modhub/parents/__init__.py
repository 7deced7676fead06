"""Parent strings: where a trained classifier comes from.

modhub:NAME                a network built in, with --weights
torchvision:NAME           torchvision's, with --weights or downloaded
timm:NAME                  timm's, with --weights or fetched as safetensors
hf:REPO[@REVISION]         an image-classification repository of timm or transformers
onnx:FILE                  an ONNX file, read as data
FILE.py:CALLABLE           the user's own code, with --arg k=v and --weights
DIR                        a classifier written by modhub
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modhub.errors import ParentError
from modhub.parents.base import Fetch, ParentSource, distinct_labels, names_of, parsed_arguments, stated_input
from modhub.parents.builtin import builtin_parent
from modhub.parents.imagenet import imagenet_labels, imagenet_synonyms
from modhub.parents.onnx import onnx_parent
from modhub.parents.repository import repository_parent
from modhub.parents.timm import timm_parent
from modhub.parents.torchvision import torchvision_parent
from modhub.parents.user_code import callable_of, callable_parent, directory_parent, write_parent
from modhub.parents.weights import is_pickle, read_checkpoint, unwrapped

__all__ = [
    "Fetch",
    "ParentSource",
    "callable_of",
    "distinct_labels",
    "imagenet_labels",
    "imagenet_synonyms",
    "is_pickle",
    "load_parent",
    "names_of",
    "parsed_arguments",
    "read_checkpoint",
    "stated_input",
    "unwrapped",
    "write_parent",
]

GRAMMAR = (
    "A parent is modhub:NAME, torchvision:NAME, timm:NAME, hf:REPO[@REVISION], onnx:FILE, FILE.py:CALLABLE "
    "or a directory with graph.json, weights.safetensors and parent.json."
)


def load_parent(
    source: str,
    *,
    weights: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    fetch: Fetch | None = None,
) -> ParentSource:
    """The classifier that a parent string names, with what its own metadata says about labels and input.

    `weights` is a safetensors file or a checkpoint of torch.save, `arguments` what `--arg k=v` said, `fetch`
    gets files for `hf:` and `timm:`. Raises `ParentError`; `OfflineError` when weights would have to be
    downloaded and cannot be; `MissingDependencyError` when timm or transformers is needed and not there.
    """
    kind, _, name = source.partition(":")
    parsed = parsed_arguments(arguments or {})
    if kind == "modhub":
        return builtin_parent(name, weights)
    if kind == "torchvision":
        return torchvision_parent(name, weights, parsed)
    if kind == "timm":
        return timm_parent(name, weights, parsed, fetch)
    if kind == "hf":
        if fetch is None:
            raise ParentError(f"Cannot fetch '{source}'.", hint="Call modhub.decompose, or pass `fetch`.")
        return repository_parent(name, fetch)
    if kind == "onnx":
        if weights is not None or parsed:
            given = "weights" if weights is not None else "arguments"
            raise ParentError(
                f"An ONNX file has its own weights: {given} cannot be given.", hint="Leave them out."
            )
        return onnx_parent(Path(name))
    path, _, called = source.rpartition(":")
    if path.endswith(".py"):
        return callable_parent(Path(path), called, weights, parsed)
    if Path(source).is_dir():
        return directory_parent(Path(source))
    raise ParentError(f"Unknown parent '{source}'.", hint=GRAMMAR)
