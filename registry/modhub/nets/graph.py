"""A CNN as data: a list of operators with their attributes, and the tensors that they name.

Nothing in a graph is code. What is read from a file is taken as hostile: every operator is on the allow-list,
every attribute in its range, every tensor of the shape that its operator asks for, and no value larger than a
bound, all before anything is computed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from modhub.errors import IntegrityError, ManifestError
from modhub.manifest import Fields
from modhub.nets.attributes import Attributes, BadAttributeError, check_attributes
from modhub.nets.limits import MAX_LIVE, MAX_NODES, MAX_VALUE, MAX_WORK, OVERRIDE, is_large_allowed
from modhub.nets.operators import OPERATORS, Shape, ShapeMismatchError, TensorSpec
from modhub.results import Document
from modhub.text import canonical_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor


GRAPH_SCHEMA_VERSION = 2
"""A graph says the first version that has all of its operators, so that older readers read what they can."""


@dataclass(frozen=True, slots=True)
class Node(Document):
    """One operator. Its output value bears its name; `tensors` maps a role ("weight") to a tensor's name."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Attributes = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, fields: Fields) -> Node:
        return cls(
            name=fields.string("name", limit=500),
            op=fields.string("op", limit=100),
            inputs=fields.strings("inputs"),
            attributes=dict(fields.child("attributes").value),
            tensors=fields.string_map("tensors"),
        )


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can run; `input` and `output` name values.

    `input_shape` is (channels, height, width) of one image. Raises `ManifestError` when a node is not on the
    allow-list, has wrong attributes, reads what is not there yet, or does not fit its inputs' shapes.
    """

    input: str
    input_shape: tuple[int, int, int]
    nodes: tuple[Node, ...]
    output: str

    def __post_init__(self) -> None:
        if len(self.nodes) > MAX_NODES:
            raise ManifestError(f"The graph has {len(self.nodes):,} nodes; {MAX_NODES:,} are allowed.")
        object.__setattr__(self, "nodes", tuple(_checked(node) for node in self.nodes))
        if self.output not in self.shapes:
            raise ManifestError(f"The graph's output '{self.output}' is not one of its values.")

    def __getstate__(self) -> dict[str, Any]:
        """The fields without what is derived from them, so that classifiers can be copied and pickled."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Value name -> shape without the batch, the input first, then in the order of the nodes."""
        shapes = {self.input: _bounded(self.input_shape, "The graph's input")}
        for node in self.nodes:
            place = _place(node)
            if node.name in shapes:
                raise ManifestError(f"{place} has the name of an earlier value.")
            if missing := [name for name in node.inputs if name not in shapes]:
                raise ManifestError(f"{place} reads '{missing[0]}', which is no earlier value.")
            try:
                shape = OPERATORS[node.op].shape(node.attributes, [shapes[name] for name in node.inputs])
            except ShapeMismatchError as error:
                raise ManifestError(f"{place} {error}.") from None
            shapes[node.name] = _bounded(shape, place)
        self._peak(shapes)
        return MappingProxyType(shapes)

    @cached_property
    def peak(self) -> int:
        """How many numbers one image takes at one time while it passes: at most `MAX_LIVE`, unless large
        networks are allowed."""
        return self._peak(self.shapes)

    def _peak(self, shapes: Mapping[str, Shape]) -> int:
        """Memory of a pass, before there is one. Raises `ManifestError` for too much of it, or of work."""
        last = {name: number for number, node in enumerate(self.nodes) for name in (*node.inputs, node.name)}
        last |= {self.output: len(self.nodes)}
        gone: dict[int, list[str]] = {}
        for name, number in last.items():
            gone.setdefault(number, []).append(name)
        live, work, large = math.prod(self.input_shape), 0, is_large_allowed()
        peak = live
        for number, node in enumerate(self.nodes):
            read = [shapes[name] for name in node.inputs]
            spec = OPERATORS[node.op]
            live += math.prod(shapes[node.name])
            scratch = 0 if spec.scratch is None else math.prod(spec.scratch(node.attributes, read))
            peak = max(peak, live + scratch)
            if peak > MAX_LIVE and not large:
                raise ManifestError(
                    f"{_place(node)} needs {live + scratch:,} numbers at a time for one image; {MAX_LIVE:,} "
                    "are allowed.",
                    hint=OVERRIDE,
                )
            if spec.work is not None:
                work += spec.work(node.attributes, read, shapes[node.name])
            if work > MAX_WORK and not large:
                raise ManifestError(
                    f"Up to {_place(node)[0].lower()}{_place(node)[1:]} one image takes {work:,} "
                    f"multiply-adds; {MAX_WORK:,} are allowed.",
                    hint=OVERRIDE,
                )
            live -= sum(math.prod(shapes[name]) for name in gone.get(number, ()))
        return peak

    @cached_property
    def node(self) -> Mapping[str, Node]:
        """Name -> node."""
        return MappingProxyType({node.name: node for node in self.nodes})

    @cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """Value name -> the nodes that read it, in order."""
        readers: dict[str, list[Node]] = {name: [] for name in self.shapes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                readers[name].append(node)
        return MappingProxyType({name: tuple(nodes) for name, nodes in readers.items()})

    @property
    def schema_version(self) -> int:
        """The first version of graphs that has all of its operators."""
        return max((OPERATORS[node.op].since for node in self.nodes), default=1)

    @property
    def features(self) -> int:
        """How many channels the output has: what a head on this graph reads at each position."""
        shape = self.shapes[self.output]
        return shape[0] if len(shape) == 3 else shape[-1]

    def tensor_specs(self, node: Node) -> Mapping[str, TensorSpec]:
        """Role -> the shape and type that this node's tensor must have."""
        return OPERATORS[node.op].tensors(node.attributes, [self.shapes[name] for name in node.inputs])

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": self.schema_version,
            "input": self.input,
            "input_shape": list(self.input_shape),
            "nodes": [node.to_dict() for node in self.nodes],
            "output": self.output,
        }

    @classmethod
    def from_dict(cls, value: Any, place: str = "graph.json") -> Graph:
        """Raises `ManifestError` or `SchemaVersionError` naming `place`."""
        fields = Fields(value, place)
        fields.check_version(GRAPH_SCHEMA_VERSION)
        shape = fields.numbers("input_shape")
        if len(shape) != 3 or any(extent != int(extent) for extent in shape):
            raise ManifestError(f"'input_shape' in {place} should be channels, height and width.")
        if isinstance(nodes := fields.value.get("nodes"), list) and len(nodes) > MAX_NODES:
            raise ManifestError(f"{place} has {len(nodes):,} nodes; {MAX_NODES:,} are allowed.")
        graph = cls(
            input=fields.string("input", limit=500),
            input_shape=(int(shape[0]), int(shape[1]), int(shape[2])),
            nodes=tuple(Node.from_dict(child) for child in fields.children("nodes")),
            output=fields.string("output", limit=500),
        )
        version = fields.integer("schema_version")
        for node in graph.nodes:
            if OPERATORS[node.op].since > version:
                raise ManifestError(
                    f"{_place(node)} has an operator of version {OPERATORS[node.op].since}, but {place} says "
                    f"schema version {version}.",
                    hint="The file may be damaged; get it again.",
                )
        return graph


@dataclass(frozen=True)
class Network:
    """A graph and its tensors (float32, but for int64 indices and boolean masks), none missing, none more.

    Raises `IntegrityError` when a tensor is missing, too many, or not of the shape that its node asks for.
    """

    graph: Graph
    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        check_tensor_types(
            self.graph,
            {
                name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
                for name, tensor in self.tensors.items()
            },
        )
        for node in self.graph.nodes:
            for role, spec in self.graph.tensor_specs(node).items():
                if spec.dtype != "int64" or role not in node.tensors:
                    continue
                index = self.tensors[node.tensors[role]]
                if not bool(((index >= 0) & (index < spec.below)).all()):
                    raise IntegrityError(
                        f"The tensor '{node.tensors[role]}' points outside the {spec.below} channels it "
                        "selects from."
                    )

    @cached_property
    def sha256(self) -> str:
        """The content's id: the same for the same graph and tensors, wherever they are stored."""
        digest = hashlib.sha256(canonical_json(self.graph.to_dict()))
        for name in sorted(self.tensors):
            tensor = self.tensors[name].detach().cpu().contiguous()
            head = {"name": name, "dtype": str(tensor.dtype), "shape": list(tensor.shape)}
            digest.update(canonical_json(head))
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device) -> Network:
        """The same network with its tensors on `device`."""
        return Network(self.graph, {name: tensor.to(device) for name, tensor in self.tensors.items()})

    def of(self, node: Node) -> dict[str, Tensor]:
        """Role -> tensor of this node."""
        return {role: self.tensors[name] for role, name in node.tensors.items()}

    def with_tensors(self, node_name: str, **tensors: Tensor) -> Network:
        """A copy in which these roles of one node hold other numbers; a role it lacked is added."""
        node = self.graph.node[node_name]
        names = {role: f"{node_name}.{role}" for role in tensors} | dict(node.tensors)
        graph = self.graph
        if names != node.tensors:
            changed = replace(node, tensors=names)
            nodes = tuple(changed if other is node else other for other in graph.nodes)
            graph = Graph(graph.input, graph.input_shape, nodes, graph.output)
        return Network(graph, {**self.tensors, **{names[role]: tensor for role, tensor in tensors.items()}})

    def parameters(self) -> Iterator[Tensor]:
        """The tensors of floating-point numbers, each once."""
        return (tensor for tensor in self.tensors.values() if tensor.is_floating_point())


def _place(node: Node) -> str:
    return f"The node '{node.name}' ({node.op})"


def _checked(node: Node) -> Node:
    spec = OPERATORS.get(node.op)
    if spec is None:
        raise ManifestError(
            f"The node '{node.name}' has the operator '{node.op}', which is not on the allow-list.",
            hint="The file may be damaged, or written by a newer modhub.",
        )
    if len(node.inputs) != spec.inputs if spec.inputs is not None else not node.inputs:
        raise ManifestError(f"{_place(node)} reads {len(node.inputs)} values.")
    try:
        attributes = check_attributes(spec.attributes, node.attributes)
    except BadAttributeError as error:
        raise ManifestError(f"{_place(node)} {error}.") from None
    return Node(node.name, node.op, node.inputs, attributes, dict(node.tensors))


def _bounded(shape: Shape, place: str) -> Shape:
    if not shape:
        raise ManifestError(f"{place} has no dimension but the batch, so nothing that counts channels.")
    if any(extent < 1 for extent in shape):
        raise ManifestError(f"{place} has the empty shape {list(shape)}.")
    if math.prod(shape) > MAX_VALUE and not is_large_allowed():
        raise ManifestError(
            f"{place} has the shape {list(shape)}, more than {MAX_VALUE:,} numbers.", hint=OVERRIDE
        )
    return shape


def check_tensor_types(graph: Graph, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Compare the types and shapes of tensors with what the nodes of `graph` ask for.

    Raises `IntegrityError` when one is missing, too many, or not as its node asks for.
    """
    used: set[str] = set()
    for node in graph.nodes:
        used.update(node.tensors.values())
        specs = graph.tensor_specs(node)
        for role, spec in specs.items():
            name = node.tensors.get(role)
            if name is None:
                if not spec.optional:
                    raise IntegrityError(f"{_place(node)} has no '{role}' tensor.")
                continue
            if name not in tensors:
                raise IntegrityError(f"{_place(node)} needs the tensor '{name}', which is missing.")
            dtype, shape = tensors[name]
            if (dtype, shape) != (spec.dtype, spec.shape):
                raise IntegrityError(
                    f"The tensor '{name}' is {dtype} {list(shape)}; {_place(node)[0].lower()}"
                    f"{_place(node)[1:]} needs {spec.dtype} {list(spec.shape)}."
                )
        if extra := set(node.tensors) - set(specs):
            raise IntegrityError(f"{_place(node)} has no use for a '{min(extra)}' tensor.")
    if extra := set(tensors) - used:
        raise IntegrityError(f"No node of the graph uses the tensor '{min(extra)}'.")
