"""Random small networks as data, for properties that must hold of every network."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from modhub.nets import OPERATORS, Graph, Network, Node
from modhub.nets.attributes import check_attributes
from modhub.nets.operators import Shape

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
        self.shapes: dict[str, Shape] = {"input": (4, 6, 6)}
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def graph(self) -> Graph:
        return Graph("input", (4, 6, 6), tuple(self.nodes), self.nodes[-1].name if self.nodes else "input")

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}.{op}"
        attributes = check_attributes(OPERATORS[op].attributes, {**ATTRIBUTES.get(op, {}), **attributes})
        shapes = [self.shapes[each] for each in inputs]
        self.shapes[name] = OPERATORS[op].shape(attributes, shapes)
        roles = {}
        for role, spec in OPERATORS[op].tensors(attributes, shapes).items():
            if role == "index" or (spec.optional and role == "bias" and len(self.nodes) % 2 == 0):
                continue
            tensor = torch.randn(spec.shape, generator=self.generator) * 0.5
            self.tensors[f"{name}.{role}"] = tensor.abs() + 0.5 if role == "var" else tensor
            roles[role] = f"{name}.{role}"
        self.nodes.append(Node(name, op, inputs, attributes, roles))
        return name

    def conv(self, value: str, outputs: int, *, kernel: int = 3, groups: int = 1) -> str:
        inputs = self.shapes[value][0]
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

    def linear(self, value: str, outputs: int) -> str:
        inputs = self.shapes[value][-1]
        return self.add("linear", value, in_features=inputs, out_features=outputs)

    def normed(self, value: str) -> str:
        width = self.shapes[value][-1]
        return self.add("layer_norm", value, shape=(width,), count=width, eps=1e-5)

    def turned(self, value: str, *dims: int) -> str:
        return self.add("permute", value, dims=dims)

    def rolled(self, value: str, shift: int) -> str:
        """Along the first dimension."""
        count = self.shapes[value][0]
        name = self.add("select", value, dim=0, count=count)
        node = self.nodes[-1]
        self.nodes[-1] = Node(name, node.op, node.inputs, node.attributes, {"index": f"{name}.index"})
        self.tensors[f"{name}.index"] = torch.arange(count).roll(shift)
        return name

    def network(self) -> Network:
        """What the last value needs."""
        graph = self.graph
        wanted, nodes = {graph.output}, []
        for node in reversed(graph.nodes):
            if node.name in wanted:
                wanted.update(node.inputs)
                nodes.append(node)
        kept = Graph("input", graph.input_shape, tuple(reversed(nodes)), graph.output)
        used = {name for node in nodes for name in node.tensors.values()}
        assert all(node.op in OPERATORS for node in nodes)
        return Network(kept, {name: tensor for name, tensor in self.tensors.items() if name in used})


BLOCKS = (
    "attention",
    "spelled out",
    "linear attention",
    "channel attention",
    "mlp",
    "mixer",
    "token",
    "positions",
    "scale",
    "rolled",
    "windows",
    "convolution",
)


@st.composite
def transformers(draw: st.DrawFn) -> Network:
    """Patches of an image as tokens, up to six blocks on a residual stream, ending in features (feature,)."""
    build = _Builder(draw(st.integers(0, 1 << 16)))
    heads, depth = draw(st.sampled_from(((1, 4), (2, 2), (2, 3))))
    width = heads * depth
    patches = build.add(
        "conv2d",
        "input",
        in_channels=4,
        out_channels=width,
        kernel=(2, 2),
        stride=(2, 2),
        padding=(0, 0),
        dilation=(1, 1),
        groups=1,
    )
    stream = build.turned(build.add("reshape", patches, shape=(width, 9)), 1, 0)
    for block in draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=6)):
        tokens = build.shapes[stream][0]
        value = build.normed(stream)
        match block:
            case "attention" | "spelled out" | "linear attention" | "channel attention":
                parts = build.add("reshape", build.linear(value, 3 * width), shape=(tokens, 3, heads, depth))
                parts = build.turned(parts, 1, 2, 0, 3)
                query, key, said = (
                    build.add(
                        "reshape",
                        build.add("slice", parts, dim=0, start=at, stop=at + 1, step=1),
                        shape=(heads, tokens, depth),
                    )
                    for at in range(3)
                )
                if block == "attention":
                    bias = build.add("constant", value, shape=(heads, tokens, tokens))
                    values = (query, key, said, bias)[: draw(st.integers(3, 4))]
                    made = build.add("attention", *values, scale=0.5)
                elif block == "spelled out":
                    scores = build.add("matmul", query, build.turned(key, 0, 2, 1))
                    made = build.add("matmul", build.add("softmax", scores, dim=2), said)
                elif block == "linear attention":
                    inner = build.add("matmul", build.turned(build.add("relu", key), 0, 2, 1), said)
                    made = build.add("matmul", build.add("relu", query), inner)
                else:
                    scores = build.add("matmul", build.turned(query, 0, 2, 1), key)
                    made = build.add("matmul", said, build.add("softmax", scores, dim=1))
                made = build.add("reshape", build.turned(made, 1, 0, 2), shape=(tokens, width))
                made = build.add("add", stream, build.linear(made, width))
            case "mlp":
                hidden = build.add("gelu", build.linear(value, draw(st.integers(2, 8))))
                made = build.add("add", stream, build.linear(hidden, width))
            case "mixer":
                across = build.add("gelu", build.linear(build.turned(value, 1, 0), 5))
                made = build.add("add", stream, build.turned(build.linear(across, tokens), 1, 0))
            case "token":
                made = build.add("concat", build.add("constant", "input", shape=(1, width)), stream, dim=0)
            case "positions":
                made = build.add("add_constant", stream, shape=(tokens, width))
            case "scale":
                scaled = build.add("multiply_constant", build.linear(value, width), shape=(1, width))
                made = build.add("add", stream, scaled)
            case "rolled":
                made = build.rolled(stream, draw(st.integers(-2, 2)))
            case "windows" if tokens % 3 == 0:
                windows = build.add("reshape", value, shape=(3, tokens // 3, width))
                mixed = build.add("attention", windows, windows, windows, scale=1.0)
                made = build.add("add", stream, build.add("reshape", mixed, shape=(tokens, width)))
            case "convolution" if tokens == 9:
                image = build.add("reshape", build.turned(value, 1, 0), shape=(width, 3, 3))
                seen = build.conv(image, width, groups=draw(st.sampled_from((1, width))))
                back = build.turned(build.add("reshape", seen, shape=(width, 9)), 1, 0)
                made = build.add("add", stream, back)
            case _:
                made = build.add("relu", stream)
        stream = made
    if draw(st.booleans()):
        build.add("mean", build.normed(stream), dims=(0,), keep=False)
    else:
        first = build.add("slice", build.normed(stream), dim=0, start=0, stop=1, step=1)
        build.add("reshape", first, shape=(width,))
    return build.network()


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Up to ten steps, each on a value made before, ending in features (feature,)."""
    build = _Builder(draw(st.integers(0, 1 << 16)))
    values = [build.conv("input", draw(st.sampled_from((4, 6, 8))))]
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=10)):
        value = draw(st.sampled_from(values))
        channels = build.shapes[value][0]
        others = [each for each in values if build.shapes[each] == build.shapes[value]]
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
    size = build.shapes[values[-1]]
    flat = build.add("reshape", values[-1], shape=(size[0] * size[1] * size[2],))
    if draw(st.booleans()):
        build.add("linear", flat, in_features=build.shapes[flat][0], out_features=5)
    return build.network()
