"""One small member of each family of convolutional classifiers, and what every network must survive."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor, nn
from torchvision import models
from torchvision.models import efficientnet, inception, mobilenetv3, regnet, squeezenet
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import VGG, make_layers

from modhub.nets import ChannelSpace, Graph, Mask, Network, Runner, mask_network, slice_network

CLASSES = 5


class Ending(nn.Module):
    """Features, average, linear."""

    def __init__(self, features: nn.Module, channels: int) -> None:
        super().__init__()
        self.features = features
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.features(x).mean((2, 3)))
        return out


def alexnet() -> nn.Module:
    with torch.device("meta"):  # its own hidden layers have 50 million weights
        net = models.AlexNet(CLASSES)
    net.features.to_empty(device="cpu")
    for parameter in net.features.parameters():
        nn.init.zeros_(parameter)
    net.classifier[1], net.classifier[4] = nn.Linear(256 * 36, 16), nn.Linear(16, 12)
    net.classifier[6] = nn.Linear(12, CLASSES)
    return net


def vgg(batch_norm: bool) -> nn.Module:
    features = make_layers([8, "M", 16, "M"], batch_norm)
    with torch.device("meta"):
        net = VGG(features, CLASSES, init_weights=False)
    net.classifier = nn.Sequential(
        nn.Linear(16 * 49, 12), nn.ReLU(True), nn.Dropout(), nn.Linear(12, CLASSES)
    )
    return net


def resnet(block: type[BasicBlock] | type[Bottleneck], **sizes: int) -> nn.Module:
    return ResNet(block, [1, 1, 1, 1], CLASSES, **sizes)


def densenet() -> nn.Module:
    return DenseNet(4, (2, 2, 2), 8, num_classes=CLASSES)


def googlenet() -> nn.Module:
    stem = BasicConv2d(3, 8, kernel_size=3, stride=2)
    blocks = [Inception(8, 4, 3, 6, 2, 4, 3), Inception(17, 4, 3, 6, 2, 4, 3)]
    return Ending(nn.Sequential(stem, *blocks), 17)


def inception_() -> nn.Module:
    mixed = [inception.InceptionA(8, 4), inception.InceptionC(228, 4)]
    return Ending(nn.Sequential(inception.BasicConv2d(3, 8, kernel_size=3, stride=2), *mixed), 768)


def squeezenet_() -> nn.Module:
    net = models.SqueezeNet("1_1", CLASSES)
    net.features = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(True), nn.MaxPool2d(3, 2, ceil_mode=True), squeezenet.Fire(8, 4, 6, 6)
    )
    net.classifier[1] = nn.Conv2d(12, CLASSES, 1)
    return net


def mobilenet_v2() -> nn.Module:
    return models.MobileNetV2(CLASSES, 0.25, [[1, 16, 1, 1], [6, 24, 2, 2]])


def mobilenet_v3() -> nn.Module:
    config = partial(mobilenetv3.InvertedResidualConfig, dilation=1, width_mult=1.0)
    blocks = [
        config(16, 3, 16, 16, True, "RE", 2),
        config(16, 3, 24, 16, True, "HS", 1),
        config(16, 5, 24, 16, False, "HS", 1),
    ]
    return models.MobileNetV3(blocks, 24, CLASSES)


def shufflenet() -> nn.Module:
    return models.ShuffleNetV2([2, 2, 2], [8, 16, 32, 64, 24], CLASSES)


def efficientnet_(fused: bool) -> nn.Module:
    block = efficientnet.FusedMBConvConfig if fused else partial(efficientnet.MBConvConfig)
    blocks = [block(1, 3, 1, 8, 8, 1), block(4, 3, 2, 8, 16, 2)]
    return models.EfficientNet(blocks, 0.2, num_classes=CLASSES, last_channel=24)


def regnet_(squeeze: float | None) -> nn.Module:
    params = regnet.BlockParams.from_init_params(4, 8, 8.0, 2.0, 4, se_ratio=squeeze)
    return models.RegNet(params, CLASSES)


def convnext() -> nn.Module:
    return ConvNeXt(
        [CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 2)], num_classes=CLASSES, layer_scale=0.5
    )


class EfficientAttention(nn.Module):
    """Wang et al. 2020, arXiv 1910.03151: a convolution over the channels' means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid()
        return x * gate.view(-1, x.shape[1], 1, 1)


class BlockAttention(nn.Module):
    """CBAM (Woo et al. 2018, arXiv 1807.06521): channels, then positions, by their means and maxima."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, channels, 1))
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        largest = self.shared(torch.amax(x, (2, 3), keepdim=True))
        x = x * torch.sigmoid(self.shared(x.mean((2, 3), keepdim=True)) + largest)
        places = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        out: Tensor = x * torch.sigmoid(self.conv(places))
        return out


class SelectiveKernel(nn.Module):
    """Li et al. 2019, arXiv 1903.06586: two paths, weighted for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=reach, dilation=reach) for reach in (1, 2)
        )
        self.fuse = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, 2 * channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        paths = torch.stack([path(x) for path in self.paths], 1)
        chosen = self.fuse(paths.sum(1).mean((2, 3), keepdim=True))
        out: Tensor = (paths * chosen.view(-1, 2, x.shape[1], 1, 1).softmax(1)).sum(1)
        return out


class InstanceAndBatchNorm(nn.Module):
    """IBN-Net (Pan et al. 2018, arXiv 1807.09441): half of the channels are normalised per image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.instance = nn.InstanceNorm2d(channels // 2, affine=True)
        self.batch = nn.BatchNorm2d(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, 1)
        return torch.cat([self.instance(one), self.batch(two)], 1)


class LargerHalf(nn.Module):
    """Max-feature-map (Wu et al. 2015, arXiv 1511.02683)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.max(*x.chunk(2, 1))


class Pyramid(nn.Module):
    """Two scales added after enlarging one (Lin et al. 2016, arXiv 1612.03144), pooled by the mean of powers
    (Radenović et al. 2017, arXiv 1711.02512)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels, 3, 2, 1)
        self.side, self.out = nn.Conv2d(channels, 8, 1), nn.Conv2d(channels, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        small = self.out(F.softplus(self.down(x)))
        x = self.side(x) + F.interpolate(small, scale_factor=2, mode="bilinear")
        return F.adaptive_avg_pool2d(x.clamp(min=1e-6).pow(3), 1).pow(1 / 3)


def between(*layers: nn.Module, channels: int = 8) -> Callable[[], nn.Module]:
    """A stem of 8 channels, `layers`, and the end."""
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
    return lambda: Ending(nn.Sequential(stem, *layers), channels)


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "alexnet": alexnet,
    "vgg": partial(vgg, False),
    "vgg_bn": partial(vgg, True),
    "resnet": partial(resnet, BasicBlock),
    "resnext": partial(resnet, Bottleneck, groups=8, width_per_group=4),
    "wide_resnet": partial(resnet, Bottleneck, width_per_group=16),
    "densenet": densenet,
    "googlenet": googlenet,
    "inception_v3": inception_,
    "squeezenet": squeezenet_,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "mnasnet": partial(models.MNASNet, 0.1, CLASSES),
    "shufflenet_v2": shufflenet,
    "efficientnet": partial(efficientnet_, False),
    "efficientnet_v2": partial(efficientnet_, True),
    "regnet_x": partial(regnet_, None),
    "regnet_y": partial(regnet_, 0.25),
    "convnext": convnext,
    "eca": between(EfficientAttention(), nn.Conv2d(8, 8, 3), nn.SELU(), EfficientAttention()),
    "cbam": between(BlockAttention(8), nn.Conv2d(8, 8, 3)),
    "sknet": between(SelectiveKernel(8), nn.Conv2d(8, 8, 3)),
    "ibn": between(InstanceAndBatchNorm(8), nn.Conv2d(8, 12, 3), nn.ReLU(), channels=12),
    "lightcnn": between(nn.Conv2d(8, 12, 3), LargerHalf(), channels=6),
    "pyramid": between(Pyramid(8)),
}


def settle(module: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """Batch-norm statistics of one random batch, so that signals neither fade nor explode."""
    torch.manual_seed(0)
    for layer in module.modules():
        layer.training = isinstance(layer, nn.BatchNorm2d)
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
            nn.init.uniform_(layer.weight, 0.7, 1.3)
            nn.init.normal_(layer.bias, 0, 0.2)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    with torch.no_grad():
        module(torch.randn(8, *shape))
    return module.eval()


def stored(network: Network) -> Network:
    """Written and read."""
    graph = Graph.from_dict(json.loads(json.dumps(network.graph.to_dict())))
    return Network(graph, load(save(dict(network.tensors))))


def random_masks(space: ChannelSpace, seed: int = 0) -> list[Mask]:
    """Three masks, each keeping another share of every channel group."""
    generator = np.random.default_rng(seed)
    return [generator.random(space.slots) < share for share in (0.25, 0.5, 0.75)]


def slice_difference(network: Network, mask: Mask, space: ChannelSpace, images: Tensor) -> float:
    """Sliced against masked dense, as a fraction of the largest number or of 1."""
    output = network.graph.output
    with torch.no_grad():
        sliced = Runner(slice_network(network, mask, space=space))(images)
        dense = Runner(mask_network(network, mask, space))(images)
    kept = torch.from_numpy(np.flatnonzero(space.kept(space.close(mask), output)))
    dense = dense.index_select(space.axis(output) + 1, kept)
    return float((dense - sliced).abs().max()) / max(1.0, float(dense.abs().max()))
