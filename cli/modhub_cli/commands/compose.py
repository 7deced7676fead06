"""modhub compose"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modhub.formatting import count, percent, size
from modhub_cli.options import (
    calibrate_option,
    converted,
    device_option,
    force_option,
    hub_option,
    large_option,
    multiple_option,
    offline_option,
    reporting,
    seed_option,
    target_option,
    tune_option,
)
from modhub_cli.output import Out, many

if TYPE_CHECKING:
    from modhub.api.builds import BuildReport


def budget(text: str) -> tuple[str, float]:
    """flops=0.4, params=0.2 or time=0.5: a fraction of the parents' cost."""
    kind, _, number = text.partition("=")
    try:
        wanted = float(number)
    except ValueError:
        wanted = -1.0
    if kind not in ("flops", "params", "time") or not 0 < wanted <= 1:
        raise ValueError(f"expected flops, params or time and a fraction, such as flops=0.4, got '{text}'.")
    return kind, wanted


def loss(text: str) -> float:
    """0.5pp, 0.5% or 0.005"""
    plain = text.strip().lower()
    percent = plain.endswith(("pp", "%"))
    try:
        number = float(plain.removesuffix("pp").removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise ValueError(f"expected a loss such as 0.5pp or 0.005, got '{text}'.")
    return number


@click.command("compose", short_help="Compile modules into one runnable classifier.")
@click.argument("project", required=False, type=click.Path(path_type=Path), metavar="[modhub.toml]")
@target_option
@click.option(
    "--locked",
    is_flag=True,
    help="Use modhub.lock unchanged and resolve nothing; works offline if the cache holds all files.",
)
@click.option(
    "--budget",
    "budgets",
    callback=converted(budget),
    multiple=True,
    metavar="KIND=FRACTION",
    help="Maximum cost as a fraction of the parents': flops=0.4, params=0.2 or time=0.5 (estimated; may "
    "remove whole residual blocks). Repeatable.",
)
@click.option(
    "--max-loss",
    callback=converted(loss),
    metavar="LOSS",
    help="Maximum share of predictions that may differ from the unpruned model, such as 0.5pp.",
)
@multiple_option
@tune_option
@calibrate_option
@click.option("--reject", is_flag=True, help="Allow the answer 'none of these'.")
@seed_option
@force_option
@device_option
@hub_option
@offline_option
@large_option
@reporting
def command(
    project: Path | None,
    target: Path,
    budgets: tuple[tuple[str, float], ...],
    max_loss: float | None,
    multiple: int | None,
    out: Out,
    **options: Any,
) -> None:
    """Compile the modules of modhub.toml into one classifier with one network per trunk.

    If modhub.lock is missing or out of date, releases are resolved first and modhub.lock is written.

    \b
    Example: modhub compose -o build --budget flops=0.5
    """
    from modhub.api.compose import compose_to
    from modhub.composition import Budget

    budget = Budget(**dict(budgets), max_loss=max_loss, multiple=multiple)
    report = compose_to(target, project or Path(), budget=budget, reporter=out.reporter(), **options)
    out.emit(report.to_dict(), human=lambda: show_build(out, report), quiet=[str(target)])
    out.next(f"modhub predict {shlex.quote(str(target))} IMAGE")


def show_build(out: Out, report: BuildReport) -> None:
    """Print the summary of a build, after what its lock has from elsewhere than before."""
    for change in report.changes:
        out.line(f"{change}")
    rows = [
        [
            trunk.parent,
            f"{count(trunk.flops)} of {count(trunk.parent_flops)}",
            percent(trunk.kept_channels_fraction),
            percent(trunk.kept_params_fraction),
        ]
        for trunk in report.trunks
    ]
    out.table(["parent", "multiply-adds", "channels kept", "parameters kept"], rows, right=(1, 2, 3))
    out.line(f"composed in {report.energy}")
    out.line(
        f"{many(len(report.labels), 'class', 'classes')}, {many(report.passes, 'pass', 'passes')} "
        f"per image, {size(report.bytes)}: {report.path}"
    )
