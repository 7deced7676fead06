"""Preprocessing equals torchvision's transforms, and survives export."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode, resize, to_pil_image, to_tensor

from modhub.data import alike, as_batch
from modhub.data.preprocessing import Preprocess
from modhub.errors import DataError, ManifestError
from modhub.manifest import InputSpec

IMAGENET = InputSpec(
    channels=3,
    height=56,
    width=56,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    resize=64,
    crop=True,
)
SMALL = InputSpec(channels=3, height=32, width=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
GREY = InputSpec(channels=1, height=28, width=28, mean=(0.1,), std=(0.3,))
MODES = {
    "nearest": InterpolationMode.NEAREST_EXACT,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}


def raw(channels: int, height: int, width: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(channels * height + width)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def reference(spec: InputSpec, images: torch.Tensor) -> torch.Tensor:
    """torchvision on floats, with pixels kept in their range as it keeps those of uint8 images."""
    values = images.float() / 255
    if images.shape[1] != spec.channels:
        change = v2.Grayscale() if spec.channels == 1 else v2.RGB()
        values = change(values)
    size = spec.resize if spec.resize is not None and spec.crop else (spec.height, spec.width)
    if spec.interpolation == "nearest":
        values = torch.stack([by_pillow(spec, image) for image in images])
    elif not (spec.resize is None and spec.crop):
        values = v2.Resize(size, interpolation=MODES[spec.interpolation], antialias=True)(values).clamp(0, 1)
    if spec.crop:
        values = v2.CenterCrop((spec.height, spec.width))(values)
    low, high = spec.value_range
    result: torch.Tensor = v2.Normalize(spec.mean, spec.std)(values * (high - low) + low)
    return result


def by_pillow(spec: InputSpec, image: torch.Tensor) -> torch.Tensor:
    picture = to_pil_image(image)
    if not (spec.resize is None and spec.crop):
        size = spec.resize if isinstance(spec.resize, int) and spec.crop else (spec.height, spec.width)
        picture = resize(picture, size, InterpolationMode.NEAREST)
    return to_tensor(picture)


@pytest.mark.parametrize("interpolation", list(MODES))
@pytest.mark.parametrize("size", [(56, 56), (64, 64), (80, 123), (123, 80), (40, 31), (1, 1), (300, 65)])
@pytest.mark.parametrize("spec", [IMAGENET, SMALL, dataclasses.replace(SMALL, crop=True)], ids=str)
def test_equals_torchvision(spec: InputSpec, size: tuple[int, int], interpolation: str) -> None:
    spec = dataclasses.replace(spec, interpolation=interpolation)
    images = raw(3, *size)
    torch.testing.assert_close(Preprocess(spec)(images), reference(spec, images), atol=1e-2 / 255, rtol=1e-5)


@pytest.mark.parametrize(("spec", "channels"), [(GREY, 3), (SMALL, 1), (GREY, 1)])
def test_grey_and_colour(spec: InputSpec, channels: int) -> None:
    images = raw(channels, 28, 28)
    # torchvision rounds the luma weights to four digits.
    torch.testing.assert_close(Preprocess(spec)(images), reference(spec, images), atol=2e-3, rtol=0)


def test_value_range() -> None:
    spec = dataclasses.replace(SMALL, value_range=(0.0, 255.0), mean=(0.0,) * 3, std=(1.0,) * 3)
    images = raw(3, 32, 32)
    torch.testing.assert_close(Preprocess(spec)(images), images.float(), atol=1e-4, rtol=0)


def test_bytes_and_fractions_are_the_same_image() -> None:
    images = raw(3, 40, 50)
    torch.testing.assert_close(Preprocess(IMAGENET)(images), Preprocess(IMAGENET)(images / 255))


def test_a_large_batch_gives_what_its_images_give() -> None:
    """Large batches are preprocessed in chunks, bit for bit as one by one."""
    images = raw(3, 500, 500, count=9)
    module = Preprocess(IMAGENET)
    assert torch.equal(module(images), torch.cat([module(image[None]) for image in images]))
    assert module(images[:0]).shape == (0, 3, 56, 56)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_has_the_layout_of_a_permuted_stack(count: int, channels: int) -> None:
    """Strides choose torch's kernels: another layout would change the last bits of modules."""
    images = [*raw(channels, 5, 4, count).permute(0, 2, 3, 1).numpy()]
    batch, expected = as_batch(images), torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    assert torch.equal(batch, expected)
    assert batch.stride() == expected.stride()


def test_channels_that_do_not_fit() -> None:
    with pytest.raises(DataError) as caught:
        Preprocess(GREY)(raw(2, 28, 28))
    assert (
        str(caught.value) == "The images have 2 channels; this network takes 1 or 3. Give grey or RGB images."
    )


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_images_are_grey_or_rgb(channels: int) -> None:
    numbers = (0.5,) * channels
    with pytest.raises(ManifestError) as caught:
        dataclasses.replace(GREY, channels=channels, mean=numbers, std=numbers)
    assert str(caught.value) == (
        f"The input has {channels} channels; an image is grey (1) or RGB (3). "
        "Check --input-size, --mean and --std."
    )


@pytest.mark.parametrize("change", [{"mean": (float("inf"),)}, {"std": (float("nan"),)}])
def test_numbers_that_are_not_finite(change: dict[str, tuple[float]]) -> None:
    with pytest.raises(ManifestError, match="A mean or standard deviation of the input is not a finite"):
        dataclasses.replace(GREY, **change)


@pytest.mark.parametrize("interpolation", list(MODES))
def test_export_keeps_the_batch_open(interpolation: str) -> None:
    module = Preprocess(dataclasses.replace(IMAGENET, interpolation=interpolation)).eval()
    images = raw(3, 70, 90, count=5)
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (images[:2],), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(images), module(images))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.zeros(1, 8, 8, dtype=torch.uint8),
            "The images have the shape (1, 8, 8); a batch is (batch, channels, height, width). Give a single "
            "image as a batch of one: image[None].",
        ),
        (
            torch.zeros(1, 1, 8, 8, dtype=torch.int64),
            "The images are int64; pixels are uint8 in 0…255 or floats in [0, 1]. Convert them: "
            "images.to(torch.uint8)",
        ),
    ],
)
def test_images_of_another_form_or_type(images: torch.Tensor, message: str) -> None:
    spec = InputSpec(channels=1, height=8, width=8, mean=(0.0,), std=(1.0,))
    with pytest.raises(DataError) as caught:
        Preprocess(spec)(images)
    assert str(caught.value) == message


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (8, 8, 4)])
def test_single_images_of_another_form(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError) as caught:
        list(alike([np.zeros(shape, np.uint8)]))
    assert str(caught.value).startswith(
        f"An image has the shape {shape}; it should be (height, width, 1 or 3)."
    )


def test_images_that_are_no_tensor_are_refused() -> None:
    pixels = raw(3, 4, 4).numpy()
    with pytest.raises(DataError) as caught:
        Preprocess(SMALL)(pixels)
    assert str(caught.value) == (
        "The images are of type ndarray; a network takes a torch tensor. "
        "Convert them: torch.as_tensor(images)"
    )
    assert torch.equal(Preprocess(SMALL)(torch.as_tensor(pixels)), Preprocess(SMALL)(raw(3, 4, 4)))
