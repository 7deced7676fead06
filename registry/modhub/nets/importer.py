"""From any `torch.nn.Module` to a graph: `torch.export`, then one allow-listed operator per ATen operator.

What depends on weights alone (weight standardisation, layer scale reshaped) is computed here once; dropout is
gone, since the exported module is in evaluation mode, and so is a softmax or log-softmax at the end: what
stands before it are the logits. Values are named by the layer that made them: `layer1.0.conv1`, or
`layer1.0.add` for an operator in a layer's own `forward`.
"""

from __future__ import annotations

import copy
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from modhub.errors import ManifestError, NetworkImportError, ParentError, UnsupportedOperatorError
from modhub.nets.aten import IN_PLACE, READERS, Call, Emitter, NoEquivalentError
from modhub.nets.graph import Graph, Network, Node
from modhub.nets.runner import Runner
from modhub.nets.simplify import simplify

__all__ = ["import_module"]

Place: TypeAlias = str | Tensor | list["Place"] | Any
"""What an exported value became: a value's name, a constant, or a list of these (chunk, split)."""

Ending: TypeAlias = Callable[[Tensor], Tensor]
"""What a model makes of its logits (batch, labels) before it returns them."""

_CHANCES: Mapping[str, Ending] = {
    "aten.softmax.int": lambda logits: logits.softmax(1),
    "aten.log_softmax.int": lambda logits: logits.log_softmax(1),
}
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
    program = _exported(module, input_shape, name)
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
    _check_same(module, network, translation.ending, name)
    return network


def _bare(module: nn.Module) -> nn.Module:
    """What `torch.compile` and the wrappers for several processors wrap."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
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


def _check_same(module: nn.Module, network: Network, ending: Ending, name: str) -> None:
    """The data must be the model: one random image through both."""

    def runner() -> nn.Module:
        return _Ended(Runner(network), ending)

    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, *network.graph.input_shape, generator=generator)
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


class _Ended(nn.Module):
    """A network with what was taken off its end."""

    def __init__(self, runner: Runner, ending: Ending) -> None:
        super().__init__()
        self.runner, self.ending = runner, ending

    def forward(self, images: Tensor) -> Tensor:
        return self.ending(self.runner(images))


def _agree(module: nn.Module, runner: nn.Module, image: Tensor, tolerance: float) -> bool:
    """Whether the answers differ by less than `tolerance` of the largest logit (or of a hundredth)."""
    first = next(module.parameters(), image)
    with _evaluating(module), torch.no_grad():
        wanted = module(image.to(first.device)).double().cpu()
        answer = runner(image.to(next(runner.parameters(), image).dtype)).double()
    if wanted.shape != answer.shape:
        return False
    return float((wanted - answer).abs().max()) <= tolerance * (1e-2 + float(wanted.abs().max()))


def _exported(
    module: nn.Module, input_shape: tuple[int, int, int], name: str
) -> torch.export.ExportedProgram:
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    example = torch.zeros(2, *input_shape, device=device, dtype=dtype)
    try:
        with _evaluating(module), _quiet(), torch.no_grad():
            batch = torch.export.Dim("batch", min=1, max=1 << 20)
            return torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:
        if kind := re.match(r"Found <class '(?:.*\.)?(\w+)'> in output", str(error)):
            raise NetworkImportError(
                f"{name} returns a {kind[1]}; a classifier returns one tensor, the logits.",
                hint=_LOGITS_ALONE,
            ) from error
        raise NetworkImportError(_why(error, name, input_shape), hint=_HINT) from error


_LOGITS_ALONE = "Wrap the model so that it returns its logits alone."
_HINT = "The forward should be a fixed sequence of layers on one image batch (batch, channel, height, width)."


def _why(error: Exception, name: str, input_shape: tuple[int, int, int]) -> str:
    text = f"{type(error).__name__} {error}"
    if "data-dependent" in text.lower() or "DataDependent" in text:
        return f"The forward of {name} branches on the data it sees, so it is no fixed network."
    if "Constraints violated" in text or "specializ" in text.lower():
        return f"The forward of {name} works for one batch size only."
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{name} does not run on images of shape {list(input_shape)}: {first.rstrip('.')}."


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each layer is in the mode in which it was."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    """`torch.export` logs and warns about much that is no news to the caller."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


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
        self.last = _last(program)

    @property
    def ending(self) -> Ending:
        return (lambda logits: logits) if self.last is None else _CHANCES[str(self.last.target)]

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
            elif self.last is not None and node is self.last:
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
                hint=_LOGITS_ALONE,
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


def _last(program: torch.export.ExportedProgram) -> fx.Node | None:
    """The softmax over the classes that a model ends with, if it does."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    (returned,) = output.args
    node = returned[0] if len(returned) == 1 else None
    if not isinstance(node, fx.Node) or str(node.target) not in _CHANCES:
        return None
    return node if node.meta["val"].dim() == 2 and node.args[1] in (1, -1) else None


def _leaves(items: list[Any], kind: type) -> list[Any]:
    out: list[Any] = []
    for item in items:
        if isinstance(item, list | tuple):
            out.extend(_leaves(list(item), kind))
        elif isinstance(item, kind):
            out.append(item)
    return out
