"""Run a network stored as data as a plain `torch.nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from modhub.nets.attributes import Attributes
from modhub.nets.branches import is_plain_sum
from modhub.nets.graph import Network, Node
from modhub.nets.kernels import KERNELS
from modhub.nets.limits import MAX_LIVE

_Step: TypeAlias = tuple[Node, Callable[..., Tensor], list[tuple[str, str]], list[str]]
"""A node, what computes it, the parameter of each of its tensors' roles, and values nobody reads after it."""

_FRESH = ("conv2d", "linear", "batch_norm", "add", "add_constant", "relu")
"""Operators whose output shares its memory with nothing that is read again."""


class Runner(nn.Module):
    """The network as a module: (batch, channel, height, width) float32 in, the output value out.

    `torch.compile`, `torch.export`, `torch.jit.trace` and the ONNX exporter accept it. It is always in
    evaluation mode: dropout is not part of a graph, batch-norm uses its stored statistics. The weights are
    parameters that do not ask for gradients; gradients flow to the input and to observed values. In inference
    mode values that nothing else reads are overwritten, which saves memory and time, and a batch that takes
    more than `MAX_LIVE` numbers at one time passes in parts.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        for name, key in _keys(network).items():
            tensor = network.tensors[name]
            if tensor.is_floating_point():
                self.register_parameter(key, nn.Parameter(_channels_last(tensor), requires_grad=False))
            else:
                self.register_buffer(key, tensor)
        self._images = any(node.op == "conv2d" for node in network.graph.nodes)
        self._steps = _steps(network)
        self._thrifty = _thrifty(network, self._steps)
        self.eval()

    def __getstate__(self) -> dict[str, Any]:
        """Without the steps, which hold functions that cannot be pickled."""
        return {name: value for name, value in vars(self).items() if name not in ("_steps", "_thrifty")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._steps = _steps(self.network)
        self._thrifty = _thrifty(self.network, self._steps)

    def forward(self, images: Tensor) -> Tensor:
        graph = self.network.graph
        # Compilers plan memory themselves, and cannot trace the question of the mode.
        thrifty = not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()
        if thrifty and len(images) > 1 and len(images) * graph.peak > MAX_LIVE:
            return torch.cat([self(part) for part in torch.split(images, max(MAX_LIVE // graph.peak, 1))])
        values = {graph.input: self._entered(images)}
        for node, run, tensors, free in self._thrifty if thrifty else self._steps:
            roles = {role: getattr(self, key) for role, key in tensors}
            values[node.name] = run(node.attributes, [values[name] for name in node.inputs], roles)
            for name in free:
                del values[name]
        return values[graph.output]

    def observe(self, images: Tensor, values: Iterable[str]) -> dict[str, Tensor]:
        """The named values of one pass, which stops after the last of them; gradients flow through them."""
        wanted = set(values)
        graph = self.network.graph
        results = {graph.input: self._entered(images)}
        missing = wanted - {graph.input}
        for node, run, tensors, free in self._steps:
            if not missing:
                break
            roles = {role: getattr(self, key) for role, key in tensors}
            results[node.name] = run(node.attributes, [results[name] for name in node.inputs], roles)
            missing.discard(node.name)
            for name in free:
                if name not in wanted:
                    del results[name]
        if missing:
            raise KeyError(f"the graph has no value '{min(missing)}'")
        return {name: results[name] for name in wanted}

    def parameter(self, name: str) -> nn.Parameter:
        """What holds the network's tensor of that name while it runs."""
        return self.get_parameter(self.key_of(name))

    def key_of(self, name: str) -> str:
        """The name of the parameter that holds the network's tensor `name`."""
        return _keys(self.network)[name]

    def _entered(self, images: Tensor) -> Tensor:
        # Convolutions on CPU are a third faster on channels-last images; the layout then stays.
        return images.contiguous(memory_format=torch.channels_last) if self._images else images


def _keys(network: Network) -> dict[str, str]:
    """Tensor name -> name of the runner's parameter or buffer."""
    return {name: f"tensor_{number}" for number, name in enumerate(sorted(network.tensors))}


def _steps(network: Network) -> list[_Step]:
    keys = _keys(network)
    return [
        (node, KERNELS[node.op], [(role, keys[name]) for role, name in node.tensors.items()], free)
        for node, free in zip(network.graph.nodes, _lifetimes(network), strict=True)
    ]


def _thrifty(network: Network, steps: list[_Step]) -> list[_Step]:
    """The same steps, but that they overwrite what they alone read."""
    graph = network.graph

    def only_reader(value: str, node: Node) -> bool:
        producer = graph.node.get(value)
        if producer is None or producer.op not in _FRESH or value == graph.output:
            return False
        alone = graph.readers[value] == (node,) and node.inputs.count(value) == 1
        return alone and graph.shapes[value] == graph.shapes[node.name]

    def overwriting(node: Node, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if node.op == "relu" and only_reader(node.inputs[0], node):
            return _relu_in_place
        if is_plain_sum(node) and only_reader(node.inputs[0], node):
            return _add_to_first
        if is_plain_sum(node) and only_reader(node.inputs[1], node):
            return _add_to_second
        return run

    return [(node, overwriting(node, run), tensors, free) for node, run, tensors, free in steps]


def _relu_in_place(attributes: Attributes, x: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    return x[0].relu_()


def _add_to_first(attributes: Attributes, x: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    return x[0].add_(x[1])


def _add_to_second(attributes: Attributes, x: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    return x[1].add_(x[0])


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _lifetimes(network: Network) -> list[list[str]]:
    """For each node the values that nobody reads after it."""
    last: dict[str, Node] = {}
    for node in network.graph.nodes:
        for name in (*node.inputs, node.name):
            last[name] = node
    last.pop(network.graph.output, None)
    free: dict[str, list[str]] = {node.name: [] for node in network.graph.nodes}
    for name, node in last.items():
        free[node.name].append(name)
    return [free[node.name] for node in network.graph.nodes]
