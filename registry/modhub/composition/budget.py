"""How much a composed classifier may cost."""

from __future__ import annotations

from dataclasses import dataclass

from modhub.errors import BudgetError
from modhub.nets import Network, cost

KINDS = ("flops", "params", "time")
"""What a budget can limit."""
RUNTIME_BLOCK = 4
"""What channels come in multiples of without a budget: inference engines compute the numbers between more
slowly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Fractions of each parent's trunk: multiply-adds, parameters, time; None where there is no limit.

    `time` is estimated (`modhub.nets.Cost.time`): an operator costs some, however few channels it has, so
    that residual branches that contribute little are removed completely.

    `max_loss` is the maximum share of predictions that may differ from the unpruned model's, on images that
    nothing was fitted on; their accuracy falls by that share at most. Every group of channels that is cut
    keeps a multiple of `multiple`: many engines compute multiples of 8 faster than numbers below. None: of
    `RUNTIME_BLOCK` where nothing is limited, else any number.
    Raises `BudgetError` for a fraction outside (0, 1], a loss outside [0, 1) or a multiple below 1.
    """

    flops: float | None = None
    params: float | None = None
    time: float | None = None
    max_loss: float | None = None
    multiple: int | None = None

    @property
    def limited(self) -> bool:
        """Whether any of `KINDS` has a limit."""
        return any(getattr(self, kind) is not None for kind in KINDS)

    @property
    def block(self) -> int:
        """What channels come in multiples of."""
        return self.multiple or (1 if self.limited else RUNTIME_BLOCK)

    def __post_init__(self) -> None:
        for name in KINDS:
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise BudgetError(f"The budget {name}={value:g} is not a fraction.", hint="Use 0.01 to 1.")
        if self.multiple is not None and self.multiple < 1:
            raise BudgetError(f"Channels cannot come in multiples of {self.multiple}.", hint="Use 1, 4 or 8.")
        if self.max_loss is not None and not 0 <= self.max_loss < 1:
            raise BudgetError(
                f"The loss {self.max_loss:g} is not a fraction.", hint="Use 0.005 or 0.5pp for half a point."
            )


@dataclass(frozen=True, slots=True)
class RelativeCost:
    """What a sliced trunk costs, as fractions of the unpruned one."""

    flops: float
    params: float
    time: float

    @classmethod
    def of(cls, sliced: Network, unpruned: Network) -> RelativeCost:
        part, total = cost(sliced), cost(unpruned)
        return cls(
            part.flops / max(total.flops, 1),
            part.parameters / max(total.parameters, 1),
            part.time / max(total.time, 1),
        )

    def within(self, budget: Budget) -> bool:
        """Whether no limit of the budget is exceeded."""
        limits = ((getattr(self, name), getattr(budget, name)) for name in KINDS)
        return all(limit is None or share <= limit for share, limit in limits)
