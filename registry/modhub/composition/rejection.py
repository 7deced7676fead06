"""Which images are of none of the classes: those beyond a distance (`FeatureDistance`) from all of them.

Modules carry what the images of their class look like (`modhub.data.texture`), and a limit that nearly all
held-out images of their parent are within. No network is asked, so that the limit holds whatever is cut.

Modules that do not carry it, those of earlier versions, of fitted heads and of taught classes, go by the
features of the trunk. Images of a class are at a distance of about 1, and one in twenty beyond 2; how far
others are depends on the network, and is measured on noise and plain colours: nine in ten of them are beyond
the limit, within bounds. Features of a slim network are others: a line and a rest, both measured on images
(`FeatureDrift`). Where these are synthetic, half of them must be within the limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modhub.calibration.feature_distance import ClassGaussians, FeatureDistance, FeatureDrift
from modhub.composition.classifier import TrunkPass
from modhub.composition.parts import Part
from modhub.data.texture import texture_size
from modhub.manifest import InputSpec
from modhub.nets import Mask, channel_space
from modhub.pruning.statistics import read_statistics, read_texture

LIMITS = (2.3, 6.0)
"""The least and the largest limit. One in twenty of a parent's training images is beyond 2 to 3; of images
that it never saw, beyond 2 where it was trained on much, and beyond 6 where it was trained on little."""
_SYNTHETIC = 0.7
"""Share of a positive threshold that is left of it where synthetic images calibrated it."""
_EACH = 24
"""Outliers of each kind."""
_REFUSED = 0.9


def class_gaussians(head: Sequence[Part], mask: Mask) -> ClassGaussians | None:
    """Of the classes of one head, on the features that are left in `mask`; None for features that have
    positions, and where a module carries no statistics."""
    trunk = head[0].trunk
    value, space = trunk.graph.output, channel_space(trunk)
    layout = space.of(value)
    if len(trunk.graph.shapes[value]) != 1 or (layout < 0).any():
        return None
    kept = np.flatnonzero(mask[layout])
    moments = []
    for part in head:
        statistics = read_statistics(part.tensors.statistics, part.shared.correlations, trunk.graph, space)
        if statistics is None:
            return None
        moments.append(statistics.moments[value])
    return ClassGaussians.of(
        [of_class.mean[kept] for of_class in moments],
        [
            of_class.covariance[kept]
            if of_class.covariance.ndim == 1
            else of_class.covariance[np.ix_(kept, kept)]
            for of_class in moments
        ],
    )


def texture_distance(head: Sequence[Part]) -> FeatureDistance | None:
    """From what the images of one head's classes look like, 1 at the limit; None where a module does not say.

    No feature of the network goes in, so that it holds whatever is cut.
    """
    stored = [part.tensors.texture for part in head]
    present = [texture for texture in stored if texture is not None]
    if len(present) < len(stored):
        return None
    spec = head[0].module.manifest.input
    size = texture_size(spec.channels, spec.height, spec.width)
    moments = [read_texture(texture, size) for texture in present]
    gaussians = ClassGaussians.of(
        [of_class.mean for of_class in moments], [of_class.covariance for of_class in moments]
    )
    return gaussians.distance().limited(float(max(texture.limit for texture in present)))


def outliers(spec: InputSpec, seed: int = 0) -> Tensor:
    """uint8 (images, channels, height, width) of nothing: noise, even and Gaussian, fine and coarse, spots of
    black and white, and plain colours."""
    draw = torch.Generator().manual_seed(seed)
    shape = spec.channels, spec.height, spec.width
    noise = [
        256 * torch.rand(_EACH, *shape, generator=draw),
        128 + 50 * torch.randn(_EACH, *shape, generator=draw),
        255.0 * (torch.rand(_EACH, *shape, generator=draw) > 0.5),
    ]
    coarse = [
        F.interpolate(256 * torch.rand(_EACH, spec.channels, side, side, generator=draw), shape[1:])
        for side in (2, 4)
    ]
    plain = torch.linspace(0, 255, _EACH)[:, None, None, None].expand(_EACH, *shape)
    return torch.cat([*noise, *coarse, plain]).clamp(0, 255).byte()


def follow_drift(
    slim: TrunkPass,
    unpruned: TrunkPass,
    images: Iterable[tuple[Tensor, float]],
    kept: Tensor,
    *,
    synthetic: bool,
) -> None:
    """Let the Gaussians of a fitted pass be of its own features, by what these are on `images`: batches of
    normalised ones, and the weight of each of their images. `kept` are the indices of the unpruned features
    that are left. Without images nothing is known of its features."""
    features, weights = [], []
    with torch.inference_mode():
        for batch, weight in images:
            features.append((unpruned.trunk(batch)[:, kept], slim.trunk(batch)))
            weights.append(torch.full((len(batch),), weight))
    if not features or not any(slim.gaussians):
        slim.gaussians = ()
        return
    before, after = (torch.cat(batches) for batches in zip(*features, strict=True))
    drift = FeatureDrift.measured(before, after, torch.cat(weights))
    slim.gaussians = [None if of_head is None else of_head.drifted(drift) for of_head in slim.gaussians]
    slim.synthetic_features = after if synthetic else None


def lower_thresholds(trunk_pass: TrunkPass) -> None:
    """Make room for real images of a pass that was calibrated on synthetic ones, whose margins are larger; of
    heads whose texture keeps strangers out."""
    for head in trunk_pass.heads:
        if head.texture is None:
            continue
        mean, deviation = head.field("margin_mean"), head.field("margin_std")
        threshold = mean + head.field("threshold") * deviation
        lowered = threshold.minimum(_SYNTHETIC * threshold)
        head.field("threshold").copy_((lowered - mean) / deviation)


def limit_distances(trunk_pass: TrunkPass, seed: int) -> None:
    """Give each head the distance from its classes, in units of its limit, where its Gaussians are known."""
    if not any(trunk_pass.gaussians):
        return
    images = outliers(trunk_pass.spec, seed)
    with torch.inference_mode():
        features = torch.cat([trunk_pass(batch) for batch in torch.split(images, _EACH)])
    for head, of_head in zip(trunk_pass.heads, trunk_pass.gaussians, strict=True):
        if of_head is None:
            continue
        distance = of_head.distance()
        limit = float(torch.quantile(distance(features), 1 - _REFUSED))
        limit = min(max(limit, LIMITS[0]), LIMITS[1])
        if trunk_pass.synthetic_features is not None:
            limit = max(limit, float(distance(trunk_pass.synthetic_features).median()))
        head.set_distance(distance.limited(limit))
