"""An ONNX file as a `torch.nn.Module`, which `import_module` takes like any other.

What depends on constants alone is computed once. Shapes that the file computes while it runs are found by
running it on images without numbers, of several batch sizes: what differs must grow with the batch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modhub.errors import MissingDependencyError, NetworkImportError, ParentError, UnsupportedOperatorError
from modhub.importing.importer import import_module
from modhub.importing.onnx_file import OnnxNode, OnnxProgram
from modhub.importing.onnx_operators import OPERATORS, OnnxCall, OnnxOperator
from modhub.importing.values import NoEquivalentError
from modhub.nets.graph import Network
from modhub.nets.limits import MAX_LIVE, MAX_VALUE

_PROBES = (2, 3, 5)
"""Batch sizes by which what depends on the batch is told."""
_HUGE = 1e30
"""What stands for infinity."""
_LISTED = 1 << 12
"""Decimals that are read one by one: bounds and fillings, no weights."""
_LINEAR = 16.0
"""From here on softplus is the number itself, in float32."""
_ROLES = {1: "weight", 2: "bias"}


@dataclass(frozen=True, slots=True)
class _Probed:
    """A value at each probed batch size; one of the image has no numbers, only a shape."""

    at: tuple[Tensor, ...]

    @property
    def of_image(self) -> bool:
        return self.at[0].is_meta

    @property
    def varies(self) -> bool:
        return any(tensor is not self.at[0] and not torch.equal(tensor, self.at[0]) for tensor in self.at)


class _Step(nn.Module):
    """One node that depends on the images, or on how many there are."""

    def __init__(
        self,
        node: OnnxNode,
        operator: OnnxOperator,
        inputs: Sequence[_Probed | None],
        opset: int,
        fixed: bool,
    ) -> None:
        super().__init__()
        self.node, self.operator, self.opset = node, operator, opset
        self.of_one = (
            [() if value is None else tuple(value.at[0].shape) for value in inputs] if fixed else None
        )
        self.numbers: dict[int, Any] = {}
        self.varying = frozenset(
            at for at, value in enumerate(inputs) if value is not None and not value.of_image and value.varies
        )
        self.held: dict[int, str] = {}
        for at, value in enumerate(inputs):
            if value is None or value.of_image:
                continue
            if (listed := _listed(value.at[0])) is not None:
                self.numbers[at] = (
                    _growing([probe.tolist() for probe in value.at]) if at in self.varying else listed
                )
            tensor = value.at[0]
            if tensor.is_floating_point():
                tensor = tensor.float()
                tensor = tensor.clamp(-_HUGE, _HUGE) if bool(tensor.isinf().any()) else tensor
            self.held[at] = _ROLES.get(at, f"input_{at}")
            self.register_buffer(self.held[at], tensor.contiguous())

    def forward(self, batch: Any, values: Mapping[str, Tensor]) -> Any:
        inputs = [
            getattr(self, self.held[at]) if at in self.held else values[name] if name else None
            for at, name in enumerate(self.node.inputs)
        ]
        numbers = {
            at: _at_batch(listed, batch) if at in self.varying else listed
            for at, listed in self.numbers.items()
        }
        return self.operator.run(
            OnnxCall(
                inputs=inputs,
                numbers=numbers,
                attributes=self.node.attributes,
                opset=self.opset,
                outputs=len(self.node.outputs),
                batch=batch,
                of_one=self.of_one,
                varying=self.varying,
            )
        )


class OnnxNetwork(nn.Module):
    """The network of a file; `sized` makes it one for images of a size."""

    def __init__(self, program: OnnxProgram) -> None:
        super().__init__()
        self.program = program
        self.fixed = program.input_shape[0] is not None
        if program.input_shape[0] not in (None, 1):
            raise NetworkImportError(
                f"'{program.path}' takes {program.input_shape[0]} images at a time, no more and no fewer.",
                hint="Export it with an open batch size, or for one image.",
            )
        self.steps = nn.ModuleDict()
        self.input_shape: tuple[int, int, int] | None = None

    def network(self, input_shape: tuple[int, int, int], name: str) -> Network:
        """The network as data, for images (channels, height, width); its answers are compared with those of
        ONNX Runtime.

        Raises what `import_module` raises, `UnsupportedOperatorError` naming a node, and
        `MissingDependencyError`.
        """
        self.sized(input_shape)
        network = import_module(self, input_shape, name=name)
        self._compare(input_shape)
        return network

    def forward(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != self.input_shape:
            channels, height, width = images.shape[1:]
            self.sized((int(channels), int(height), int(width)))
        values: dict[str, Tensor] = {self.program.input: images}
        for step in self.steps.values():
            assert isinstance(step, _Step)
            outputs = step(images.shape[0], values)
            outputs = outputs if isinstance(outputs, list) else [outputs]
            values.update(zip(step.node.outputs, outputs, strict=False))
        return values[self.program.output]

    def sized(self, input_shape: tuple[int, int, int]) -> None:
        """Find the steps for images of `input_shape` (channels, height, width)."""
        if input_shape == self.input_shape:
            return
        program = self.program
        if any(said not in (None, n) for said, n in zip(program.input_shape[1:], input_shape, strict=True)):
            shown = " × ".join("any" if extent is None else str(extent) for extent in program.input_shape[1:])
            raise NetworkImportError(
                f"'{program.path}' takes images of {shown}, not of {' × '.join(map(str, input_shape))}.",
                hint="Leave --input-size out, or export the network for images of that size.",
            )
        probes = (1,) if self.fixed else _PROBES
        image = tuple(torch.empty(batch, *input_shape, device="meta") for batch in probes)
        values = {name: _Probed((tensor,) * len(probes)) for name, tensor in program.constants.items()}
        values[program.input] = _Probed(image)
        steps: dict[str, _Step] = {}
        numbers = 0
        for node in _needed(_joined(program.nodes, program.constants), program.output):
            inputs = [values[name] if name else None for name in self._known(node, values)]
            operator = OPERATORS.get(node.op)
            if operator is None:
                raise UnsupportedOperatorError(node.op, node.name)
            if unknown := sorted(node.attributes.keys() - operator.attributes):
                raise UnsupportedOperatorError(f"{node.op} with '{unknown[0]}'", node.name)
            try:
                outputs = self._probed(node, operator, inputs, probes)
            except NoEquivalentError as error:
                raise UnsupportedOperatorError(f"{node.op} {error}".rstrip(), node.name) from None
            except (RuntimeError, ValueError, TypeError, IndexError, KeyError, ZeroDivisionError) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
                raise NetworkImportError(
                    f"The node '{node.name}' ({node.op}) of '{program.path}' does not run on images of "
                    f"{' × '.join(map(str, input_shape))}: {reason}.",
                    hint="Check the file in ONNX Runtime, or say another --input-size.",
                ) from None
            if any(output.of_image for output in outputs):
                steps[_unique(node.name, steps)] = _Step(node, operator, inputs, program.opset, self.fixed)
            else:
                numbers += sum(output.at[0].numel() for output in outputs)
            if numbers > MAX_LIVE:
                raise NetworkImportError(
                    f"Up to the node '{node.name}' ({node.op}), the constants of '{program.path}' are "
                    f"{numbers:,} numbers; {MAX_LIVE:,} are allowed.",
                    hint="Export a smaller network, or one for smaller images.",
                )
            values.update(zip(node.outputs, outputs, strict=False))
        if program.output not in values or not values[program.output].of_image:
            raise NetworkImportError(
                f"What '{program.path}' answers does not depend on the image.", hint="Export it again."
            )
        self.steps = nn.ModuleDict(steps)
        self.input_shape = input_shape

    def _known(self, node: OnnxNode, values: Mapping[str, Any]) -> tuple[str, ...]:
        if missing := [name for name in node.inputs if name and name not in values]:
            raise ParentError(
                f"The node '{node.name}' of '{self.program.path}' reads '{missing[0]}', which is no earlier "
                "value.",
                hint="Fetch or export the file again.",
            )
        return node.inputs

    def _probed(
        self,
        node: OnnxNode,
        operator: OnnxOperator,
        inputs: Sequence[_Probed | None],
        probes: Sequence[int],
    ) -> list[_Probed]:
        of_image = any(value is not None and value.of_image for value in inputs)
        same = not of_image and not any(value is not None and value.varies for value in inputs)
        answers = []
        for at, batch in enumerate(probes[:1] if same else probes):
            tensors = [None if value is None else value.at[at] for value in inputs]
            numbers = {
                position: listed
                for position, tensor in enumerate(tensors)
                if tensor is not None and not tensor.is_meta and (listed := _listed(tensor)) is not None
            }

            def run(
                given: Sequence[Tensor | None], numbers: Any = numbers, batch: int = batch
            ) -> list[Tensor]:
                call = OnnxCall(
                    inputs=given,
                    numbers=numbers,
                    attributes=node.attributes,
                    opset=self.program.opset,
                    outputs=len(node.outputs),
                    batch=batch if of_image else None,
                )
                out = operator.run(call)
                return list(out) if isinstance(out, list | tuple) else [out]

            empty = run([None if tensor is None else tensor.to("meta") for tensor in tensors])
            if (largest := max(tensor.numel() for tensor in empty) // batch) > MAX_VALUE:
                raise NoEquivalentError(f"that makes {largest:,} numbers of one image")
            # An image has no numbers; a shape that is read off it has.
            answers.append(empty if of_image else run(tensors))
        if same:
            return [_Probed((answer,) * len(probes)) for answer in answers[0]]
        outputs = [_Probed(answer) for answer in zip(*answers, strict=True)]
        if of_image or all(len({tuple(tensor.shape) for tensor in out.at}) == 1 for out in outputs):
            return outputs
        # A constant for every image of the batch.
        return [_Probed(tuple(tensor.to("meta") for tensor in out.at)) for out in outputs]

    def _compare(self, input_shape: tuple[int, int, int]) -> None:
        """Two random images, by ONNX Runtime and here: one by one where the file takes one at a time."""
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependencyError(
                "onnxruntime", purpose=f"The parent 'onnx:{self.program.path}'", extra="export"
            ) from None
        number = self.program.number
        if number == "BFLOAT16":
            return
        images = torch.rand(2, *input_shape, generator=torch.Generator().manual_seed(0))
        if number == "UINT8":
            images = (images * 255).round()
        typed: Any = {"FLOAT16": images.half(), "DOUBLE": images.double(), "UINT8": images.byte()}.get(
            number, images
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        parts = typed.split(1) if self.fixed else [typed]
        try:
            session = onnxruntime.InferenceSession(
                str(self.program.path), options, providers=["CPUExecutionProvider"]
            )
            answers = [session.run(None, {self.program.input: part.numpy()})[0] for part in parts]
        # ONNX Runtime's own exceptions derive from nothing in common.
        except Exception as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")[:200]
            raise ParentError(
                f"ONNX Runtime does not run '{self.program.path}': {reason}.", hint="Export it again."
            ) from None
        wanted = torch.cat([torch.from_numpy(answer) for answer in answers]).double()
        with torch.no_grad():
            answer = self(images.half().float() if number == "FLOAT16" else images).double()
        tolerance = 3e-2 if number == "FLOAT16" else 1e-3
        if wanted.shape != answer.shape or not float((wanted - answer).abs().max()) <= tolerance * (
            1e-2 + float(wanted.abs().max())
        ):
            alone = ", which was exported for one image," if self.fixed else ""
            raise NetworkImportError(
                f"'{self.program.path}'{alone} answers otherwise here than in ONNX Runtime on random images.",
                hint="Export it with an open batch size." if self.fixed else "Report this file.",
            )


def _listed(tensor: Tensor) -> Any:
    if tensor.is_floating_point() and tensor.numel() > _LISTED:
        return None
    return tensor.tolist()


def _growing(values: Sequence[Any]) -> Any:
    """Numbers at the probed batch sizes as pairs: a, and b for each image."""
    if isinstance(values[0], list):
        return [_growing(list(numbers)) for numbers in zip(*values, strict=True)]
    first, second, third = values
    growth, rest = divmod(second - first, _PROBES[1] - _PROBES[0])
    if rest or third != first + growth * (_PROBES[2] - _PROBES[0]):
        raise NoEquivalentError("by numbers that do not grow with the batch")
    return (first - growth * _PROBES[0], growth)


def _at_batch(value: Any, batch: Any) -> Any:
    if isinstance(value, list):
        return [_at_batch(item, batch) for item in value]
    number, growth = value
    return number + growth * batch if growth else number


def _needed(nodes: Sequence[OnnxNode], output: str) -> list[OnnxNode]:
    """The nodes that the output comes from, in order."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted & set(node.outputs):
            wanted |= set(node.inputs)
            # Outputs that nobody reads are left off the end.
            last = max(at for at, name in enumerate(node.outputs) if name in wanted)
            outputs = node.outputs if node.op == "Split" else node.outputs[: last + 1]
            kept.append(OnnxNode(node.name, node.op, node.inputs, outputs, node.attributes))
    return kept[::-1]


def _joined(nodes: Sequence[OnnxNode], constants: Mapping[str, Tensor]) -> list[OnnxNode]:
    """`x · (1 + erf(x / √2)) / 2`, in any order of its factors, as the one operator that it is; and a
    softplus that is left out for large numbers, as a softplus; and a softmax beside what stands in for it
    where it is no number."""
    by_output = {name: node for node in nodes for name in node.outputs}
    readers: dict[str, list[OnnxNode]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)

    def number(name: str) -> float | None:
        tensor = constants.get(name)
        if tensor is None and (node := by_output.get(name)) is not None and node.op == "Constant":
            tensor = node.attributes.get("value")
        return float(tensor) if isinstance(tensor, Tensor) and tensor.numel() == 1 else None

    def sole(name: str, op: str) -> OnnxNode | None:
        following = readers.get(name, [])
        return following[0] if len(following) == 1 and following[0].op == op else None

    def partner(node: OnnxNode, name: str) -> str:
        return next((value for value in node.inputs if value != name), name)

    replaced: dict[str, OnnxNode] = {}
    for erf in (node for node in nodes if node.op == "Erf"):
        scaled = by_output.get(erf.inputs[0])
        above = sole(erf.outputs[0], "Add")
        if scaled is None or above is None or number(partner(above, erf.outputs[0])) != 1:
            continue
        left, right = (*scaled.inputs, "", "")[:2]
        if scaled.op == "Mul" and number(left) is not None:
            left, right = right, left
        if not _near(number(right), {"Div": math.sqrt(2), "Mul": math.sqrt(0.5)}.get(scaled.op, math.nan)):
            continue
        x = left
        # The factors of the products that follow: x and a half.
        factors: list[str] = []
        name, last = above.outputs[0], None
        while len(factors) < 2 and (product := sole(name, "Mul")) is not None:
            other = partner(product, name)
            inner = by_output.get(other)
            if other != x and number(other) is None and inner is not None and inner.op == "Mul":
                factors += list(inner.inputs)
            else:
                factors.append(other)
            name, last = product.outputs[0], product
        if last is not None and len(factors) == 2 and x in factors:
            half = factors[1 - factors.index(x)]
            if _near(number(half), 0.5):
                replaced[last.outputs[0]] = OnnxNode(last.name, "Gelu", (x,), last.outputs, {})
    for where in (node for node in nodes if node.op == "Where"):
        above, plain = by_output.get(where.inputs[0]), by_output.get(where.inputs[2])
        if above is not None and plain is not None and (above.op, plain.op) == ("IsNaN", "Softmax"):
            # Of rows that are masked as a whole, which no network of images has.
            if above.inputs[0] == where.inputs[2] and number(where.inputs[1]) == 0:
                replaced[where.outputs[0]] = OnnxNode(
                    where.name, "Identity", (where.inputs[2],), where.outputs, {}
                )
            continue
        if above is None or plain is None or (above.op, plain.op) != ("Greater", "Softplus"):
            continue
        threshold = number(above.inputs[1])
        same = above.inputs[0] == where.inputs[1] == plain.inputs[0]
        if same and threshold is not None and threshold >= _LINEAR:
            replaced[where.outputs[0]] = OnnxNode(where.name, "Softplus", plain.inputs, where.outputs, {})
    return [replaced.get(node.outputs[0], node) if node.outputs else node for node in nodes]


def _near(value: float | None, wanted: float) -> bool:
    return value is not None and abs(value - wanted) < 1e-3


def _unique(name: str, taken: Mapping[str, Any]) -> str:
    """A name that a layer can have, of a node's."""
    plain = re.sub(r"[^0-9A-Za-z_]+", "_", name).strip("_")[:200] or "node"
    unique, count = plain, 1
    while unique in taken:
        count += 1
        unique = f"{plain}_{count}"
    return unique
