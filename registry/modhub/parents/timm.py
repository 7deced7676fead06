"""`timm:NAME`: networks of timm (optional), labels and preprocessing from their `pretrained_cfg`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torchvision
from torch import nn

from modhub.errors import MissingDependencyError, ParentError
from modhub.manifest import INTERPOLATIONS, InputSpec
from modhub.parents.base import Fetch, ParentSource, distinct_labels
from modhub.parents.weights import class_count, fit_weights, load_weights

__all__ = ["imagenet_labels", "timm_input", "timm_module", "timm_parent"]

IMAGENET = 1000


def timm_parent(
    name: str, weights: Path | None, arguments: Mapping[str, Any], fetch: Fetch | None
) -> ParentSource:
    """With `weights` nothing is downloaded; without, `fetch` gets timm's own as safetensors.

    Raises `ParentError`, `MissingDependencyError`, and what `fetch` raises.
    """
    module = timm_module(name, arguments)
    config: Mapping[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    if weights is None:
        weights = _published(name, config, fetch)
    tensors = load_weights(weights)
    classes = class_count(module, tensors)
    if classes is not None:
        module = timm_module(name, {**arguments, "num_classes": classes})
    fit_weights(module, tensors, f"'{weights.name}'", name)
    official = module.num_classes == config.get("num_classes") == IMAGENET
    return ParentSource(
        name=name,
        architecture=f"timm:{name}",
        model=module.eval(),
        labels=imagenet_labels() if official else None,
        input=timm_input(config),
        license=config.get("license"),
        dataset="imagenet-1k" if official else None,
    )


def timm_module(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """`timm.create_model` with random weights, and errors in modhub's words."""
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise MissingDependencyError("timm", purpose=f"The parent 'timm:{name}'", extra="timm") from None
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3) or ["resnet18"]
        raise ParentError(f"Unknown timm network '{name}'.", hint=f"Did you mean {', '.join(near)}?")
    try:
        module: nn.Module = timm.create_model(name, pretrained=False, **arguments)
    except (TypeError, ValueError) as error:
        raise ParentError(
            f"timm cannot build '{name}' with these arguments: {error}.", hint="Check --arg."
        ) from None
    return module


def _published(name: str, config: Mapping[str, Any], fetch: Fetch | None) -> Path:
    repository = config.get("hf_hub_id")
    if fetch is None or not repository:
        raise ParentError(
            f"timm:{name} comes without weights here.", hint="Pass some with --weights FILE.safetensors."
        )
    return fetch(str(repository), None, "model.safetensors")


def timm_input(config: Mapping[str, Any]) -> InputSpec:
    """A `pretrained_cfg` says the size, and what fraction of the resized image is cut out (`crop_pct`)."""
    channels, height, width = config["input_size"]
    interpolation = config.get("interpolation", "bilinear")
    return InputSpec(
        channels=channels,
        height=height,
        width=width,
        mean=tuple(float(value) for value in config["mean"]),
        std=tuple(float(value) for value in config["std"]),
        resize=int(min(height, width) / float(config.get("crop_pct") or 1.0)),
        crop=True,
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bicubic",
    )


def imagenet_labels() -> tuple[str, ...]:
    """The 1,000 classes of ILSVRC 2012 in their usual order."""
    return distinct_labels(torchvision.models.get_model_weights("resnet18").DEFAULT.meta["categories"])
