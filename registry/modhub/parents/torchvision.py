"""`torchvision:NAME`: torchvision's classification networks, labels and preprocessing from `Weights.meta`."""

from __future__ import annotations

import difflib
import io
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
import torchvision
from torch import nn

from modhub.errors import OfflineError, ParentError
from modhub.manifest import InputSpec
from modhub.parents.base import ParentSource, distinct_labels
from modhub.parents.weights import class_count, fit_weights, is_published, read_weights

AUXILIARY = ("googlenet", "inception_v3")
"""Networks with auxiliary heads for training; they play no part in evaluation, so they are left out."""


def torchvision_parent(name: str, weights: Path | None, arguments: Mapping[str, Any]) -> ParentSource:
    """With `weights` nothing is downloaded; without, torchvision's best ImageNet weights are. ImageNet's
    names are given to torchvision's own weights only, which it marks by their digest.

    Raises `ParentError` for a name torchvision does not have and weights that do not fit, `OfflineError` when
    the download fails.
    """
    models = torchvision.models.list_models(module=torchvision.models)
    if name not in models:
        near = difflib.get_close_matches(name, models, 3) or ["resnet18"]
        raise ParentError(
            f"Unknown torchvision classification network '{name}'.", hint=f"Did you mean {', '.join(near)}?"
        )
    recipes = torchvision.models.get_model_weights(name)
    published = None
    if weights is not None:
        published = next((each for each in recipes if is_published(weights, [each.url])), None)
    recipe = published or recipes.DEFAULT
    categories = distinct_labels(recipe.meta["categories"])
    tensors = read_weights(weights) if weights is not None else _downloaded(name, recipe)
    place = f"'{weights.name}'" if weights is not None else "the downloaded file"
    if name in AUXILIARY:
        tensors = {key: tensor for key, tensor in tensors.items() if not key.lower().startswith("aux")}
    module = _built(name, dict(arguments))
    classes = class_count(module, tensors)
    if classes is not None:
        module = _built(name, {**arguments, "num_classes": classes})
    fit_weights(module, tensors, place, name)
    official = classes is None and (weights is None or published is not None)
    if name in AUXILIARY and "transform_input" not in arguments:
        if not official:
            raise ParentError(
                f"{place} does not say whether {name} was trained with 'transform_input', as weights are "
                "that were tuned from torchvision's own.",
                hint="Say it with --arg transform_input=true or --arg transform_input=false.",
            )
        # torchvision's own weights for these expect another normalisation, which the network applies itself.
        module.transform_input = arguments.get("transform_input", True)
    return ParentSource(
        name=name,
        architecture=f"torchvision:{name}",
        model=module.eval(),
        labels=categories if official else None,
        input=preset_input(recipe.transforms()),
        dataset="imagenet-1k" if official else None,
    )


def _built(name: str, arguments: dict[str, Any]) -> nn.Module:
    if name in AUXILIARY:
        arguments = {"aux_logits": False, "init_weights": False, **arguments}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = torchvision.models.get_model(name, weights=None, **arguments)
    except (TypeError, ValueError) as error:
        raise ParentError(
            f"torchvision cannot build '{name}' with these arguments: {error}.", hint="Check --arg."
        ) from None
    return module


def _downloaded(name: str, recipe: Any) -> dict[str, torch.Tensor]:
    try:
        # Only tensors are unpickled, never objects that could run code. torch.hub talks on stdout.
        with redirect_stdout(io.StringIO()):
            tensors: dict[str, torch.Tensor] = recipe.get_state_dict(
                progress=False, check_hash=True, weights_only=True, map_location="cpu"
            )
    except (URLError, OSError, RuntimeError) as error:
        host = urlparse(recipe.url).hostname
        reason = getattr(error, "reason", error)
        raise OfflineError(
            f"The weights of torchvision:{name} could not be downloaded from {host} ({reason}).",
            hint="Pass weights that you have with --weights FILE.safetensors.",
        ) from error
    return tensors


def preset_input(transforms: Any) -> InputSpec:
    """What a preset of torchvision (`Weights.transforms()`) does to an image."""
    size = int(transforms.crop_size[0])
    return InputSpec(
        channels=len(transforms.mean),
        height=size,
        width=size,
        mean=tuple(float(value) for value in transforms.mean),
        std=tuple(float(value) for value in transforms.std),
        resize=int(transforms.resize_size[0]),
        crop=True,
        interpolation=str(transforms.interpolation.value),
    )
