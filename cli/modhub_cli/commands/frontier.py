"""modhub frontier"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from modhub.formatting import percent
from modhub_cli.options import (
    converted,
    device_option,
    directory,
    force_option,
    hub_option,
    large_option,
    multiple_option,
    offline_option,
    reporting,
    seed_option,
    tune_option,
)
from modhub_cli.output import Out


def fractions(text: str) -> tuple[float, ...]:
    """0.9,0.7,0.5"""
    try:
        numbers = tuple(float(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number <= 1 for number in numbers):
        raise ValueError(f"expected fractions such as 0.9,0.7,0.5, got '{text}'.")
    return numbers


@click.command("frontier", short_help="Compare accuracy, size and speed at several budgets.")
@click.argument("project", required=False, type=click.Path(path_type=Path), metavar="[modhub.toml]")
@click.option("--data", metavar="DATA", help="Labelled held-out images; never used for selection.")
@click.option(
    "--split",
    type=click.Choice(["train", "calibration", "test"]),
    default="test",
    show_default=True,
    help="Split of DATA.",
)
@click.option(
    "--budgets",
    callback=converted(fractions),
    metavar="A,B,…",
    help="Fractions of the parents' cost. Default: 0.9 down to 0.3.",
)
@click.option(
    "--kind",
    type=click.Choice(["flops", "params", "time"]),
    default="flops",
    show_default=True,
    help="Cost that the budgets limit.",
)
@tune_option
@multiple_option
@click.option("--no-random", is_flag=True, help="Skip the random-channel baseline.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="Time to spend on each latency.",
)
@click.option("-o", "--out", "target", type=directory, help="Output directory for an HTML page and JSON.")
@seed_option
@force_option
@device_option
@hub_option
@offline_option
@large_option
@reporting
def command(
    project: Path | None,
    budgets: tuple[float, ...] | None,
    no_random: bool,
    target: Path | None,
    force: bool,
    out: Out,
    **options: Any,
) -> None:
    """Compose the modules of modhub.toml at several budgets and compare accuracy, size and time.

    The baselines are the parents' logits restricted to the same classes, and networks of as many random
    channels. Without --data, only the agreement with the unpruned network on synthetic images is measured.
    Nothing is built: pass the chosen budget to 'modhub compose --budget'.

    Times are ratios to the unpruned network, from interleaved runs that take --seconds, or up to four times
    as long if other load disturbs them.

    \b
    Example: modhub frontier --data cifar10:data --budgets 0.8,0.6,0.4 -o trade
    """
    from modhub.api.frontier import frontier, frontier_to
    from modhub.evaluation.frontier import BUDGETS, NOISY_NOTE

    options |= {"budgets": budgets or BUDGETS, "control": not no_random, "reporter": out.reporter()}
    if target is None:
        result = frontier(project or Path(), **options)
    else:
        result = frontier_to(target, project or Path(), force=force, **options)
    kind, multiple, tune, seed = (options[name] for name in ("kind", "multiple", "tune", "seed"))

    def human() -> None:
        batches = list(result.points[0].latency)
        shares: dict[str, list[float | None]] = {
            "top-1": [point.top1 for point in result.points],
            "agreement": [point.agreement for point in result.points],
            "random channels": [point.random_top1 for point in result.points],
        }
        # Accuracy is measured on labelled images only.
        measured = {name: values for name, values in shares.items() if set(values) != {None}}
        columns = ["budget", *measured, *(f"time × {batch}" for batch in batches)]
        rows = [
            [
                f"{kind}={point.budget:g}",
                *(percent(values[number]) for values in measured.values()),
                *map(point.shown_latency, batches),
                percent(point.flops),
                percent(point.params),
            ]
            for number, point in enumerate(result.points)
        ]
        columns += ["multiply-adds", "parameters"]
        out.table(columns, rows, right=range(1, len(columns)))
        if result.restricted_top1 is None:
            out.line(f"agreement with the unpruned network on {result.images:,} synthetic images")
        else:
            out.line(f"restricted logits {percent(result.restricted_top1)} on {result.images:,} images")
        if result.noisy:
            out.line(NOISY_NOTE)
        if result.smallest is not None:
            out.line(result.smallest)
        if target is not None:
            out.line(f"page: {target / 'frontier.html'}")

    out.emit(result.to_dict(), human=human, quiet=[f"{p.budget:g} {p.agreement:.4f}" for p in result.points])
    compose = ["modhub", "compose", *([] if project is None else [str(project)]), "-o", out.vacant("build")]
    compose += ["--budget", f"{kind}={result.suggested.budget:g}"]
    # The other options of the measured network.
    compose += [] if multiple is None else ["--multiple", str(multiple)]
    compose += [] if tune is None else ["--tune", tune]
    compose += [] if seed == 0 else ["--seed", str(seed)]
    out.next(shlex.join(compose), asks_hub=True)
