"""What a parent string leads to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from modhub.errors import ParentError
from modhub.importing.importer import import_module
from modhub.importing.onnx_network import OnnxNetwork
from modhub.manifest import Fields, InputSpec
from modhub.nets.graph import Network

_INPUT_HINT = "Its keys are channels, height, width, mean, std, value_range, resize, crop and interpolation."


class Fetch(Protocol):
    """Gets one file of a Hugging Face repository: `fetch(repository, revision, filename)` is a local path.

    Raises `NotFoundError` when the repository has no such file, `OfflineError` when it cannot be asked.
    """

    def __call__(self, repository: str, revision: str | None, filename: str) -> Path: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentSource:
    """A trained classifier with what is known about it; None where nothing is.

    `model` is a module, or a network that was data already. `architecture` is the parent string's kind and
    name (`torchvision:resnet18`); `name` the short name. `sized` gives the input for another (height, width);
    None: what is cut off stays the same part of the image. `assumed` says that nothing is known of how it
    normalises images, and `input` leaves them as they are.
    """

    name: str
    architecture: str
    model: nn.Module | Network
    labels: tuple[str, ...] | None = None
    input: InputSpec | None = None
    sized: Callable[[int, int], InputSpec] | None = None
    license: str | None = None
    dataset: str | None = None
    assumed: bool = False

    def input_at(self, height: int, width: int) -> InputSpec | None:
        """The input for images of another size; None where nothing is known of it. Raises `ParentError` for a
        size that the network does not take."""
        if self.sized is not None:
            return self.sized(height, width)
        return None if self.input is None else self.input.at(height, width)

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
        shape = (spec.channels, spec.height, spec.width)
        if isinstance(self.model, OnnxNetwork):
            return self.model.network(shape, self.name)
        return import_module(self.model, shape, name=self.name)


def distinct_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels of which each stands once: ImageNet has two cranes, the second becomes `crane (517)`."""
    counts = Counter(labels)
    seen: set[str] = set()
    out = []
    for index, label in enumerate(labels):
        out.append(f"{label} ({index})" if counts[label] > 1 and label in seen else label)
        seen.add(label)
    return tuple(out)


def stated_input(module: object, name: str) -> InputSpec | None:
    """What a module says in an attribute `input_spec`: the keys of a manifest's `input`, of which height and
    width must be there. None without that attribute; raises `ParentError` for a key that there is not."""
    stated = getattr(module, "input_spec", None)
    if stated is None or isinstance(stated, InputSpec):
        return stated
    place = f"The input_spec of {name}"
    if not isinstance(stated, Mapping) or not {"height", "width"} <= stated.keys():
        raise ParentError(f"{place} is no dictionary with a height and a width.", hint=_INPUT_HINT)
    channels = stated.get("channels", 3)
    plain = InputSpec(channels=channels, height=1, width=1, mean=(0.0,) * channels, std=(1.0,) * channels)
    document = {**plain.to_dict(), "crop": stated.get("resize") is not None}
    if unknown := [key for key in stated if key not in document]:
        raise ParentError(f"{place} has a key '{unknown[0]}', which there is not.", hint=_INPUT_HINT)
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in stated.items()}
    return InputSpec.from_dict(Fields({**document, **values}, place))


def names_of(names: Any, classes: int) -> tuple[str, ...]:
    """The labels of `classes` rows, from a list, a dictionary of names by index, or one of indices by name.

    Raises `ParentError` when these are not the rows from 0 on.
    """
    if isinstance(names, Mapping):
        by_index = {int(key): value for key, value in names.items() if str(key).isdecimal()}
        if len(by_index) != len(names):
            by_index = {value: key for key, value in names.items()}
        if sorted(by_index, key=str) != sorted(range(len(names)), key=str):
            raise ParentError(
                "The names of the classes are no rows of the head, counted from 0.",
                hint="Give the labels as a list, in the order of the outputs.",
            )
        names = [by_index[row] for row in range(len(names))]
    labels = tuple(str(name) for name in names)
    if len(labels) != classes:
        raise ParentError(
            f"There are {len(labels)} names for {classes} classes.",
            hint="Give one label per row of the head.",
        )
    return labels


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
