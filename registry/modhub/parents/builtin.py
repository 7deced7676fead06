"""`modhub:NAME`: the networks that come with modhub."""

from __future__ import annotations

from pathlib import Path

from modhub.errors import ParentError
from modhub.manifest import InputSpec
from modhub.nets.architectures import ARCHITECTURES
from modhub.parents.base import ParentSource
from modhub.parents.weights import fit_weights, fitted, read_weights


def builtin_parent(name: str, weights: Path | None) -> ParentSource:
    """The number of classes is that of the weights' head. Raises `ParentError`."""
    architecture = ARCHITECTURES.get(name)
    if architecture is None:
        raise ParentError(
            f"Unknown built-in network '{name}'.", hint=f"There are {', '.join(sorted(ARCHITECTURES))}."
        )
    if weights is None:
        raise ParentError(
            f"modhub:{name} comes without weights.", hint="Pass trained ones with --weights FILE.safetensors."
        )
    tensors = fitted(architecture.build(architecture.classes), read_weights(weights))
    head = tensors.get(architecture.head)
    classes = int(head.shape[0]) if head is not None and head.dim() == 2 else architecture.classes
    module = architecture.build(classes)
    fit_weights(module, tensors, f"'{weights.name}'", name)
    channels, height, width = architecture.input_shape
    spec = InputSpec(
        channels=channels, height=height, width=width, mean=(0.0,) * channels, std=(1.0,) * channels
    )
    return ParentSource(name=name, architecture=f"modhub:{name}", model=module.eval(), input=spec)
