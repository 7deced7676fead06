"""What a parent string leads to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from modhub.errors import ParentError
from modhub.importing.importer import import_module
from modhub.manifest import InputSpec
from modhub.nets.graph import Network

__all__ = ["Fetch", "ParentSource", "distinct_labels", "parsed_arguments"]


class Fetch(Protocol):
    """Gets one file of a Hugging Face repository: `fetch(repository, revision, filename)` is a local path.

    Raises `NotFoundError` when the repository has no such file, `OfflineError` when it cannot be asked.
    """

    def __call__(self, repository: str, revision: str | None, filename: str) -> Path: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentSource:
    """A trained classifier with what is known about it; None where nothing is.

    `model` is a module, or a network that was data already. `architecture` is the parent string's kind and
    name (`torchvision:resnet18`); `name` the short name.
    """

    name: str
    architecture: str
    model: nn.Module | Network
    labels: tuple[str, ...] | None = None
    input: InputSpec | None = None
    license: str | None = None
    dataset: str | None = None

    def network(self, input: InputSpec | None = None) -> Network:  # noqa: A002 - the manifest's own word
        """The model as data, for images as `input` says (None: as this source says).

        Raises `ParentError` when neither says it, `NetworkImportError` when the model cannot be data.
        """
        spec = input or self.input
        if isinstance(self.model, Network):
            return self.model
        if spec is None:
            raise ParentError(
                f"The input size of {self.name} is unknown.", hint="Pass --input-size, --mean and --std."
            )
        return import_module(self.model, (spec.channels, spec.height, spec.width), name=self.name)


def distinct_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels of which each stands once: ImageNet has two cranes, the second becomes `crane (517)`."""
    counts = Counter(labels)
    seen: set[str] = set()
    out = []
    for index, label in enumerate(labels):
        out.append(f"{label} ({index})" if counts[label] > 1 and label in seen else label)
        seen.add(label)
    return tuple(out)


def parsed_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`--arg` or `--method-option` k=v as Python values: integers, decimals, true, false, none; else text.

    What is no text, as it may come from Python, stays what it is.
    """
    return {key: _parsed(given) if isinstance(given, str) else given for key, given in arguments.items()}


def _parsed(text: str) -> Any:
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
