"""Worked examples of channel spaces, and slices of which every number is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modhub.errors import CompositionError
from modhub.importing import import_module
from modhub.nets import (
    ARCHITECTURES,
    AffineMap,
    Network,
    Runner,
    channel_space,
    cost,
    fold_affine,
    mask_positions,
    sites,
    slice_network,
    split_head,
)

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """A forward over a few layers, written as a function."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def network(forward: Callable[..., Tensor], **layers: nn.Module) -> Network:
    torch.manual_seed(0)
    return import_module(Net(forward, **layers), SHAPE)


def conv(inputs: int, outputs: int, groups: int = 1, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)


CASES: dict[str, tuple[Callable[[], Network], dict[str, list[int]]]] = {
    "a residual add ties": (
        lambda: network(lambda n, x: n.b(F.relu(n.a(x))) + n.a(x), a=conv(3, 2), b=conv(2, 2)),
        {"a": [3, 4], "b": [5, 6], "a_2": [5, 6], "add": [5, 6]},
    ),
    "a padded shortcut ties in part": (
        lambda: network(
            lambda n, x: n.b(n.a(x)) + F.pad(n.a(x), (0, 0, 0, 0, 1, 1)), a=conv(3, 2), b=conv(2, 4)
        ),
        {"a": [3, 4], "b": [5, 6, 7, 8], "a_2": [6, 7], "pad": [-1, 6, 7, -1], "add": [5, 6, 7, 8]},
    ),
    "depthwise passes, with a multiplier too": (
        lambda: network(lambda n, x: n.b(n.a(x)), a=conv(3, 2), b=conv(2, 4, 2)),
        {"a": [3, 4], "b": [3, 3, 4, 4]},
    ),
    "a grouped convolution ties whole groups": (
        lambda: network(lambda n, x: n.b(n.a(x)), a=conv(3, 4), b=conv(4, 2, 2)),
        {"a": [3, 3, 4, 4], "b": [3, 4]},
    ),
    "concat and chunk": (
        lambda: network(
            lambda n, x: torch.cat([n.a(x), n.b(x)], 1).chunk(2, 1)[1], a=conv(3, 3), b=conv(3, 1)
        ),
        {"concat": [3, 4, 5, 6], "slice_2": [5, 6]},
    ),
    "a shuffle permutes": (
        lambda: network(lambda n, x: F.channel_shuffle(n.a(x), 2), a=conv(3, 4)),
        {"a": [3, 4, 5, 6], "channel_shuffle": [3, 5, 4, 6]},
    ),
    "a flatten repeats": (
        lambda: network(lambda n, x: F.max_pool2d(n.a(x), (8, 4)).flatten(1), a=conv(3, 2)),
        {"max_pool2d": [3, 4], "reshape": [3, 3, 4, 4]},
    ),
    "squeeze and excitation ties": (
        lambda: network(
            lambda n, x: n.a(x) * torch.sigmoid(n.b(n.a(x).mean((2, 3), True))),
            a=conv(3, 2),
            b=conv(2, 2, 1, 1),
        ),
        {"a": [3, 4], "mean": [5, 6], "b": [3, 4], "multiply": [3, 4]},
    ),
}


def layout(net: Network) -> dict[str, list[int]]:
    space = channel_space(net)
    return {value: space.of(value).tolist() for value in space.values}


@pytest.mark.parametrize("case", [name for name in CASES if name != "squeeze and excitation ties"])
def test_slots(case: str) -> None:
    build, wanted = CASES[case]
    found = _renumbered(layout(build()), wanted)
    assert found == wanted


def _renumbered(found: dict[str, list[int]], wanted: dict[str, list[int]]) -> dict[str, list[int]]:
    """The same partition with the numbers of `wanted`, where there is one."""
    names: dict[int, int] = {-1: -1}
    for value, slots in wanted.items():
        for slot, name in zip(found.get(value, ()), slots, strict=True):
            names.setdefault(slot, name)
    return {value: [names[slot] for slot in found[value]] for value in wanted}


def test_the_image_and_single_channels_are_kept_with_a_reason() -> None:
    net = network(
        lambda n, x: n.c(n.b(n.a(x)).mean((2, 3))), a=conv(3, 1), b=nn.GroupNorm(1, 1), c=nn.Linear(1, 4)
    )
    groups = channel_space(net).groups
    assert [(group.name, group.size, group.reason) for group in groups] == [
        ("input", 3, "is the image"),
        ("a", 1, "has one channel"),
        ("c", 4, None),
    ]
    assert channel_space(net, keep_output=True).groups[-1].reason == "holds the classes"


def test_a_group_norm_of_one_group_cannot_be_cut() -> None:
    net = network(lambda n, x: n.b(n.a(x)).mean((2, 3)), a=conv(3, 4), b=nn.GroupNorm(1, 4))
    space = channel_space(net)
    assert [group.reason for group in space.groups] == ["is the image", "has all its channels tied into one"]
    assert space.close(np.zeros(space.slots, np.bool_)).all()


def test_mixing_across_channels_is_kept_with_a_reason() -> None:
    net = network(lambda n, x: n.b(n.a(x).reshape(-1, 2, 16, 8)), a=conv(3, 4), b=conv(2, 2))
    reasons = {group.name: group.reason for group in channel_space(net).groups}
    assert reasons == {
        "input": "is the image",
        "a": "is mixed across channels by 'reshape' (reshape)",
        "reshape": "comes out of 'reshape' (reshape), which mixes channels",
        "b": None,
    }


def test_resnet20_has_three_stages_in_one_group() -> None:
    trunk, _ = split_head(import_module(ARCHITECTURES["resnet20"].build(10), (3, 32, 32)))
    space = channel_space(trunk)
    sizes = {group.name: group.size for group in space.groups}
    assert sizes["conv1"] == 64
    assert sum(sizes.values()) == space.slots == 3 + 64 + 3 * (16 + 32 + 64)
    stream = [set(space.of(f"layer{stage}.2.relu_2").tolist()) for stage in (1, 2, 3)]
    assert stream[0] < stream[1] < stream[2]


def test_masks_of_the_wrong_size_or_type() -> None:
    space = channel_space(network(lambda n, x: n.a(x), a=conv(3, 4)))
    for mask in (np.ones(6, np.bool_), np.ones(7, np.int64)):
        with pytest.raises(CompositionError, match="the network has 7 slots"):
            space.close(mask)


def test_close_keeps_something_everywhere() -> None:
    space = channel_space(CASES["concat and chunk"][0]())
    closed = space.close(np.zeros(space.slots, np.bool_))
    for value in space.values:
        assert space.kept(closed, value).any()


# -- affine maps folded into what reads them


def dependent(layer: nn.Conv2d, matrix: Tensor, offset: Tensor) -> nn.Conv2d:
    """Make the last channels of `layer` exactly matrix · first channels + offset."""
    kept = matrix.shape[1]
    with torch.no_grad():
        layer.weight[kept:] = torch.einsum("rk,kchw->rchw", matrix, layer.weight[:kept])
        layer.bias[kept:] = matrix @ layer.bias[:kept] + offset
    return layer


READERS: dict[str, tuple[Callable[[Net, Tensor], Tensor], dict[str, nn.Module]]] = {
    "a 1×1 convolution": (lambda n, x: n.b(n.a(x)), {"b": conv(5, 4, 1, 1)}),
    "a convolution without padding or bias": (
        lambda n, x: n.b(n.a(x)),
        {"b": nn.Conv2d(5, 4, 3, bias=False)},
    ),
    "a linear layer after flatten": (lambda n, x: n.b(n.a(x).flatten(1)), {"b": nn.Linear(5 * 64, 4)}),
    "a linear layer after an average": (lambda n, x: n.b(n.a(x).mean((2, 3))), {"b": nn.Linear(5, 4)}),
    "a linear layer on the last dimension": (
        lambda n, x: n.b(n.a(x).permute(0, 2, 3, 1)),
        {"b": nn.Linear(5, 4, bias=False)},
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_folded_map_that_holds_changes_nothing(reader: str) -> None:
    torch.manual_seed(1)
    forward, layers = READERS[reader]
    matrix, offset = torch.randn(2, 3), torch.randn(2)
    net = network(forward, a=dependent(conv(3, 5), matrix, offset), **layers)
    space = channel_space(net)
    mask = space.full_mask()
    mask[space.of("a")[3:]] = False
    (site,) = (site for site in sites(net) if site.consumer == "b")
    assert site.channels == ("mean" if "average" in reader else site.channels)
    sliced = slice_network(net, mask, fold={site: AffineMap(matrix, offset)}, space=space)
    images = torch.randn(2, *SHAPE)
    assert cost(sliced).flops < cost(net).flops
    assert torch.allclose(Runner(sliced)(images), Runner(net)(images), atol=1e-5)
    assert not torch.allclose(Runner(slice_network(net, mask))(images), Runner(net)(images), atol=1e-2)


def test_a_map_of_the_wrong_size() -> None:
    with pytest.raises(CompositionError) as caught:
        fold_affine(
            torch.ones(2, 5),
            None,
            np.array([True, True, True, False, False]),
            AffineMap(torch.ones(3, 2), torch.ones(3)),
        )
    assert str(caught.value) == "A map of shape [3, 2] was given for 2 removed and 3 kept channels."


def test_position_masks() -> None:
    net = network(lambda n, x: n.b(F.relu(n.a(x))), a=conv(3, 2), b=conv(2, 4))
    alive = torch.zeros(2, 8, 8, dtype=torch.bool)
    alive[:, :4] = True
    masked = mask_positions(net, {"relu": alive})
    assert [node.name for node in masked.graph.nodes] == ["a", "relu", "relu.mask", "b"]
    images = torch.randn(1, *SHAPE)
    found = Runner(masked).observe(images, ["relu", "relu.mask"])
    assert torch.equal(found["relu.mask"], found["relu"] * alive)
    space = channel_space(masked)
    mask = space.full_mask()
    mask[space.of("a")[0]] = False
    sliced = slice_network(masked, mask)
    assert sliced.graph.node["relu.mask"].attributes["shape"] == (1, 8, 8)
    with pytest.raises(CompositionError, match="has no value 'x' to mask"):
        mask_positions(net, {"x": alive})


def test_observed_values_carry_gradients() -> None:
    net = network(lambda n, x: n.b(F.relu(n.a(x))).mean((2, 3)), a=conv(3, 2), b=conv(2, 4))
    images = torch.randn(2, *SHAPE, requires_grad=True)
    found = Runner(net).observe(images, ["relu", net.graph.output])
    (gradient,) = torch.autograd.grad(found[net.graph.output].sum(), found["relu"])
    assert gradient.shape == (2, 2, 8, 8)
