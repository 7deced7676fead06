"""What a computation took: time, processor, energy, and emissions where the grid is named.

Where codecarbon is installed and the machine can be metered (RAPL), energy is measured. Elsewhere it is CPU
time times an assumed power, whose source stands beside every figure. Emissions are never guessed: they are
computed only where `MODHUB_GRID` names what the electricity emits.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from modhub.errors import DataError
from modhub.results import Document

RAPL = Path("/sys/class/powercap")
"""Where Linux shows the energy counters of processors."""


@dataclass(frozen=True, slots=True)
class NamedFactor:
    """A number and where it comes from."""

    value: float
    name: str

    @classmethod
    def parse(cls, variable: str, unit: str) -> NamedFactor | None:
        """`380:Germany 2024` in an environment variable; None where it is not set. Raises `DataError`."""
        text = os.environ.get(variable, "")
        if not text:
            return None
        number, _, name = text.partition(":")
        value = math.nan
        with suppress(ValueError):
            value = float(number)
        name = " ".join(name.split())
        if not (0 <= value < math.inf and name.isprintable() and 0 < len(name) <= 200):
            raise DataError(
                f"{variable} is '{text}'; it should be a number of {unit}, a colon and its source.",
                hint=f"For instance: export {variable}='380:Germany 2024'. Or unset it.",
            )
        return cls(value, name)


CORE_POWER = NamedFactor(12.0, "Green Algorithms, any CPU")
"""Watts of one busy core, without memory and cooling: what Green Algorithms takes for an unknown CPU
(Lannelongue, Grealey, Inouye 2021, doi 10.1002/advs.202100707); the server CPUs on its list have 4 to 15."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emissions:
    """Of one run, as Software Carbon Intensity has it (ISO/IEC 21031): (E·I + M) / R, where R is the run.

    `grid` is I in gCO2e/kWh; `embodied` is M, what making the hardware emitted, in gCO2e for an hour of its
    use; None: it is not known, and not counted.
    """

    grams: float
    grid: NamedFactor
    embodied: NamedFactor | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "grams": self.grams,
            "grams_per_kwh": self.grid.value,
            "grid": self.grid.name,
            "embodied_grams_per_hour": None if self.embodied is None else self.embodied.value,
            "embodied": None if self.embodied is None else self.embodied.name,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyUse(Document):
    """What a computation took: `seconds` of wall-clock time on so many `cores`, busy on average.

    `kwh` is the energy by `power_model`, None where nothing tells it (a GPU that is not metered); `emissions`
    are known where that is, and `MODHUB_GRID` names the grid.
    """

    seconds: float
    cores: float
    processor: str
    kwh: float | None
    power_model: str
    emissions: Emissions | None = None

    def to_dict(self) -> dict[str, Any]:
        document = Document.to_dict(self)
        if self.emissions is None:
            del document["emissions"]
        return document

    def __str__(self) -> str:
        """One line: `12.3 s on 1.9 cores, 0.078 Wh (12 W for each busy core: …)`."""
        energy = "energy unknown" if self.kwh is None else f"{1000 * self.kwh:.3g} Wh"
        line = f"{self.seconds:.1f} s on {self.cores:.1f} cores, {energy} ({self.power_model})"
        if self.emissions is None:
            return line
        rest = "" if self.emissions.embodied else ", hardware not counted"
        return f"{line}, {self.emissions.grams:.3g} gCO2e ({self.emissions.grid.name}{rest})"


@dataclass(slots=True)
class Meter:
    """Measures a `with` block; afterwards `use()` says what it took.

    `MODHUB_GRID=380:Germany 2024` names the grid in gCO2e/kWh, `MODHUB_EMBODIED=2.5:its maker` what making
    the hardware emitted, in gCO2e for an hour of use, and `MODHUB_CORE_POWER=4.4:EPYC 7763, 280 W` another
    power than `CORE_POWER`. Raises `DataError` for one that cannot be read, before the block.
    """

    grid: NamedFactor | None = field(default_factory=lambda: NamedFactor.parse("MODHUB_GRID", "gCO2e/kWh"))
    embodied: NamedFactor | None = field(
        default_factory=lambda: NamedFactor.parse("MODHUB_EMBODIED", "gCO2e for an hour")
    )
    power: NamedFactor = field(
        default_factory=lambda: NamedFactor.parse("MODHUB_CORE_POWER", "watts for a core") or CORE_POWER
    )
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of this process and its children, over all threads."""
    _tracker: Any = None
    _measured: float | None = None

    def __enter__(self) -> Meter:
        self._tracker = _tracker()
        self.seconds, self.cpu_seconds = time.perf_counter(), _cpu_seconds()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds = time.perf_counter() - self.seconds
        self.cpu_seconds = _cpu_seconds() - self.cpu_seconds
        if self._tracker is not None:
            self._tracker.stop()
            # codecarbon logs what goes wrong in it, and says nothing then.
            data = getattr(self._tracker, "final_emissions_data", None)
            self._measured = None if data is None else float(data.energy_consumed)

    def use(self, *, device: str = "cpu", cpu_seconds: float | None = None) -> EnergyUse:
        """What the block took; `cpu_seconds` are those of all processes that shared it."""
        busy = self.cpu_seconds if cpu_seconds is None else cpu_seconds
        kwh: float | None
        if self._measured is not None:
            kwh, model = self._measured, f"codecarbon {version('codecarbon')}, the whole machine"
        elif device != "cpu":
            kwh, model = None, f"none: {device} is not metered"
        else:
            kwh = busy * self.power.value / 3.6e6
            model = f"{self.power.value:g} W for each busy core: {self.power.name}"
        emissions = None
        if kwh is not None and self.grid is not None:
            making = 0.0 if self.embodied is None else self.seconds / 3600 * self.embodied.value
            emissions = Emissions(
                grams=_rounded(kwh * self.grid.value + making), grid=self.grid, embodied=self.embodied
            )
        return EnergyUse(
            seconds=_rounded(self.seconds),
            cores=_rounded(busy / max(self.seconds, 1e-9), 3),
            processor=processor_name(),
            kwh=None if kwh is None else _rounded(kwh),
            power_model=model,
            emissions=emissions,
        )


def processor_name() -> str:
    """As the system has it: `AMD EPYC 7763 64-Core Processor`."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine() or "unknown"


def _tracker() -> Any:
    """codecarbon at work, None where it is not installed or reads no counter of the processor: then it would
    count an assumed power of its own, which is not measured either."""
    readable = any(os.access(counter, os.R_OK) for counter in RAPL.glob("*/energy_uj"))
    if not readable or find_spec("codecarbon") is None:
        return None
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.core.cpu import is_rapl_available

    logging.getLogger("codecarbon").disabled = True
    if not is_rapl_available():
        return None
    # It only counts energy: what it would say of emissions rests on a guess of the country.
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA", save_to_file=False, log_level="critical", allow_multiple_runs=True
    )
    tracker.start()
    return tracker


def _cpu_seconds() -> float:
    spent = os.times()
    # Its own time is finer than the hundredths of a second that `os.times` counts in.
    return time.process_time() + spent.children_user + spent.children_system


def _rounded(number: float, digits: int = 4) -> float:
    return float(f"{number:.{digits}g}")
