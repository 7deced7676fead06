"""What an image processor of transformers does to an image, as an `InputSpec`, or a refusal.

transformers itself reads the configuration and fills in the defaults of the class; here each of its settings
is said in the manifest's terms. A setting that cannot be said, or is not known, is an error that names it.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modhub.errors import ParentError
from modhub.manifest import InputSpec

RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, which preprocessor configs carry."""
SQUEEZED_FROM = 384
"""From this size on ConvNeXT's processor cuts nothing."""

_SETTINGS = frozenset(
    (
        *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor"),
        *("do_normalize", "image_mean", "image_std", "do_convert_rgb", "do_pad", "pad_size"),
    )
)
_IRRELEVANT = frozenset(
    (
        *("image_processor_type", "feature_extractor_type", "processor_class", "_processor_class"),
        *("_valid_processor_keys", "input_data_format", "data_format", "return_tensors", "device"),
        *("disable_grouping", "default_to_square", "do_reduce_labels", "model_input_names", "num_channels"),
        *("image_seq_length", "transformers_version"),
    )
)
_PLAIN = ("Beit", "Bit", "CLIP", "DeiT", "MobileNetV1", "MobileNetV2", "Pvt", "Siglip", "ViT")
_MORE: Mapping[str, frozenset[str]] = {
    **{name: frozenset[str]() for name in _PLAIN},
    "ConvNext": frozenset(["crop_pct"]),
    "EfficientNet": frozenset(["rescale_offset", "include_top"]),
    "Levit": frozenset[str](),
    "MobileViT": frozenset(["do_flip_channel_order"]),
    "PoolFormer": frozenset(["crop_pct"]),
}
"""Processors by the name of their class, and what they take beside `_SETTINGS`."""


def processor_input(config: Mapping[str, Any], model: Mapping[str, Any], repository: str) -> InputSpec:
    """The input that `config` (preprocessor_config.json) describes for the model of `model` (config.json).

    Raises `ParentError` for a processor or a setting that is not known or cannot be stored, naming it.
    """
    processor = _processor(config, model)
    # ViTImageProcessor, ViTImageProcessorFast and ViTImageProcessorPil are one.
    kind = type(processor).__name__.partition("ImageProcessor")[0]
    if kind not in _MORE:
        raise _unlike(repository, f"the processor {type(processor).__name__}")
    understood = _SETTINGS | _IRRELEVANT | _MORE[kind]
    if unknown := [key for key, value in config.items() if key not in understood and value is not None]:
        raise _unlike(repository, f"the setting '{unknown[0]}' of {type(processor).__name__}")
    settings = {key: getattr(processor, key, None) for key in _SETTINGS | _MORE[kind]}
    if settings["do_pad"]:
        raise _unlike(repository, "padding (do_pad)")
    if not settings["do_resize"]:
        raise _unlike(repository, "images that are not resized (do_resize is false)")
    number = int(2 if settings["resample"] is None else settings["resample"])
    if number not in RESAMPLE:
        raise _unlike(repository, f"the filter {number} of Pillow (resample)")
    resize, (height, width) = _geometry(kind, settings, repository)
    mean, std, value_range = _numbers(kind, settings)
    return InputSpec(
        channels=3,
        height=height,
        width=width,
        mean=mean,
        std=std,
        value_range=value_range,
        resize=resize,
        crop=resize is not None,
        interpolation=RESAMPLE[number],
        crop_floor=resize is not None,
    )


def flips_channels(config: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    """Whether the processor gives blue, green and red, where an `InputSpec` is of red, green and blue."""
    return bool(getattr(_processor(config, model), "do_flip_channel_order", False))


def _processor(config: Mapping[str, Any], model: Mapping[str, Any]) -> Any:
    auto = importlib.import_module("transformers").AutoImageProcessor
    with tempfile.TemporaryDirectory() as folder:
        for name, value in (("preprocessor_config.json", config), ("config.json", model)):
            Path(folder, name).write_text(json.dumps(dict(value)))
        return auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _geometry(
    kind: str, settings: Mapping[str, Any], repository: str
) -> tuple[int | tuple[int, int] | None, tuple[int, int]]:
    """What to resize to before a crop (None: straight to the size), and the size (height, width)."""
    size, cut = _sides(settings["size"]), _sides(settings["crop_size"])
    wanted = cut["height"], cut["width"]
    crops = bool(settings["do_center_crop"])
    if unknown := sorted(size.keys() - {"height", "width", "shortest_edge"}):
        raise _unlike(repository, f"a size of '{unknown[0]}'")
    edge = size.get("shortest_edge")
    if kind == "ConvNext":
        if not edge or (crops and wanted != (edge, edge)):
            raise _unlike(repository, "this 'size' and 'crop_size'")
        squeezed = edge >= SQUEEZED_FROM
        return None if squeezed else int(edge / settings["crop_pct"]), (edge, edge)
    target: int | tuple[int, int] = edge or (size["height"], size["width"])
    if kind == "PoolFormer" and settings["crop_pct"] is not None:
        fraction = settings["crop_pct"]
        if isinstance(target, tuple) and target[0] != target[1]:
            target = int(target[0] / fraction), int(target[1] / fraction)
        else:
            target = int((target[0] if isinstance(target, tuple) else target) / fraction)
    elif kind == "Levit" and edge:
        target = int(256 / 224 * edge)
    if crops and None not in wanted:
        return None if target == wanted else target, wanted
    if isinstance(target, int):
        raise _unlike(repository, "images of any shape (shortest_edge without do_center_crop)")
    return None, target


def _sides(size: Any) -> dict[str, Any]:
    """A size of transformers, a dictionary or an object like one, without what is not set."""
    named = dict(size or {})
    return {"height": None, "width": None} | {key: value for key, value in named.items() if value is not None}


def _numbers(
    kind: str, settings: Mapping[str, Any]
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, float]]:
    """Mean, standard deviation and range of values."""
    high = 255 * float(settings["rescale_factor"]) if settings["do_rescale"] else 255.0
    low = 0.0
    if kind == "EfficientNet" and settings["rescale_offset"] and settings["do_rescale"]:
        low, high = -1.0, high - 1
    # MobileViT's processor takes these settings and does nothing by them.
    normalised = settings["do_normalize"] and kind != "MobileViT"
    mean = _three(settings["image_mean"] if normalised else 0)
    std = _three(settings["image_std"] if normalised else 1)
    if kind == "EfficientNet" and settings["include_top"]:
        # It divides by the standard deviation once more.
        std = tuple(
            deviation * more for deviation, more in zip(std, _three(settings["image_std"]), strict=True)
        )
    return mean, std, (low, _rounded(high))


def _rounded(high: float) -> float:
    """255 · (1 / 255) is 1."""
    return float(round(high)) if abs(high - round(high)) < 1e-9 else high


def _three(value: Any) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(float(number) for number in value)


def _unlike(repository: str, what: str) -> ParentError:
    return ParentError(
        f"The preprocessing of '{repository}' asks for {what}, which modhub cannot do.",
        hint="Choose another repository, or decompose the network as FILE.py:CALLABLE.",
    )
