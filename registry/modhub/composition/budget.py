"""How much a composed classifier may cost, and the channels that this buys for a set of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modhub.errors import BudgetError
from modhub.nets import ChannelSpace, Mask, Network, cost, slice_network, without_constants
from modhub.pruning.order import PruningOrder, mask_after

__all__ = ["KINDS", "Budget", "Price", "mask_within"]

KINDS = ("flops", "params", "time")
"""What a budget can limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Fractions of each parent's trunk: multiply-adds, parameters, time; None where there is no limit.

    `time` is estimated (`modhub.nets.Cost.time`): an operator costs some, however few channels it has, so
    that whole residual branches go where they say little.

    `max_loss` is the share of images, of those that a slim trunk was not fitted on, that it may decide
    otherwise than the whole one; their accuracy falls by that share at most. Every group of channels that is
    cut keeps a multiple of `multiple`: many engines compute multiples of 8 faster than numbers below.
    Raises `BudgetError` for a fraction outside (0, 1], a loss outside [0, 1) or a multiple below 1.
    """

    flops: float | None = None
    params: float | None = None
    time: float | None = None
    max_loss: float | None = None
    multiple: int = 1

    def __post_init__(self) -> None:
        for name in KINDS:
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise BudgetError(f"The budget {name}={value:g} is not a fraction.", hint="Use 0.01 to 1.")
        if self.multiple < 1:
            raise BudgetError(f"Channels cannot come in multiples of {self.multiple}.", hint="Use 1, 4 or 8.")
        if self.max_loss is not None and not 0 <= self.max_loss < 1:
            raise BudgetError(
                f"The loss {self.max_loss:g} is not a fraction.", hint="Use 0.005 or 0.5pp for half a point."
            )


@dataclass(frozen=True, slots=True)
class Price:
    """What a sliced trunk costs, as fractions of the whole one."""

    flops: float
    params: float
    time: float

    @classmethod
    def of(cls, sliced: Network, whole: Network) -> Price:
        part, all_ = cost(sliced), cost(whole)
        return cls(
            part.flops / max(all_.flops, 1),
            part.parameters / max(all_.parameters, 1),
            part.time / max(all_.time, 1),
        )

    def within(self, budget: Budget) -> bool:
        """Whether no limit of the budget is exceeded."""
        limits = ((getattr(self, name), getattr(budget, name)) for name in KINDS)
        return all(limit is None or own <= limit for own, limit in limits)


def mask_within(trunk: Network, space: ChannelSpace, removal: PruningOrder, budget: Budget) -> Mask:
    """The mask that removes the shortest prefix of the order that meets `budget`'s flops, params and time.

    A prefix for a larger budget is a prefix of that for a smaller one, so more budget never drops a channel
    that less had kept. Raises `BudgetError` that says what could be reached.
    """

    def price(count: int) -> Price:
        mask = mask_after(removal, count, space, budget.multiple)
        return Price.of(without_constants(slice_network(trunk, mask, space=space), space, mask), trunk)

    def meets(count: int) -> bool:
        return price(count).within(budget)

    fewest = len(removal.slots)
    if not meets(fewest):
        least = price(fewest)
        raise BudgetError(
            f"No choice of channels meets {_wanted(budget)}: the smallest network that keeps "
            f"{_fewest(budget)} in every layer it needs has flops={least.flops:.3f}, "
            f"params={least.params:.3f} and time={least.time:.3f} of its parent.",
            hint="Allow more, or compose fewer classes from fewer parents.",
        )
    return mask_after(removal, _first(meets, fewest), space, budget.multiple)


def _first(holds: Callable[[int], bool], last: int) -> int:
    """The smallest count for which a monotone condition holds; it holds for `last`."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _fewest(budget: Budget) -> str:
    return "a channel" if budget.multiple == 1 else f"{budget.multiple} channels"


def _wanted(budget: Budget) -> str:
    limits = [f"{name}={value:g}" for name in KINDS if (value := getattr(budget, name)) is not None]
    return " and ".join(limits)
