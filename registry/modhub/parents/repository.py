"""`hf:REPO[@REVISION]`: an image-classification repository of timm or transformers on a Hugging Face hub.

Files come through a `Fetch`; this file asks no hub. Only JSON and safetensors are read, never code, never
pickles.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from modhub.errors import MissingDependencyError, ModhubError, NotFoundError, ParentError
from modhub.manifest import InputSpec
from modhub.manifest.fields import Fields
from modhub.parents.base import Fetch, ParentSource, distinct_labels, names_of
from modhub.parents.imagenet import IMAGENET, imagenet_labels
from modhub.parents.processors import flips_channels, processor_input
from modhub.parents.timm import timm_input, timm_module
from modhub.parents.weights import fit_weights, load_weights
from modhub.text import parse_json

WEIGHTS = "model.safetensors"
STEERING = frozenset(
    [
        "cache_dir",
        "checkpoint_path",
        "exportable",
        "features_only",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "scriptable",
    ]
)
"""What `timm.create_model` takes beside a network's own arguments: files to read and where to fetch them."""
NAMES = ("label_names", "labels")
FETCHING = frozenset(["auto_map", "use_kernels", "use_pretrained_backbone"])
"""Settings of transformers that reach for weights or code elsewhere; `…_implementation` may name a kernel."""


def repository_parent(text: str, fetch: Fetch) -> ParentSource:
    """`text` is REPO or REPO@REVISION. Raises `ParentError` for a repository that is not an image classifier
    of timm or transformers, with an invalid configuration, or that has its weights as pickles only."""
    repository, _, revision = text.partition("@")
    try:
        parent = _parent(repository, revision or None, fetch)
        if parent.input is not None:
            InputSpec.from_dict(Fields(parent.input.to_dict(), f"The input of '{repository}'"))
    except ModhubError:
        raise
    except Exception as error:
        # Anybody's words go into timm and transformers, which raise errors of any type.
        reason = (str(error).strip().splitlines() or [""])[0][:200].rstrip(".")
        raise ParentError(
            f"Invalid model configuration in '{repository}' ({type(error).__name__}: {reason}).",
            hint="Report it to the owner, or choose another repository.",
        ) from error
    return parent


def _parent(repository: str, pinned: str | None, fetch: Fetch) -> ParentSource:
    config = _json(fetch, repository, pinned, "config.json")
    if config is None:
        raise ParentError(
            f"'{repository}' has no config.json, so it is no image classifier of timm or transformers.",
            hint="Choose a repository of the task image-classification.",
        )
    tensors = _weights(fetch, repository, pinned)
    license_name = _license(fetch, repository, pinned)
    if "architecture" in config:
        return _timm(repository, config, tensors, license_name)
    if any(str(name).endswith("ForImageClassification") for name in config.get("architectures") or ()):
        preprocessing = _json(fetch, repository, pinned, "preprocessor_config.json")
        return _transformers(repository, config, preprocessing, tensors, license_name)
    kinds = ", ".join(str(name) for name in config.get("architectures") or ["nothing known"])
    raise ParentError(
        f"'{repository}' holds {kinds}, not an image classifier of timm or transformers.",
        hint="Choose a repository of the task image-classification.",
    )


def _timm(
    repository: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], license_name: str | None
) -> ParentSource:
    # Before 2023 the keys of pretrained_cfg stood beside the architecture, the names of classes in labels.
    described = dict(config.get("pretrained_cfg") or config)
    described |= {key: config[key] for key in (*NAMES, "num_classes") if config.get(key) is not None}
    classes = int(described.get("num_classes") or 0)
    name = str(config["architecture"])
    arguments = {**(config.get("model_args") or {}), "num_classes": classes}
    if theirs := sorted(STEERING & arguments.keys()):
        raise ParentError(
            f"config.json of '{repository}' sets '{theirs[0]}', which is not a repository's to say.",
            hint="Choose another repository.",
        )
    module = timm_module(name, arguments)
    fit_weights(module, tensors, f"{WEIGHTS} of '{repository}'", name)
    labels = next((names_of(described[key], classes) for key in NAMES if described.get(key)), None)
    if labels is None and classes == IMAGENET and repository.startswith("timm/"):
        # timm's own repositories leave out the names of ImageNet's classes; anybody else's may be others.
        labels = imagenet_labels()
    return ParentSource(
        name=repository.rpartition("/")[2],
        architecture=f"timm:{name}",
        model=module.eval(),
        labels=None if labels is None else distinct_labels(labels),
        input=timm_input(described, f"'{repository}'"),
        sized=partial(timm_input, described, f"'{repository}'"),
        license=license_name or (stated if isinstance(stated := described.get("license"), str) else None),
    )


class _Logits(nn.Module):
    """transformers answer with an object; a classifier with its logits. Some take blue before red."""

    def __init__(self, model: nn.Module, *, flipped: bool) -> None:
        super().__init__()
        self.model, self.flipped = model, flipped

    def forward(self, images: Tensor) -> Tensor:
        images = images.flip(1) if self.flipped else images
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


def _transformers(
    repository: str,
    config: Mapping[str, Any],
    preprocessing: Mapping[str, Any] | None,
    tensors: Mapping[str, Tensor],
    license_name: str | None,
) -> ParentSource:
    if config.get("auto_map"):
        raise ParentError(
            f"'{repository}' needs code that comes with it, which is never run.",
            hint="Choose a repository of an architecture that transformers itself knows.",
        )
    try:
        transformers = importlib.import_module("transformers")
    except ImportError:
        purpose = f"The parent 'hf:{repository}'"
        raise MissingDependencyError("transformers", purpose=purpose, extra="transformers") from None
    if timm := _timm_inside(config):
        raise ParentError(
            f"config.json of '{repository}' has timm build '{timm}', which may read files of this machine.",
            hint="Choose a repository whose config.json names an 'architecture' of timm.",
        )
    kind = str(config.get("model_type"))
    settings = {key: value for key, value in _tame(config).items() if key != "model_type"}
    try:
        described = transformers.AutoConfig.for_model(kind, **settings)
        model = transformers.AutoModelForImageClassification.from_config(described)
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ParentError(
            f"transformers cannot build '{repository}' ({kind}): {reason}",
            hint="A newer transformers may know it: pip install --upgrade transformers",
        ) from None
    fit_weights(model, tensors, f"{WEIGHTS} of '{repository}'", kind)
    labels = [str(described.id2label[index]) for index in range(len(described.id2label))]
    flipped = preprocessing is not None and flips_channels(preprocessing, _tame(config))
    # transformers names classes of which nothing is said.
    nameless = labels == [f"LABEL_{index}" for index in range(len(labels))]
    return ParentSource(
        name=repository.rpartition("/")[2],
        architecture=f"transformers:{kind}",
        model=_Logits(model, flipped=flipped).eval(),
        labels=None if nameless else distinct_labels(labels),
        input=None if preprocessing is None else processor_input(preprocessing, _tame(config), repository),
        license=license_name,
    )


def _timm_inside(value: Any) -> str | None:
    """The type of a model that transformers leaves to timm, with arguments that name files; None: there is
    none."""
    if isinstance(value, dict):
        if str(value.get("model_type", "")).startswith("timm_"):
            return str(value["model_type"])
        if "checkpoint_path" in value:
            return "checkpoint_path"
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((name for each in inside if (name := _timm_inside(each))), None)


def _tame(value: Any) -> Any:
    """A config without what has transformers fetch other weights or code."""
    if isinstance(value, dict):
        return {
            key: _tame(item)
            for key, item in value.items()
            if not key.endswith("_implementation") and key not in FETCHING
        }
    return [_tame(item) for item in value] if isinstance(value, list) else value


def _weights(fetch: Fetch, repository: str, revision: str | None) -> dict[str, Tensor]:
    try:
        return load_weights(fetch(repository, revision, WEIGHTS))
    except NotFoundError:
        index = _json(fetch, repository, revision, f"{WEIGHTS}.index.json")
    if index is None:
        raise ParentError(
            f"'{repository}' has no {WEIGHTS}; weights as pickles can carry code and are not read.",
            hint="Ask its owner to convert it (the hub's 'safetensors' bot does it), or convert a copy.",
        )
    tensors: dict[str, Tensor] = {}
    for shard in sorted({str(name) for name in dict(index.get("weight_map") or {}).values()}):
        tensors |= load_weights(fetch(repository, revision, shard))
    return tensors


def _json(fetch: Fetch, repository: str, revision: str | None, name: str) -> dict[str, Any] | None:
    try:
        path: Path = fetch(repository, revision, name)
    except NotFoundError:
        return None
    value = parse_json(path.read_bytes(), f"{name} of '{repository}'")
    if not isinstance(value, dict):
        raise ParentError(
            f"{name} of '{repository}' is not an object.", hint="Take another repository or revision."
        )
    return value


def _license(fetch: Fetch, repository: str, revision: str | None) -> str | None:
    try:
        card = fetch(repository, revision, "README.md").read_text(encoding="utf-8", errors="replace")
    except NotFoundError:
        return None
    front = card.split("\n---", 1)[0] if card.startswith("---") else ""
    match = re.search(r"^license:\s*['\"]?([\w.+-]+)", front, re.MULTILINE)
    return match.group(1) if match else None
