"""An exported program, operator by operator, as the nodes of a graph.

What depends on weights alone is computed here, once, for one image: positions that are interpolated, tables
of relative positions, class tokens. Values are named by the layer that made them: `layer1.0.conv1`, or
`layer1.0.add` for an operator in a layer's own `forward`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from modhub.errors import NetworkImportError, ParentError, UnsupportedOperatorError
from modhub.files import sha256_of_bytes
from modhub.importing.aten import IN_PLACE, LAZY, READERS
from modhub.importing.aten_moves import whole
from modhub.importing.endings import endings_of
from modhub.importing.tracing import LOGITS_ALONE
from modhub.importing.values import Call, Emitter, NoEquivalentError, Value
from modhub.nets.graph import Graph, Network, Node
from modhub.nets.operators import OPERATORS, Shape, ShapeMismatchError

Place: TypeAlias = Value | Tensor | list["Place"] | Any
"""What an exported value became: a value, a constant, or a list of these (chunk, split)."""

_WRAPPERS = ("wrap_with_autocast", "wrap_with_set_grad_enabled", "tag_activation_checkpoint")
_NUMBERS: tuple[type, ...] = (torch.SymInt, torch.SymFloat, torch.SymBool)
_SHARED = 1 << 10
"""Numbers of a table from which on equal ones are stored once: positions are added in many layers."""


class Translation(Emitter):
    """One pass over the exported program, in order."""

    def __init__(
        self, module: nn.Module, program: torch.export.ExportedProgram, input_shape: tuple[int, int, int]
    ) -> None:
        self.module = module
        self.program = program
        self.input_shape = input_shape
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.places: dict[fx.Node, Place] = {}
        self.names: dict[str, int] = {"input": 1}
        self.tensor_names: dict[int, str] = {}
        self.tables: dict[str, str] = {}
        self.held: list[Tensor] = []
        self.extents: dict[Any, int | None] = {}
        self.current: fx.Node | None = None
        self.endings = endings_of(program)

    def network(self) -> Network:
        constants, graph = self._constants(), self.program.graph
        self._walk(
            graph, [constants.get(node.name, self.image) for node in graph.find_nodes(op="placeholder")]
        )
        (output,) = graph.find_nodes(op="output")
        return Network(
            Graph("input", self.input_shape, tuple(self.nodes), self._output(output)), self.tensors
        )

    def _walk(self, graph: fx.Graph, inputs: list[Place]) -> None:
        """Give every node of the graph its place, the placeholders those of `inputs`."""
        waiting = iter(inputs)
        for node in graph.nodes:
            if node.op == "placeholder":
                self.places[node] = next(waiting)
            elif node in self.endings:
                self.places[node] = self._place(node.args[0])
            elif node.op == "call_function":
                self.current = node
                self.places[node] = self._part_of_its_own(node) or self._call(node)

    def _part_of_its_own(self, node: fx.Node) -> list[Place] | None:
        """What a part of the forward returns that runs in a context such as `torch.autocast`; None for any
        other node."""
        kind = str(node.target)
        if kind not in _WRAPPERS:
            return None
        at = next(at for at, argument in enumerate(node.args) if getattr(argument, "op", "") == "get_attr")
        settings, (part, *inputs) = node.args[:at], node.args[at:]
        if kind == "wrap_with_autocast" and settings[2]:
            number = str(settings[1]).removeprefix("torch.")
            raise UnsupportedOperatorError(f"autocast to {number}", self.layer(node))
        graph = getattr(node.graph.owning_module, str(part.target)).graph  # type: ignore[union-attr]
        self._walk(graph, [self._place(argument) for argument in inputs])
        (output,) = graph.find_nodes(op="output")
        return [self._place(argument) for argument in output.args[0]]

    def _constants(self) -> Mapping[str, Tensor]:
        signature = self.program.graph_signature
        stored: Mapping[str, Any] = {**self.program.state_dict, **self.program.constants}
        named = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        constants = {}
        for placeholder, key in named.items():
            tensor = stored[key].detach().cpu()
            tensor = tensor.float().clone() if tensor.is_floating_point() else tensor.clone()
            self.tensor_names[id(tensor)] = key
            constants[placeholder] = tensor
        self.held.extend(constants.values())
        return constants

    def _output(self, node: fx.Node) -> str:
        (returned,) = node.args
        places = [self.places.get(item) for item in returned]  # type: ignore[union-attr, arg-type]
        form = self.program.call_spec.out_spec.type  # None: not wrapped in a tuple, a dictionary, ...
        if len(places) != 1 or form is not None or not isinstance(places[0], Value):
            shown = f"{len(places)} values" if len(places) != 1 or form is None else f"a {form.__name__}"
            raise NetworkImportError(
                f"{type(self.module).__name__} returns {shown}; a classifier returns one tensor, the logits.",
                hint=LOGITS_ALONE,
            )
        value = whole(self, places[0])
        if not value.plain:
            raise NetworkImportError(
                f"The images are not the first dimension of what {type(self.module).__name__} returns.",
                hint="Let the model return (batch, classes).",
            )
        return value.name

    def _call(self, node: fx.Node) -> Place:
        target = str(node.target).removeprefix("aten.")
        args = [self._place(argument) for argument in node.args]
        kwargs = {key: self._place(argument) for key, argument in node.kwargs.items()}
        if target == "<built-in function getitem>":
            # A pooling gives its values and where it found them; the graph has the values alone.
            return self._part(node, args[0], args[1])
        if isinstance(node.meta.get("val"), (int, float, *_NUMBERS)):
            return self._of_one_image(node.meta["val"])
        packet = target.partition(".")[0]
        if packet.startswith("_assert"):
            return None
        if not _leaves([*args, *kwargs.values()], Value):
            return self._constant(node, args, kwargs)
        key = packet.rstrip("_") if packet.rstrip("_") in READERS else packet
        reader = READERS.get(key)
        if reader is None:
            raise UnsupportedOperatorError(f"aten.{packet}", self.layer(node))
        try:
            call = Call(args, kwargs, *self._shape(node))
            if key not in LAZY:
                call = call.on(
                    *self._whole(args), **dict(zip(kwargs, self._whole(kwargs.values()), strict=True))
                )
            place = self._checked(node, reader(self, call))
        except NoEquivalentError as error:
            raise UnsupportedOperatorError(f"aten.{packet} {error}".rstrip(), self.layer(node)) from None
        if packet.endswith("_") or packet in IN_PLACE:
            self._overwrite(args[0], place)
        return place

    def _whole(self, items: Any) -> list[Any]:
        return [
            self._whole(item)
            if isinstance(item, list)
            else whole(self, item)
            if isinstance(item, Value)
            else item
            for item in items
        ]

    def _checked(self, node: fx.Node, place: Place) -> Place:
        """The value has the exported extents, or is one that operators broadcast to them."""
        if not isinstance(place, Value):
            return place
        dims, batch = self._shape(node)
        if place.dims == dims and place.batch == batch:
            return place
        if place.rank != len(dims) or place.batch != batch or place.outer * place.inner != dims[batch]:
            raise NoEquivalentError("across the batch")
        if any(n not in (1, wanted) for n, wanted in zip(place.dims, dims, strict=True)):
            raise NoEquivalentError("of this shape")
        return replace(place, spread=(*dims[:batch], *place.merged, *dims[batch + 1 :]))

    def _part(self, node: fx.Node, places: Place, index: int) -> Place:
        if isinstance(places, list | tuple):
            return places[index]
        if index == 0 or not node.users:
            return places
        raise UnsupportedOperatorError(f"{node.args[0]} (its second result)", self.layer(node))

    def _overwrite(self, old: Place, new: Place) -> None:
        """An in-place operator: whoever reads the old value from here on reads the new one."""
        if not isinstance(old, Value) or not isinstance(new, Value):
            raise NoEquivalentError("of a constant by the image")
        for node, place in self.places.items():
            if isinstance(place, Value) and place.name == old.name:
                self.places[node] = replace(place, name=new.name)

    def _constant(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Place:
        kwargs = {key: value for key, value in kwargs.items() if key != "device"}
        if not callable(node.target):
            raise UnsupportedOperatorError(str(node.target), self.layer(node))
        with torch.no_grad():
            result = node.target(*args, **kwargs)
        self.held.extend(_leaves([result], Tensor))  # their ids name them; they must not be freed
        return result

    def _place(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return self.places[argument]
        if isinstance(argument, list | tuple):
            return [self._place(item) for item in argument]
        return argument

    def _shape(self, node: fx.Node) -> tuple[Shape, int]:
        """The exported extents of one image, and the dimension that counts images, which must stay free."""
        value = node.meta["val"]
        if isinstance(value, list | tuple):
            value = value[0]
        free = [dim for dim, extent in enumerate(value.shape) if not isinstance(extent, int)]
        if len(free) != 1:
            raise UnsupportedOperatorError(f"{node.target} across the batch", self.layer(node))
        dims = tuple(self._of_one_image(extent) for extent in value.shape)
        if any(extent is None for extent in dims):
            raise UnsupportedOperatorError(f"{node.target} across the batch", self.layer(node))
        return dims, free[0]

    def _of_one_image(self, extent: Any) -> Any:
        """A number of the program for a batch of one; None where it does not grow with the batch."""
        if not isinstance(extent, _NUMBERS):
            return extent
        expression: Any = extent.node.expr  # type: ignore[attr-defined]
        if expression not in self.extents:
            one, two, seven = (
                expression.subs(dict.fromkeys(expression.free_symbols, count)) for count in (1, 2, 7)
            )
            grows = one.is_Integer and (two, seven) == (2 * one, 7 * one)
            self.extents[expression] = int(one) if grows else None
        return self.extents[expression]

    def layer(self, node: fx.Node) -> str:
        """The qualified name of the layer that a node of the exported program came from."""
        stack = node.meta.get("nn_module_stack") or {}
        paths = [entry[0] for entry in stack.values()]
        path = str(paths[-1]) if paths else ""
        # A module that is called twice has its call's number appended by torch.export.
        return path.partition("@")[0]

    # -- what the readers use

    @property
    def image(self) -> Value:
        return Value("input", self.input_shape)

    def emit(
        self,
        op: str,
        inputs: Sequence[Value],
        attributes: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Tensor | None] | None = None,
    ) -> Value:
        if self.current is None:
            raise NetworkImportError("An operator is outside every layer.")
        try:
            shape = OPERATORS[op].shape(attributes or {}, [value.shape for value in inputs])
        except ShapeMismatchError as error:
            raise NoEquivalentError(f"that {error}") from None
        name = self._unique(self._name(op))
        roles = {}
        for role, tensor in (tensors or {}).items():
            if tensor is not None:
                roles[role] = self._store(tensor, f"{name}.{role}")
        self.nodes.append(Node(name, op, tuple(value.name for value in inputs), attributes or {}, roles))
        return replace(inputs[0], name=name, shape=shape, spread=None)

    def _name(self, op: str) -> str:
        path = self.layer(self.current) if self.current is not None else ""
        try:
            leaf = not list(self.module.get_submodule(path).children()) and path != ""
        except AttributeError:
            leaf = False
        if leaf:
            return path
        return f"{path}.{op}" if path else op

    def _unique(self, name: str) -> str:
        count = self.names.get(name, 0) + 1
        self.names[name] = count
        return name if count == 1 else self._unique(f"{name}_{count}")

    def _store(self, tensor: Tensor, fallback: str) -> str:
        if id(tensor) not in self.tensor_names:
            fallback = self._table(tensor, fallback)
        name = self.tensor_names.setdefault(id(tensor), fallback)
        self.held.append(tensor)
        if name not in self.tensors:
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ParentError(f"The constant '{name}' of the model holds values that are not finite.")
            self.tensors[name] = tensor.contiguous()
        return name

    def _table(self, tensor: Tensor, name: str) -> str:
        """The name under which an equal table is stored already, or `name`."""
        if tensor.numel() < _SHARED or sum(extent > 1 for extent in tensor.shape) < 2:
            return name
        numbers = tensor.contiguous().numpy().tobytes()
        return self.tables.setdefault(f"{tuple(tensor.shape)} {sha256_of_bytes(numbers)}", name)


def _leaves(items: list[Any], kind: type) -> list[Any]:
    out: list[Any] = []
    for item in items:
        if isinstance(item, list | tuple):
            out.extend(_leaves(list(item), kind))
        elif isinstance(item, kind):
            out.append(item)
    return out
