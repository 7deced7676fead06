"""A graph from a file is hostile until every operator, attribute, shape and tensor is checked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from modhub.errors import IntegrityError, ManifestError, SchemaVersionError
from modhub.nets import OPERATORS, Graph, Network, Node, Runner
from modhub.nets.kernels import KERNELS
from modhub.nets.rules import RULES

CONV = {
    "in_channels": 3,
    "out_channels": 4,
    "kernel": [3, 3],
    "stride": [1, 1],
    "padding": [1, 1],
    "dilation": [1, 1],
    "groups": 1,
}
PLACE: dict[str, Any] = {
    "schema_version": 1,
    "input": "input",
    "input_shape": [3, 8, 8],
    "nodes": [
        {
            "name": "conv",
            "op": "conv2d",
            "inputs": ["input"],
            "attributes": CONV,
            "tensors": {"weight": "conv.weight", "bias": "conv.bias"},
        },
        {"name": "relu", "op": "relu", "inputs": ["conv"], "attributes": {}, "tensors": {}},
    ],
    "output": "relu",
}
TENSORS = {"conv.weight": torch.ones(4, 3, 3, 3), "conv.bias": torch.ones(4)}

Change = Callable[[dict[str, Any]], None]


def attribute(name: str, value: Any) -> Change:
    return lambda place: place["nodes"][0]["attributes"].update({name: value})


def node(index: int, **fields: Any) -> Change:
    return lambda place: place["nodes"][index].update(fields)


def changed(change: Change) -> dict[str, Any]:
    place = copy.deepcopy(PLACE)
    change(place)
    return place


def test_read_and_written() -> None:
    graph = Graph.from_dict(PLACE)
    assert graph.to_dict() == PLACE
    assert graph.shapes == {"input": (3, 8, 8), "conv": (4, 8, 8), "relu": (4, 8, 8)}
    network = Network(graph, TENSORS)
    assert Runner(network)(torch.ones(1, 3, 8, 8))[0, 0, 4, 4] == 28.0


HOSTILE: dict[str, tuple[Change, str]] = {
    "an operator outside the list": (
        node(1, op="eval"),
        "The node 'relu' has the operator 'eval', which is not on the allow-list. The file may be damaged, "
        "or written by a newer modhub.",
    ),
    "a value from later": (
        node(0, inputs=["relu"]),
        "The node 'conv' (conv2d) reads 'relu', which is no earlier value.",
    ),
    "two of one name": (node(1, name="conv"), "The node 'conv' (relu) has the name of an earlier value."),
    "the input's name": (node(1, name="input"), "The node 'input' (relu) has the name of an earlier value."),
    "an output from nowhere": (
        lambda place: place.update(output="x"),
        "The graph's output 'x' is not one of its values.",
    ),
    "too many inputs": (node(1, inputs=["conv", "conv"]), "The node 'relu' (relu) reads 2 values."),
    "an attribute too many": (attribute("code", "x"), "The node 'conv' (conv2d) has no attribute 'code'."),
    "an attribute missing": (
        lambda place: place["nodes"][0].update(attributes={}),
        "The node 'conv' (conv2d) lacks the attribute 'in_channels'.",
    ),
    "text for a number": (
        attribute("groups", "1"),
        "The node 'conv' (conv2d) has an attribute 'groups' that should be an integer.",
    ),
    "true for a number": (
        attribute("groups", True),
        "The node 'conv' (conv2d) has an attribute 'groups' that should be an integer.",
    ),
    "a stride of zero": (
        attribute("stride", [0, 1]),
        "The node 'conv' (conv2d) has an attribute 'stride' that is 0; it should be 1 to 4096.",
    ),
    "three strides": (
        attribute("stride", [1, 1, 1]),
        "The node 'conv' (conv2d) has an attribute 'stride' that should have 2 items, not 3.",
    ),
    "an integer beyond every float": (
        attribute("groups", 10**400),
        "The node 'conv' (conv2d) has an attribute 'groups' that is "
        f"1{'0' * 36}…; it should be 1 to 1.67772e+07.",
    ),
    "a name for the terminal": (
        lambda place: place["nodes"][0].update(name="\x1b[2J"),
        "'name' in 'nodes[0]' in graph.json holds a control character or a lone surrogate: '\\x1b[2J'.",
    ),
    "wrong channels": (attribute("in_channels", 4), "The node 'conv' (conv2d) reads 4 channels, not 3."),
    "groups that do not divide": (
        attribute("groups", 2),
        "The node 'conv' (conv2d) has channels that 2 groups do not divide.",
    ),
    "nothing left": (
        attribute("kernel", [11, 11]),
        "The node 'conv' (conv2d) has the empty shape [4, 0, 0].",
    ),
    "a huge value": (
        attribute("padding", [4096, 4096]),
        "The node 'conv' (conv2d) has the shape [4, 8198, 8198], more than 134,217,728 numbers. "
        "If you trust its publisher and have the memory and the time, pass --allow-large.",
    ),
    "no dimension": (
        node(-1, op="mean", attributes={"dims": [0, 1, 2], "keep": False}, tensors={}),
        "The node 'relu' (mean) has no dimension but the batch, so nothing that counts channels.",
    ),
    "a huge input": (
        lambda place: place.update(input_shape=[3, 10**6, 10**6]),
        "The graph's input has the shape [3, 1000000, 1000000], more than 134,217,728 numbers. "
        "If you trust its publisher and have the memory and the time, pass --allow-large.",
    ),
    "half an input": (
        lambda place: place.update(input_shape=[3, 8.5, 8]),
        "'input_shape' in graph.json should be channels, height and width.",
    ),
    "nodes that are no list": (
        lambda place: place.update(nodes={}),
        "'nodes' in graph.json should be a list, not {}.",
    ),
    "a node that is none": (
        lambda place: place.update(nodes=[1]),
        "'nodes[0]' in graph.json should be an object, not 1.",
    ),
    "inputs that are numbers": (
        node(1, inputs=[0]),
        "'inputs[0]' in 'nodes[1]' in graph.json should be a string, not 0.",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_graph(case: str) -> None:
    change, message = HOSTILE[case]
    with pytest.raises(ManifestError) as caught:
        Graph.from_dict(changed(change))
    assert str(caught.value) == message


def test_many_nodes_are_refused_before_they_are_read() -> None:
    with pytest.raises(ManifestError, match="20,000 are allowed"):
        Graph.from_dict(changed(lambda place: place.update(nodes=[0] * 20_001)))


def test_a_newer_graph() -> None:
    with pytest.raises(SchemaVersionError):
        Graph.from_dict(changed(lambda place: place.update(schema_version=3)))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"conv.bias": torch.ones(4)},
            "The node 'conv' (conv2d) needs the tensor 'conv.weight', which is missing.",
        ),
        (
            {**TENSORS, "conv.bias": torch.ones(5)},
            "The tensor 'conv.bias' is float32 [5]; the node 'conv' (conv2d) needs float32 [4].",
        ),
        (
            {**TENSORS, "conv.bias": torch.ones(4, dtype=torch.float64)},
            "The tensor 'conv.bias' is float64 [4]; the node 'conv' (conv2d) needs float32 [4].",
        ),
        ({**TENSORS, "x": torch.ones(1)}, "No node of the graph uses the tensor 'x'."),
    ],
)
def test_tensors_must_fit(tensors: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        Network(Graph.from_dict(PLACE), tensors)
    assert str(caught.value) == message


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_stays_inside(index: int) -> None:
    select = Node("s", "select", ("input",), {"dim": 0, "count": 1}, {"index": "i"})
    graph = Graph("input", (3, 2, 2), (select,), "s")
    with pytest.raises(IntegrityError, match="points outside the 3 channels"):
        Network(graph, {"i": torch.tensor([index])})


def test_roles_are_those_of_the_operator() -> None:
    extra = Graph("input", (3, 2, 2), (Node("r", "relu", ("input",), {}, {"code": "t"}),), "r")
    with pytest.raises(IntegrityError, match=r"The node 'r' \(relu\) has no use for a 'code' tensor"):
        Network(extra, {"t": torch.ones(1)})
    missing = Graph("input", (3, 2, 2), (Node("b", "batch_norm", ("input",), {"eps": 0.0}),), "b")
    with pytest.raises(IntegrityError, match=r"The node 'b' \(batch_norm\) has no 'mean' tensor"):
        Network(missing, {})


def test_the_digest_is_of_the_content() -> None:
    network = Network(Graph.from_dict(PLACE), TENSORS)
    turned = Network(Graph.from_dict(PLACE), dict(reversed(TENSORS.items())))
    other = network.with_tensors("conv", bias=torch.zeros(4))
    assert turned.sha256 == network.sha256
    assert other.sha256 != network.sha256
    assert torch.equal(other.of(other.graph.node["conv"])["bias"], torch.zeros(4))


def test_every_operator_has_a_rule_and_a_kernel() -> None:
    assert list(KERNELS) == list(OPERATORS)
    assert {spec.rule for spec in OPERATORS.values()} <= set(RULES)
