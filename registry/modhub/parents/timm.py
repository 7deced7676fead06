"""`timm:NAME`: networks of timm (optional), labels and preprocessing from their `pretrained_cfg`."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from modhub.errors import MissingDependencyError, ParentError
from modhub.manifest import INTERPOLATIONS, InputSpec
from modhub.parents.base import Fetch, ParentSource
from modhub.parents.imagenet import IMAGENET, imagenet_labels
from modhub.parents.weights import class_count, fit_weights, is_published, read_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KNOWN = frozenset(
    (
        *("input_size", "test_input_size", "min_input_size", "fixed_input_size", "interpolation", "crop_pct"),
        *("test_crop_pct", "crop_mode", "mean", "std"),
        # What follows says nothing of images.
        *(
            "url",
            "file",
            "state_dict",
            "hf_hub_id",
            "hf_hub_filename",
            "hf_hub",
            "source",
            "architecture",
            "tag",
        ),
        *("custom_load", "num_classes", "label_offset", "label_names", "label_descriptions", "labels"),
        *("pool_size", "test_pool_size", "first_conv", "classifier", "license", "description", "origin_url"),
        *("paper_name", "paper_ids", "notes", "num_features", "global_pool", "model_args", "pretrained_cfg"),
    )
)
"""Keys of a `pretrained_cfg`, and of the older config in which they stand beside the architecture."""


def timm_parent(
    name: str, weights: Path | None, arguments: Mapping[str, Any], fetch: Fetch | None
) -> ParentSource:
    """With `weights` nothing is downloaded; without, `fetch` gets timm's own as safetensors. ImageNet's names
    are given to timm's own weights only, of which it marks some by their digest.

    Raises `ParentError`, `MissingDependencyError`, and what `fetch` raises.
    """
    module = timm_module(name, arguments)
    config: Mapping[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    own = weights is None or is_published(weights, [config.get("url")])
    if weights is None:
        weights = _published(name, config, fetch)
    tensors = read_weights(weights)
    classes = class_count(module, tensors)
    if classes is not None:
        module = timm_module(name, {**arguments, "num_classes": classes})
    fit_weights(module, tensors, f"'{weights.name}'", name)
    official = own and module.num_classes == config.get("num_classes") == IMAGENET
    return ParentSource(
        name=name,
        architecture=f"timm:{name}",
        model=module.eval(),
        labels=imagenet_labels() if official else None,
        input=timm_input(config, f"timm:{name}"),
        sized=partial(timm_input, config, f"timm:{name}"),
        license=config.get("license") if own else None,
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


def timm_input(
    config: Mapping[str, Any], place: str, height: int | None = None, width: int | None = None
) -> InputSpec:
    """What a `pretrained_cfg` says of the size, and of what part of the resized image is cut out, for images
    of `height` × `width` (None: its own size); `place` stands in messages.

    Raises `ParentError` for a key that is not known, and for what cannot be stored, naming it.
    """
    if unknown := [key for key, value in config.items() if key not in KNOWN and value is not None]:
        raise ParentError(
            f"The configuration of {place} has a key '{unknown[0]}', which modhub does not know.",
            hint="Choose another network, or report it.",
        )
    # timm's own defaults, for what a configuration leaves out.
    channels, *size = config.get("input_size") or (3, 224, 224)
    fraction = config.get("crop_pct") or 0.875
    if height is not None and width is not None and [height, width] != list(size):
        if config.get("fixed_input_size"):
            raise ParentError(
                f"{place} takes images of {size[0]}×{size[1]} pixels only.", hint="Leave --input-size out."
            )
        if [height, width] == list(config.get("test_input_size") or ())[1:]:
            fraction = config.get("test_crop_pct") or fraction
        size = [height, width]
    mode, interpolation = config.get("crop_mode") or "center", config.get("interpolation") or "bicubic"
    scaled = math.floor(size[0] / fraction), math.floor(size[1] / fraction)
    if interpolation not in INTERPOLATIONS:
        raise _unlike(place, "interpolation", interpolation)
    if mode not in ("center", "squash") or (mode == "center" and scaled[0] != scaled[1]):
        raise _unlike(place, "crop_mode", mode)
    squashed = mode == "squash"
    return InputSpec(
        channels=channels,
        height=size[0],
        width=size[1],
        mean=tuple(float(value) for value in config.get("mean") or IMAGENET_MEAN),
        std=tuple(float(value) for value in config.get("std") or IMAGENET_STD),
        resize=(None if scaled == tuple(size) else scaled) if squashed else scaled[0],
        crop=not squashed or scaled != tuple(size),
        interpolation=interpolation,
    )


def _unlike(place: str, key: str, value: Any) -> ParentError:
    return ParentError(
        f"The configuration of {place} says {key} '{value}', which modhub cannot do.",
        hint="Choose another network.",
    )
