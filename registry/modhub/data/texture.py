"""What images look like, whatever they show: brightness, contrast, and edges at two scales.

The responses of a fixed bank of filters, averaged over the image, tell textures apart (Laws 1980, "Rapid
texture identification"; here the 3 × 3 cosine basis). They do not depend on a network's weights, so that what
modules record of real images holds for every network that is cut out of their trunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SCALES = 2
_COSINES = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
_FILTERS = len(_COSINES) ** 2 - 1
_LEAST = 1e-6
"""Below any step of a pixel in 0…255."""


def texture(pixels: Tensor) -> Tensor:
    """(batch, `texture_size`) of pixels in [0, 1] (batch, 1 or 3, height, width).

    For grey, or for brightness and two differences of colours: mean, standard deviation and, at the full and
    at half the resolution, the square root of the mean size of each filter's response.
    """
    if pixels.shape[1] == 3:
        red, green, blue = torch.split(pixels, 1, 1)
        pixels = torch.cat([(red + green + blue) / 3, red - green, (red + green) / 2 - blue], 1)
    channels = int(pixels.shape[1])
    mean = pixels.mean((2, 3), keepdim=True)
    numbers = [mean.flatten(1), (pixels - mean).square().mean((2, 3)).clamp(min=_LEAST**2).sqrt()]
    bank = _bank(pixels).repeat(channels, 1, 1, 1)
    for _ in range(_scales(*pixels.shape[2:])):
        responses = F.conv2d(pixels, bank, groups=channels)
        numbers.append(responses.abs().mean((2, 3)).clamp(min=_LEAST).sqrt())
        pixels = F.avg_pool2d(pixels, 2)
    return torch.cat(numbers, 1)


def texture_size(channels: int, height: int, width: int) -> int:
    """How many numbers `texture` gives of such an image."""
    return channels * (2 + _FILTERS * _scales(height, width))


def _scales(height: int, width: int) -> int:
    """At how many scales the filters fit."""
    return sum(min(height, width) >> scale >= len(_COSINES) for scale in range(_SCALES))


def _bank(like: Tensor) -> Tensor:
    """(filters, 1, 3, 3), each of length 1; the mean is none of them."""
    cosines = torch.tensor(_COSINES, dtype=like.dtype, device=like.device)
    cosines = cosines / cosines.square().sum(1, keepdim=True).sqrt()
    products = cosines[:, None, :, None] * cosines[None, :, None, :]
    return products.flatten(0, 1)[1:, None]
