"""What a composition costs and keeps at a row of budgets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from modhub.api.frontier_page import frontier_page
from modhub.api.locked_modules import locked_parts
from modhub.catalog.catalog import Catalog
from modhub.data import ImageSet, open_data, open_unlabelled
from modhub.devices import pick_device, torch_defaults
from modhub.energy import Meter
from modhub.evaluation.frontier import BUDGETS, SECONDS, Frontier
from modhub.evaluation.frontier import frontier as measure
from modhub.files import new_directory
from modhub.reporter import SILENT, Reporter
from modhub.text import pretty_json


@torch_defaults()
def frontier(
    modules: Mapping[str, str] | Iterable[str] | str | Path,
    *,
    data: ImageSet | str | None = None,
    split: str = "test",
    budgets: Sequence[float] = BUDGETS,
    kind: str = "flops",
    tune: ImageSet | str | None = None,
    control: bool = True,
    multiple: int | None = None,
    seed: int = 0,
    seconds: float = SECONDS,
    device: str = "auto",
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> Frontier:
    """What the classifier of `modules` (as for `modhub.compose`) costs and keeps at a row of budgets.

    See `modhub.evaluation.frontier.frontier`. Raises `BudgetError`, and what `modhub.compose` raises.
    """
    place = pick_device(device)
    images = None if data is None else open_data(data, split)
    tuning = None if tune is None else open_unlabelled(tune, "train")
    with Meter() as meter:
        parts = locked_parts(modules, hub=hub, offline=offline, reporter=reporter)
        measured = measure(
            parts,
            budgets=budgets,
            kind=kind,
            data=images,
            tune=tuning,
            control=control,
            multiple=multiple,
            seed=seed,
            seconds=seconds,
            device=place,
            reporter=reporter,
        )
    return replace(measured, energy=meter.use(device=place.type))


def frontier_to(
    path: Path | str,
    modules: Mapping[str, str] | Iterable[str] | str | Path,
    *,
    data: ImageSet | str | None = None,
    split: str = "test",
    budgets: Sequence[float] = BUDGETS,
    kind: str = "flops",
    tune: ImageSet | str | None = None,
    control: bool = True,
    multiple: int | None = None,
    seed: int = 0,
    seconds: float = SECONDS,
    device: str = "auto",
    force: bool = False,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> Frontier:
    """`frontier`, written to the directory `path` as `frontier.json` and `frontier.html`.

    The directory appears whole or not at all. Raises `StorageError` before the work when something is in it
    and there is no `force`, and what `frontier` raises.
    """
    with new_directory(Path(path), force=force) as scratch:
        measured = frontier(
            modules,
            data=data,
            split=split,
            budgets=budgets,
            kind=kind,
            tune=tune,
            control=control,
            multiple=multiple,
            seed=seed,
            seconds=seconds,
            device=device,
            hub=hub,
            offline=offline,
            reporter=reporter,
        )
        (scratch / "frontier.json").write_bytes(pretty_json(measured.to_dict()))
        (scratch / "frontier.html").write_text(frontier_page(measured), encoding="utf-8")
    return measured
