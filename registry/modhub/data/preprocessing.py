"""From a raw image of any size to what a trunk eats, as part of the network."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modhub.errors import DataError
from modhub.manifest import InputSpec

# ITU-R BT.601 luma, the weights Pillow and torchvision use.
_LUMA = (0.299, 0.587, 0.114)
_CHUNK = 1 << 21
"""Numbers preprocessed at a time on the CPU: they stay in its cache, and their memory is reused."""


class Preprocess(nn.Module):
    """Raw images to normalised ones as an `InputSpec` says, equal to torchvision's transforms.

    `forward` takes uint8 in 0…255 or floats in [0, 1], (batch, 1 or 3, height, width), and gives float32
    (batch, spec.channels, spec.height, spec.width). Grey becomes RGB by repeating, RGB becomes grey by luma.
    Resizing filters against aliasing. Images smaller than the crop are padded with black. The batch size may
    stay open in `torch.export` and ONNX; height and width are fixed there.
    """

    mean: Tensor
    std: Tensor
    luma: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec
        for name, numbers in (("mean", spec.mean), ("std", spec.std), ("luma", _LUMA)):
            values = torch.tensor(numbers, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Raises `DataError` for images of another shape or type."""
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        check_pixels(images, values=not traced)
        # An exported graph has an open batch size, so no loop over it. Concatenating grey images would change
        # their strides, and so the last bits of what the network gives.
        if images.device.type == "cpu" and images.shape[1] > 1 and not traced:
            size = max(_CHUNK // max(images[0].numel() if len(images) else 0, 1), 1)
            if len(images) > size:
                return torch.cat([self._normalise(chunk) for chunk in torch.split(images, size)])
        return self._normalise(images)

    def _normalise(self, images: Tensor) -> Tensor:
        spec = self.spec
        values = images.to(self.mean.dtype)
        if images.dtype == torch.uint8:
            values = values / 255
        values = self._recolour(values)
        height, width = int(values.shape[-2]), int(values.shape[-1])
        values = self._resize(values, *spec.target(height, width))
        if spec.crop:
            values = _centre_crop(values, spec.height, spec.width, floor=spec.crop_floor)
        low, high = spec.value_range
        if (low, high) != (0.0, 1.0):
            values = values * (high - low) + low
        return (values - self.mean) / self.std

    def pixels(self, normalised: Tensor) -> Tensor:
        """In [0, 1], what this gave `normalised`, in the network's size and channels."""
        low, high = self.spec.value_range
        return (normalised * self.std + self.mean - low) / (high - low)

    def _recolour(self, values: Tensor) -> Tensor:
        channels, wanted = values.shape[1], self.spec.channels
        if channels == wanted:
            return values
        if channels == 1:
            return values.expand(-1, wanted, -1, -1)
        if (channels, wanted) == (3, 1):
            return (values * self.luma).sum(1, keepdim=True)
        raise DataError(
            f"The images have {channels} channels; this network takes 1 or 3.",
            hint="Give grey or RGB images.",
        )

    def _resize(self, values: Tensor, height: int, width: int) -> Tensor:
        if values.shape[-2:] == (height, width):
            return values
        if self.spec.interpolation == "nearest":
            rows, columns = (
                _nearest(int(given), wanted, values.device)
                for given, wanted in zip(values.shape[-2:], (height, width), strict=True)
            )
            return values[:, :, rows][:, :, :, columns]
        values = F.interpolate(
            values, size=(height, width), mode=self.spec.interpolation, align_corners=False, antialias=True
        )
        # The bicubic filter overshoots; pixels do not.
        return values.clamp(0, 1) if self.spec.interpolation == "bicubic" else values


def check_pixels(images: Tensor, *, values: bool = True) -> None:
    """Raises `DataError` for what is no batch of images: uint8 or, where `values` are looked at, floats in
    [0, 1], (batch, channels, height, width)."""
    if not isinstance(images, Tensor):
        raise DataError(
            f"The images are of type {type(images).__name__}; a network takes a torch tensor.",
            hint="Convert them: torch.as_tensor(images)",
        )
    if images.ndim != 4:
        raise DataError(
            f"The images have the shape {tuple(images.shape)}; a batch is (batch, channels, height, width).",
            hint="Give a single image as a batch of one: image[None].",
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise DataError(
            f"The images are {str(images.dtype).removeprefix('torch.')}; "
            "pixels are uint8 in 0…255 or floats in [0, 1].",
            hint="Convert them: images.to(torch.uint8)",
        )
    if images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        raise DataError(
            f"The images have the shape {tuple(images.shape)}, with the channels last; "
            "a batch is (batch, channels, height, width).",
            hint="Move them: images.permute(0, 3, 1, 2)",
        )
    if values and images.is_floating_point() and images.numel():
        _check_range(images)


def _check_range(images: Tensor) -> None:
    """Some room is left for what filters overshoot by."""
    low, high = (float(value) for value in images.detach().aminmax())
    if not -0.5 <= low <= high <= 1.5:
        raise DataError(
            f"The images are floats from {low:.4g} to {high:.4g}; "
            "pixels are uint8 in 0…255 or floats in [0, 1].",
            hint="Divide those in 0…255 by 255; leave out a normalisation, which is part of the classifier.",
        )


def _nearest(given: int, wanted: int, device: torch.device) -> Tensor:
    """The (wanted,) pixels of `given` that Pillow takes: under the centres, which it finds step by step."""
    scale = given / wanted
    centres = np.cumsum([scale * 0.5, *[scale] * (wanted - 1)])
    return torch.from_numpy(np.minimum(centres.astype(np.int64), given - 1)).to(device)


def _centre_crop(values: Tensor, height: int, width: int, *, floor: bool) -> Tensor:
    # Plain numbers, also while `torch.jit.trace` looks on.
    found_height, found_width = int(values.shape[-2]), int(values.shape[-1])
    extra_height, extra_width = max(height - found_height, 0), max(width - found_width, 0)
    if extra_height or extra_width:
        left, top = extra_width // 2, extra_height // 2
        values = F.pad(values, (left, extra_width - left, top, extra_height - top))
        found_height, found_width = values.shape[-2:]
    top = InputSpec.centred(found_height, height, floor=floor)
    left = InputSpec.centred(found_width, width, floor=floor)
    return values[..., top : top + height, left : left + width]
