"""Tensors of modules and trunks, typed: the one place that knows their keys in safetensors files.

docs/formats.md lists the keys. A value is an output of one of the trunk's nodes, with C channels; a slot is a
channel, or channels that must stay or go together (`modhub.nets.channels`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from modhub.errors import IntegrityError
from modhub.nets.graph import Graph
from modhub.nets.head import TAIL_STEPS

_MASK, _RELEVANCE = "mask", "relevance"
_HEAD_WEIGHT, _HEAD_BIAS, _HEAD_TAIL = "head.weight", "head.bias", "head.tail"
_PARENT_WEIGHT, _PARENT_BIAS = "parent.weight", "parent.bias"
_STATISTICS, _POSITION_MASK = "statistics.", "position_mask."
_CORRELATION = "correlation"
_TEXTURE = "texture."


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueStatistics:
    """What images of one class do to a value; None for what is not stored.

    `mean`, `deviation` and `sensitivity` float32 (C,); `correlation` float16 (C·(C−1)/2,), the upper triangle
    without the diagonal, row by row. See `modhub.pruning.statistics` for what they mean.
    """

    mean: Tensor | None = None
    deviation: Tensor | None = None
    sensitivity: Tensor | None = None
    correlation: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextureStatistics:
    """What the images of one class look like (`modhub.data.texture`): `mean` and `deviation` float32 (T,),
    `correlation` float16 (T·(T−1)/2,) packed as in `ValueStatistics`; `limit` float32 (), the distance from
    its class within which nearly all of the parent's images are (`modhub.composition.rejection`)."""

    mean: Tensor
    deviation: Tensor
    correlation: Tensor
    limit: Tensor


_TEXTURE_PARTS = tuple(part.name for part in fields(TextureStatistics))
_PARTS = tuple(part.name for part in fields(ValueStatistics))


def statistics_key(value: str, part: str) -> str:
    """The key of one `part` (a field of `ValueStatistics`) of the statistics of `value`."""
    return f"{_STATISTICS}{value}.{part}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleTensors:
    """What one `module.safetensors` holds.

    `mask` uint8 (slots,), 1 where a slot is kept. `head_weight` float32 (2, features) and `head_bias` (2,):
    row 0 is the class, row 1 the mean of all others; `head_tail` are the steps behind them
    (`modhub.nets.head.TAIL_STEPS`). `relevance` float16 (slots,), ≥ 0: how much the class needs each slot.
    `statistics` by value. `position_masks` by value, uint8 of the value's own shape, 1 where a position is
    alive; a value without one is alive everywhere, and position masks make nothing smaller or faster.
    `texture` of the class's images.
    `others` are tensors of unknown keys, kept as they are.
    """

    mask: Tensor
    head_weight: Tensor
    head_bias: Tensor
    head_tail: tuple[str, ...] = ()
    relevance: Tensor | None = None
    statistics: Mapping[str, ValueStatistics] = field(default_factory=dict)
    position_masks: Mapping[str, Tensor] = field(default_factory=dict)
    texture: TextureStatistics | None = None
    others: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor], place: str = "The module") -> ModuleTensors:
        """By key. Raises `IntegrityError`, which names `place`, when mask or head are missing."""
        for key in (_MASK, _HEAD_WEIGHT, _HEAD_BIAS):
            if key not in tensors:
                raise IntegrityError(
                    f"{place} lacks the tensor '{key}'.", hint="Pull it again, or decompose its parent again."
                )
        statistics, rest = _statistics_of(tensors)
        positions = {key for key in rest if key.startswith(_POSITION_MASK)}
        keys = {_MASK, _HEAD_WEIGHT, _HEAD_BIAS, _HEAD_TAIL, _RELEVANCE}
        texture = {part: rest[f"{_TEXTURE}{part}"] for part in _TEXTURE_PARTS if f"{_TEXTURE}{part}" in rest}
        whole = len(texture) == len(_TEXTURE_PARTS)
        if whole:
            keys |= {f"{_TEXTURE}{part}" for part in _TEXTURE_PARTS}
        tail = rest[_HEAD_TAIL].tolist() if _HEAD_TAIL in rest else []
        return cls(
            mask=tensors[_MASK],
            head_weight=tensors[_HEAD_WEIGHT],
            head_bias=tensors[_HEAD_BIAS],
            head_tail=tuple(TAIL_STEPS[step] for step in tail if step < len(TAIL_STEPS)),
            relevance=tensors.get(_RELEVANCE),
            statistics=statistics,
            position_masks={key.removeprefix(_POSITION_MASK): rest[key] for key in sorted(positions)},
            texture=TextureStatistics(**texture) if whole else None,
            others={key: rest[key] for key in rest if key not in keys | positions},
        )

    def to_dict(self) -> dict[str, Tensor]:
        """By key, as `from_dict` takes them."""
        tensors = {_MASK: self.mask, _HEAD_WEIGHT: self.head_weight, _HEAD_BIAS: self.head_bias}
        if self.head_tail:
            steps = [TAIL_STEPS.index(step) for step in self.head_tail]
            tensors[_HEAD_TAIL] = torch.tensor(steps, dtype=torch.uint8)
        if self.relevance is not None:
            tensors[_RELEVANCE] = self.relevance
        for value, statistics in self.statistics.items():
            for part in _PARTS:
                if (tensor := getattr(statistics, part)) is not None:
                    tensors[statistics_key(value, part)] = tensor
        tensors |= {f"{_POSITION_MASK}{value}": mask for value, mask in self.position_masks.items()}
        if self.texture is not None:
            tensors |= {f"{_TEXTURE}{part}": getattr(self.texture, part) for part in _TEXTURE_PARTS}
        return tensors | dict(self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkTensors:
    """What the statistics file of a trunk holds: facts that all its modules share.

    `parent_weight` (labels, features) and `parent_bias` (labels,) are the parent's head, None where the
    modules carry none. `correlations` by value, pooled over the classes where a module's own would be too
    large; packed as in `ValueStatistics`.
    """

    parent_weight: Tensor | None = None
    parent_bias: Tensor | None = None
    correlations: Mapping[str, Tensor] = field(default_factory=dict)
    others: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> TrunkTensors:
        statistics, rest = _statistics_of(tensors)
        pooled = {value: pooled_values.correlation for value, pooled_values in statistics.items()}
        keys = {_PARENT_WEIGHT, _PARENT_BIAS, *(statistics_key(value, _CORRELATION) for value in pooled)}
        return cls(
            parent_weight=rest.get(_PARENT_WEIGHT),
            parent_bias=rest.get(_PARENT_BIAS),
            correlations={value: packed for value, packed in pooled.items() if packed is not None},
            others={key: tensor for key, tensor in tensors.items() if key not in keys},
        )

    def to_dict(self) -> dict[str, Tensor]:
        """By key, as `from_dict` takes them."""
        head = {_PARENT_WEIGHT: self.parent_weight, _PARENT_BIAS: self.parent_bias}
        tensors = {key: tensor for key, tensor in head.items() if tensor is not None}
        tensors |= {
            statistics_key(value, _CORRELATION): correlation
            for value, correlation in self.correlations.items()
        }
        return tensors | dict(self.others)


def _statistics_of(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, ValueStatistics], dict[str, Tensor]]:
    """The statistics by value, and all other tensors."""
    parts: dict[str, dict[str, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        value, _, part = key.removeprefix(_STATISTICS).rpartition(".")
        if key.startswith(_STATISTICS) and part in _PARTS:
            parts.setdefault(value, {})[part] = tensor
        else:
            rest[key] = tensor
    return {value: ValueStatistics(**arrays) for value, arrays in parts.items()}, rest


@dataclass(frozen=True, slots=True)
class TensorType:
    """A type and shape, which print as `uint8 [14]`."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> TensorType:
        return cls(tensor.dtype, tuple(tensor.shape))

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {list(self.shape)}"


def required_tensors(keys: Iterable[str], graph: Graph, slots: int) -> dict[str, TensorType | None]:
    """What a trunk of `slots` slots requires of the tensors with these `keys` and of those that every module
    has; None for a position mask of a value that the trunk does not have. Statistics are checked where they
    are read (`modhub.pruning.statistics.read_statistics`)."""
    required: dict[str, TensorType | None] = {
        _MASK: TensorType(torch.uint8, (slots,)),
        _HEAD_WEIGHT: TensorType(torch.float32, (2, graph.features)),
        _HEAD_BIAS: TensorType(torch.float32, (2,)),
    }
    for key in keys:
        if key == _RELEVANCE:
            required[key] = TensorType(torch.float16, (slots,))
        elif key.startswith(_POSITION_MASK):
            shape = graph.shapes.get(key.removeprefix(_POSITION_MASK))
            required[key] = None if shape is None else TensorType(torch.uint8, tuple(shape))
    return required


def required_head(labels: int, features: int) -> dict[str, TensorType]:
    """What the statistics of a trunk must hold for calibrations that go by the parent's whole head."""
    return {
        _PARENT_WEIGHT: TensorType(torch.float32, (labels, features)),
        _PARENT_BIAS: TensorType(torch.float32, (labels,)),
    }


def unite_positions(masks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """By value, bool: alive where any of `masks` is. A value stays masked only if all of them mask it."""
    shared = set.intersection(*(set(of_module) for of_module in masks)) if masks else set()
    united = {
        value: torch.stack([of_module[value].bool() for of_module in masks]).any(0)
        for value in sorted(shared)
    }
    return {value: mask for value, mask in united.items() if not bool(mask.all())}
