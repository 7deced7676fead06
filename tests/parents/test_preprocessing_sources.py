"""Pixels as transformers, timm and torchvision prepare them, or a refusal that names the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torchvision
import transformers
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg

from modhub.data import as_batch
from modhub.data.preprocessing import Preprocess
from modhub.errors import ParentError
from modhub.manifest import Fields, InputSpec
from modhub.parents.processors import flips_channels, processor_input
from modhub.parents.timm import timm_input
from modhub.parents.torchvision import preset_input

LEVELS = 2.5
"""Of 255: the sources round pixels between and after the two passes of a resize, modhub does not."""


def picture(width: int, height: int) -> Image.Image:
    """Coarse noise: one pixel aside is many levels away."""
    noise = np.random.default_rng(width).integers(0, 255, (height // 12, width // 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


PICTURES = [picture(500, 333), picture(211, 402)]


def levels_off(spec: InputSpec, wanted: Any, image: Image.Image) -> float:
    """The largest difference from the pixels that a source makes, in levels of 255."""
    prepared = Preprocess(spec)(as_batch([np.asarray(image)]))[0].numpy()
    other: NDArray[Any] = np.asarray(wanted, np.float32)
    assert prepared.shape == other.shape
    low, high = spec.value_range
    scale = np.array(spec.std, np.float32)[:, None, None] * 255 / (high - low)
    return float(np.abs((prepared - other) * scale).max())


MEAN = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS: dict[str, dict[str, Any]] = {
    "ConvNext, a number": {
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "size": 112,
        "crop_pct": 0.875,
    },
    "ConvNext, no fraction": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 112},
    },
    "ConvNext, 0.95": {
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "size": {"shortest_edge": 112},
        "crop_pct": 0.95,
    },
    "ConvNext, 384": {"image_processor_type": "ConvNextImageProcessorFast", "size": {"shortest_edge": 384}},
    "EfficientNet": {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": {"height": 96, "width": 112},
        "resample": 0,
        "rescale_offset": False,
        "include_top": True,
    },
    "EfficientNet, offset": {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": {"height": 96, "width": 96},
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
        "include_top": False,
        "do_center_crop": True,
        "crop_size": {"height": 80, "width": 80},
    },
    "Bit": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 120}, "crop_size": 101},
    "CLIP": {"image_processor_type": "CLIPImageProcessor", "size": 111, "crop_size": 100},
    "DeiT": {"feature_extractor_type": "DeiTFeatureExtractor", "size": 128, "crop_size": 112},
    "PoolFormer": {"image_processor_type": "PoolFormerImageProcessor", "size": 96, "crop_size": 96},
    "PoolFormer, 0.95": {
        "image_processor_type": "PoolFormerImageProcessor",
        "size": {"height": 96, "width": 96},
        "crop_pct": 0.95,
        "crop_size": {"height": 96, "width": 96},
    },
    "MobileNetV1": {"image_processor_type": "MobileNetV1ImageProcessor", "size": 128, "crop_size": 96},
    "MobileNetV2": {
        "image_processor_type": "MobileNetV2ImageProcessor",
        "do_rescale": False,
        "crop_size": 96,
    },
    "MobileViT": {"image_processor_type": "MobileViTImageProcessor", "size": 112, "crop_size": 96},
    "LeViT": {"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 96}, "crop_size": 96},
    "ViT": {"image_processor_type": "ViTImageProcessor", "size": 96, "do_normalize": False, "resample": 2},
    "ViT, three numbers": {"image_processor_type": "ViTImageProcessor", "size": [96, 80], "image_mean": 0.5},
    "no class": {"size": 112, "crop_pct": 0.8},
}


@pytest.mark.parametrize("case", PROCESSORS)
def test_processors_of_transformers(case: str, tmp_path: Path) -> None:
    config = {**MEAN, **PROCESSORS[case]}
    model = {"model_type": "resnet"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps(model))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    spec = processor_input(config, model, "a/net")
    assert InputSpec.from_dict(Fields(json.loads(json.dumps(spec.to_dict())), "input")) == spec
    assert flips_channels(config, model) == (case == "MobileViT")
    for image in PICTURES:
        wanted = processor(image, return_tensors="np")["pixel_values"][0]
        assert levels_off(spec, wanted[::-1] if flips_channels(config, model) else wanted, image) < LEVELS


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another class": (
        {"image_processor_type": "SegformerImageProcessor"},
        "the processor SegformerImageProcessor",
    ),
    "another key": (
        {"image_processor_type": "ViTImageProcessor", "sharpen": 2},
        "the setting 'sharpen' of ViTImageProcessor",
    ),
    "a key of another class": (
        {"image_processor_type": "BitImageProcessor", "crop_pct": 0.9},
        "the setting 'crop_pct' of BitImageProcessor",
    ),
    "padding": ({"image_processor_type": "PoolFormerImageProcessor", "do_pad": True}, "padding (do_pad)"),
    "a filter": (
        {"image_processor_type": "ViTImageProcessor", "resample": 1},
        "the filter 1 of Pillow (resample)",
    ),
    "no resizing": (
        {"image_processor_type": "BitImageProcessor", "do_resize": False},
        "images that are not resized (do_resize is false)",
    ),
    "any shape": (
        {"image_processor_type": "BitImageProcessor", "do_center_crop": False},
        "images of any shape (shortest_edge without do_center_crop)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused(case: str) -> None:
    config, reason = REFUSED[case]
    with pytest.raises(ParentError) as caught:
        processor_input(config, {"model_type": "resnet"}, "a/net")
    assert caught.value.message == f"The preprocessing of 'a/net' asks for {reason}, which modhub cannot do."


def distinct_configurations() -> dict[str, Mapping[str, Any]]:
    """One of timm's configurations, by name, for each way to prepare images."""
    kinds: dict[tuple[Any, ...], str] = {}
    for name in timm.list_pretrained():
        kinds.setdefault(tuple(resolve_data_config({}, get_pretrained_cfg(name).to_dict()).values()), name)
    # Larger images take long and show nothing new; benchmarks/preprocessing.py has them all.
    return {
        name: cfg
        for name in kinds.values()
        if max((cfg := get_pretrained_cfg(name).to_dict())["input_size"]) < 300
    }


def test_configurations_of_timm() -> None:
    configurations = distinct_configurations()
    assert len(configurations) > 40
    for name, config in configurations.items():
        transform = create_transform(**resolve_data_config({}, config))
        assert levels_off(timm_input(config, name), transform(PICTURES[1]), PICTURES[1]) < LEVELS, name


def test_timm_at_other_sizes() -> None:
    """The test size has its own fraction; a network of one size takes no other."""
    config = {
        "input_size": (3, 96, 96),
        "crop_pct": 0.875,
        "test_input_size": (3, 128, 128),
        "test_crop_pct": 0.95,
    }
    sizes = {96: 109, 112: 128, 128: 134}
    assert {side: timm_input(config, "net", side, side).resize for side in sizes} == sizes
    with pytest.raises(ParentError) as caught:
        timm_input({**config, "fixed_input_size": True}, "timm:net", 112, 112)
    assert str(caught.value) == "timm:net takes images of 96×96 pixels only. Leave --input-size out."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "random"}, "says interpolation 'random', which modhub cannot do."),
        ({"crop_mode": "border"}, "says crop_mode 'border', which modhub cannot do."),
        ({"crop_border_pixels": 4}, "has a key 'crop_border_pixels', which modhub does not know."),
    ],
)
def test_a_configuration_that_timm_alone_understands(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParentError) as caught:
        timm_input({"input_size": (3, 96, 96), **change}, "timm:net")
    assert caught.value.message == f"The configuration of timm:net {message}"


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b1", "mobilenet_v3_large", "convnext_base"])
def test_presets_of_torchvision(name: str) -> None:
    """Also at another size, at which the cut-off part stays the same."""
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    for image in PICTURES:
        assert levels_off(preset_input(preset), preset(image), image) < LEVELS
    spec = preset_input(preset)
    half = spec.at(spec.height // 2, spec.width // 2)
    assert isinstance(spec.resize, int)
    assert half.resize == spec.resize * half.height // spec.height
    assert (half.crop, half.interpolation) == (True, spec.interpolation)
