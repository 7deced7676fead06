"""From any `torch.nn.Module` to a graph: `torch.export`, then one allow-listed operator per ATen operator.

What depends on weights alone (weight standardisation, layer scale reshaped) is computed here once; dropout is
gone, since the exported module is in evaluation mode, and so is a softmax or log-softmax at the end, or the
sigmoid of a single logit: what stands before it are the logits. Values are named by the layer that made them:
`layer1.0.conv1`, or `layer1.0.add` for an operator in a layer's own `forward`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.optim.swa_utils import AveragedModel

from modhub.errors import ManifestError, NetworkImportError, ParentError, UnsupportedOperatorError
from modhub.nets.aten import IN_PLACE, READERS, Call, Emitter, NoEquivalentError
from modhub.nets.endings import Ended, Ending, endings_of
from modhub.nets.graph import Graph, Network, Node
from modhub.nets.runner import Runner
from modhub.nets.simplify import simplify
from modhub.nets.tracing import LOGITS_ALONE, evaluating, exported

__all__ = ["import_module"]

Place: TypeAlias = str | Tensor | list["Place"] | Any
"""What an exported value became: a value's name, a constant, or a list of these (chunk, split)."""

_WRAPPERS = ("wrap_with_autocast", "wrap_with_set_grad_enabled", "tag_activation_checkpoint")
ATTENTION = ("scaled_dot_product_attention", "multi_head_attention", "transformer_encoder")
PRODUCTS = ("aten.matmul", "aten.bmm", "aten.einsum", "aten.baddbmm")


def import_module(module: nn.Module, input_shape: tuple[int, int, int], *, name: str = "") -> Network:
    """The network of `module` for images of `input_shape` (channels, height, width), as data.

    The module is in evaluation mode for as long as this takes, and is not changed. `name` stands in messages.

    Raises `UnsupportedOperatorError` for an operator outside the allow-list, `ParentError` for weights that
    are not finite, and `NetworkImportError` for everything else that stands in the way: a forward that
    branches on its data, a transformer, an output that is not one tensor.
    """
    module = _bare(module)
    name = name or type(module).__name__
    _check_weights(module, name)
    program = exported(module, input_shape, name)
    if _attends(program):
        raise NetworkImportError(
            f"{name} is a transformer (it has attention layers); modhub takes convolutional networks only.",
            hint="Choose a convolutional network, for instance torchvision:convnext_tiny.",
        )
    translation = _Translation(module, program, input_shape)
    try:
        network = simplify(translation.network())
    except ManifestError as error:
        raise NetworkImportError(
            f"{name} cannot be data: {error.message}",
            hint=error.hint or "Try smaller images; docs/architectures.md says what can be stored.",
        ) from None
    _check_same(module, network, translation.endings.values(), name)
    return network


def _bare(module: nn.Module) -> nn.Module:
    """What `torch.compile`, weight averaging and the wrappers for several processors wrap."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def _attends(program: torch.export.ExportedProgram) -> bool:
    """Attention by name, or spelled out: a softmax beside products of values."""
    parts = [part for part in program.graph_module.modules() if isinstance(part, fx.GraphModule)]
    nodes = [node for part in parts for node in part.graph.nodes]
    targets = {str(node.target) for node in nodes if node.op == "call_function"}
    named = any(word in target for target in targets for word in ATTENTION)
    spelled = any(target.startswith(PRODUCTS) for target in targets)
    return named or (spelled and any(target.startswith("aten.softmax") for target in targets))


def _check_weights(module: nn.Module, name: str) -> None:
    for key, tensor in module.state_dict().items():
        # Quantised layers keep other things there, too.
        if not isinstance(tensor, Tensor):
            continue
        if tensor.is_meta or nn.parameter.is_lazy(tensor):
            raise ParentError(f"The weight '{key}' of {name} has no data.", hint="Load its weights first.")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise ParentError(
                f"The weight '{key}' of {name} holds {count:,} values that are not finite numbers.",
                hint="Load weights from a training run that did not diverge.",
            )


def _check_same(module: nn.Module, network: Network, endings: Iterable[Ending], name: str) -> None:
    """The data must be the model: two random images through both (`squeeze()` drops a batch of one)."""

    def runner() -> nn.Module:
        return Ended(Runner(network), endings)

    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, *network.graph.input_shape, generator=generator)
    first = next(module.parameters(), image)
    if first.dtype in (torch.float32, torch.float64):
        # Some networks amplify rounding; what is left in double precision is no rounding.
        same = _agree(module, runner(), image.to(first.dtype), 1e-4) or _agree(
            copy.deepcopy(module).double(), runner().double(), image.double(), 1e-6
        )
    else:
        # Half-precision parents are stored as float32, so their own rounding is allowed for.
        same = _agree(module, runner(), image.to(first.dtype), 3e-2)
    if not same:
        raise NetworkImportError(
            f"{name} as data answers otherwise than the model on a random image.",
            hint="A layer that changes its input in place or draws random numbers does this; rewrite it.",
        )


def _agree(module: nn.Module, runner: nn.Module, image: Tensor, tolerance: float) -> bool:
    """Whether the answers differ by less than `tolerance` of the largest logit (or of a hundredth)."""
    first = next(module.parameters(), image)
    with evaluating(module), torch.no_grad():
        wanted = module(image.to(first.device)).double().cpu()
        answer = runner(image.to(next(runner.parameters(), image).dtype)).double()
    if wanted.shape != answer.shape:
        return False
    return float((wanted - answer).abs().max()) <= tolerance * (1e-2 + float(wanted.abs().max()))


class _Translation(Emitter):
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
        self.held: list[Tensor] = []
        self.shapes: dict[str, tuple[int, ...]] = {"input": input_shape}
        self.current: fx.Node | None = None
        self.endings = endings_of(program)

    def network(self) -> Network:
        constants, graph = self._constants(), self.program.graph
        self._walk(graph, [constants.get(node.name, "input") for node in graph.find_nodes(op="placeholder")])
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
        at = next(at for at, each in enumerate(node.args) if getattr(each, "op", "") == "get_attr")
        settings, (part, *inputs) = node.args[:at], node.args[at:]
        if kind == "wrap_with_autocast" and settings[2]:
            number = str(settings[1]).removeprefix("torch.")
            raise UnsupportedOperatorError(f"autocast to {number}", self.layer(node))
        graph = getattr(node.graph.owning_module, str(part.target)).graph  # type: ignore[union-attr]
        self._walk(graph, [self._place(each) for each in inputs])
        (output,) = graph.find_nodes(op="output")
        return [self._place(each) for each in output.args[0]]

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
        if len(places) != 1 or form is not None or not isinstance(places[0], str):
            shown = f"{len(places)} values" if len(places) != 1 or form is None else f"a {form.__name__}"
            raise NetworkImportError(
                f"{type(self.module).__name__} returns {shown}; a classifier returns one tensor, the logits.",
                hint=LOGITS_ALONE,
            )
        return places[0]

    def _call(self, node: fx.Node) -> Place:
        target = str(node.target).removeprefix("aten.")
        args = [self._place(argument) for argument in node.args]
        kwargs = {key: self._place(argument) for key, argument in node.kwargs.items()}
        if target == "<built-in function getitem>":
            # A pooling gives its values and where it found them; the graph has the values alone.
            return self._part(node, args[0], args[1])
        if isinstance(node.meta.get("val"), torch.SymInt | int):
            return node.meta["val"]
        packet = target.partition(".")[0]
        if packet.startswith("_assert"):
            return None
        if not any(item in self.shapes for item in _leaves([*args, *kwargs.values()], str)):
            return self._constant(node, args, kwargs)
        reader = READERS.get(packet.rstrip("_") if packet.rstrip("_") in READERS else packet)
        if reader is None:
            raise UnsupportedOperatorError(f"aten.{packet}", self.layer(node))
        call = Call(args, kwargs, self._shape(node))
        try:
            place = reader(self, call)
        except NoEquivalentError as error:
            raise UnsupportedOperatorError(f"aten.{packet} {error}".rstrip(), self.layer(node)) from None
        if packet.endswith("_") or packet in IN_PLACE:
            self._overwrite(args[0], place)
        return place

    def _part(self, node: fx.Node, places: Place, index: int) -> Place:
        if isinstance(places, list):
            return places[index]
        if index == 0 or not node.users:
            return places
        raise UnsupportedOperatorError(f"{node.args[0]} (its second result)", self.layer(node))

    def _overwrite(self, old: Place, new: Place) -> None:
        """An in-place operator: whoever reads the old value from here on reads the new one."""
        for node, place in self.places.items():
            if isinstance(place, str) and place == old:
                self.places[node] = new

    def _constant(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Place:
        kwargs = {key: value for key, value in kwargs.items() if key != "device"}
        if _leaves([*args, *kwargs.values()], torch.SymInt) or not callable(node.target):
            raise UnsupportedOperatorError(str(node.target), self.layer(node))
        with torch.no_grad():
            result = node.target(*args, **kwargs)
        if isinstance(result, Tensor):
            self.held.append(result)  # its id names it; it must not be freed
        return result

    def _place(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return self.places[argument]
        if isinstance(argument, list | tuple):
            return [self._place(item) for item in argument]
        return argument

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        """Of one image: the exported shape without the batch, which must come first and stay free."""
        value = node.meta["val"]
        if isinstance(value, list | tuple):
            value = value[0]
        if not value.shape or isinstance(value.shape[0], int):
            raise UnsupportedOperatorError(f"{node.target} across the batch", self.layer(node))
        try:
            return tuple(int(extent) for extent in value.shape[1:])
        except Exception:
            raise UnsupportedOperatorError(f"{node.target} across the batch", self.layer(node)) from None

    def layer(self, node: fx.Node) -> str:
        """The qualified name of the layer that a node of the exported program came from."""
        stack = node.meta.get("nn_module_stack") or {}
        paths = [entry[0] for entry in stack.values()]
        path = str(paths[-1]) if paths else ""
        # A module that is called twice has its call's number appended by torch.export.
        return path.partition("@")[0]

    # -- what the readers use

    def emit(
        self,
        op: str,
        inputs: list[str],
        shape: tuple[int, ...],
        attributes: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Tensor | None] | None = None,
    ) -> str:
        if self.current is None:
            raise NetworkImportError("An operator is outside every layer.")
        name = self._unique(self._name(op))
        roles = {}
        for role, tensor in (tensors or {}).items():
            if tensor is not None:
                roles[role] = self._store(tensor, f"{name}.{role}")
        self.nodes.append(Node(name, op, tuple(inputs), attributes or {}, roles))
        self.shapes[name] = shape
        return name

    def shape(self, value: str) -> tuple[int, ...]:
        return self.shapes[value]

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
        name = self.tensor_names.setdefault(id(tensor), fallback)
        self.held.append(tensor)
        if name not in self.tensors:
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ParentError(f"The constant '{name}' of the model holds values that are not finite.")
            self.tensors[name] = tensor.contiguous()
        return name


def _leaves(items: list[Any], kind: type) -> list[Any]:
    out: list[Any] = []
    for item in items:
        if isinstance(item, list | tuple):
            out.extend(_leaves(list(item), kind))
        elif isinstance(item, kind):
            out.append(item)
    return out
