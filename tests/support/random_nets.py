"""Random small networks as data, for properties that must hold of every network."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from modhub.nets import OPERATORS, Graph, Network, Node

POINTWISE = ("relu", "silu", "sigmoid", "hardswish", "gelu", "scale_shift", "clamp", "leaky_relu", "softplus")
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "gelu": {"approximate": "none"},
    "scale_shift": {"scale": 0.5, "shift": 0.25},
    "clamp": {"low": 0.1, "high": 2.0},
    "leaky_relu": {"slope": 0.1},
    "softplus": {"beta": 1.0, "threshold": 20.0},
}
STEPS = (
    "conv",
    "depthwise",
    "grouped",
    "batch_norm",
    "pointwise",
    "add",
    "concat",
    "slice",
    "channel_shuffle",
    "pad_channels",
    "squeeze",
    "neighbours",
    "split",
    "places",
    "larger",
    "norm",
    "response",
    "pool",
)


class _Builder:
    def __init__(self, seed: int) -> None:
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def graph(self) -> Graph:
        return Graph("input", (4, 6, 6), tuple(self.nodes), self.nodes[-1].name if self.nodes else "input")

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}.{op}"
        self.nodes.append(Node(name, op, inputs, {**ATTRIBUTES.get(op, {}), **attributes}))
        node = self.graph.nodes[-1]
        roles = {}
        for role, spec in self.graph.tensor_specs(node).items():
            if role == "index" or (spec.optional and role == "bias" and len(self.nodes) % 2):
                continue
            tensor = torch.randn(spec.shape, generator=self.generator) * 0.5
            self.tensors[f"{name}.{role}"] = tensor.abs() + 0.5 if role == "var" else tensor
            roles[role] = f"{name}.{role}"
        self.nodes[-1] = Node(name, op, node.inputs, node.attributes, roles)
        return name

    def conv(self, value: str, outputs: int, *, kernel: int = 3, groups: int = 1) -> str:
        inputs = self.graph.shapes[value][0]
        padding = kernel // 2
        return self.add(
            "conv2d",
            value,
            in_channels=inputs,
            out_channels=outputs,
            kernel=(kernel, kernel),
            stride=(1, 1),
            padding=(padding, padding),
            dilation=(1, 1),
            groups=groups,
        )


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Up to ten steps, each on a value made before, ending in features (feature,)."""
    build = _Builder(draw(st.integers(0, 1 << 16)))
    values = [build.conv("input", draw(st.sampled_from((4, 6, 8))))]
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=10)):
        value = draw(st.sampled_from(values))
        channels = build.graph.shapes[value][0]
        others = [each for each in values if build.graph.shapes[each] == build.graph.shapes[value]]
        even = channels % 2 == 0
        match step:
            case "conv":
                made = build.conv(value, draw(st.integers(2, 8)))
            case "depthwise":
                made = build.conv(value, channels * draw(st.integers(1, 2)), groups=channels)
            case "grouped" if even:
                made = build.conv(value, draw(st.sampled_from((2, 6))), groups=2)
            case "batch_norm":
                made = build.add("batch_norm", value, eps=1e-5)
            case "pointwise":
                made = build.add(draw(st.sampled_from(POINTWISE)), value)
            case "add":
                made = build.add("add", value, draw(st.sampled_from(others)))
            case "concat":
                made = build.add("concat", value, draw(st.sampled_from(values)), dim=0)
            case "slice":
                start = draw(st.integers(0, channels - 1))
                stop = draw(st.integers(start + 1, channels))
                step_size = draw(st.integers(1, 2))
                made = build.add("slice", value, dim=0, start=start, stop=stop, step=step_size)
            case "channel_shuffle" if even:
                made = build.add("channel_shuffle", value, groups=2)
            case "pad_channels":
                before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
                made = build.add(
                    "pad", value, before=(before, 0, 0), after=(after, 0, 0), mode="constant", value=0.0
                )
            case "squeeze":
                pooled = build.add("mean", value, dims=(1, 2), keep=True)
                gate = build.add("sigmoid", build.conv(pooled, channels, kernel=1))
                made = build.add("multiply", value, gate)
            case "neighbours":
                row = build.add(
                    "reshape", build.add("mean", value, dims=(1, 2), keep=False), shape=(1, channels)
                )
                gate = build.add("sigmoid", build.add("channel_conv1d", row, kernel=3))
                made = build.add("multiply", value, build.add("reshape", gate, shape=(channels, 1, 1)))
            case "split" if even:
                parts = build.add("reshape", value, shape=(2, channels // 2, 6, 6))
                shares = build.add("softmax", parts, dim=0)
                made = build.add("mean", build.add("multiply", parts, shares), dims=(0,), keep=False)
            case "places":
                made = build.add("multiply", value, build.add("largest", value, dims=(0,), keep=True))
            case "larger":
                made = build.add("maximum", value, draw(st.sampled_from(others)))
            case "response":
                lengths = build.add("norm", value, dims=(1, 2), keep=True)
                mean = build.add("mean", lengths, dims=(0,), keep=True)
                shifted = build.add("scale_shift", mean, scale=1.0, shift=0.5)
                made = build.add("multiply", value, build.add("divide", lengths, shifted))
            case "norm":
                last = build.add("permute", value, dims=(1, 2, 0))
                normed = build.add("layer_norm", last, shape=(channels,), count=channels, eps=1e-5)
                made = build.add("permute", normed, dims=(2, 0, 1))
            case _:
                made = build.add(
                    "max_pool2d",
                    value,
                    kernel=(3, 3),
                    stride=(1, 1),
                    padding=(1, 1),
                    dilation=(1, 1),
                    ceil=False,
                )
        values.append(made)
    size = build.graph.shapes[values[-1]]
    flat = build.add("reshape", values[-1], shape=(size[0] * size[1] * size[2],))
    if draw(st.booleans()):
        build.add("linear", flat, in_features=build.graph.shapes[flat][0], out_features=5)
    graph = build.graph
    wanted, nodes = {graph.output}, []
    for node in reversed(graph.nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
            nodes.append(node)
    kept = Graph("input", graph.input_shape, tuple(reversed(nodes)), graph.output)
    used = {name for node in nodes for name in node.tensors.values()}
    assert all(node.op in OPERATORS for node in nodes)
    return Network(kept, {name: tensor for name, tensor in build.tensors.items() if name in used})
