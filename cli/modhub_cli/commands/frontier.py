"""modhub frontier"""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from modhub.formatting import percent
from modhub_cli.options import (
    converted,
    device_option,
    directory,
    force_option,
    hub_option,
    multiple_option,
    offline_option,
    reporting,
    seed_option,
    tune_option,
)
from modhub_cli.output import Out

__all__ = ["command", "fractions"]


def fractions(text: str) -> tuple[float, ...]:
    """0.9,0.7,0.5"""
    try:
        found = tuple(float(number) for number in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < number <= 1 for number in found):
        raise ValueError(f"'{text}' is not a row of fractions such as 0.9,0.7,0.5")
    return found


@click.command("frontier", short_help="What smaller networks would cost and keep, at a row of budgets.")
@click.argument("project", required=False, type=click.Path(path_type=Path), metavar="[modhub.toml]")
@click.option("--data", metavar="DATA", help="Labelled images to measure on; nothing is chosen by them.")
@click.option(
    "--split",
    type=click.Choice(["train", "calibration", "test"]),
    default="test",
    show_default=True,
    help="Which part of DATA.",
)
@click.option(
    "--budgets", callback=converted(fractions), metavar="A,B,…", help="Fractions. Default: 0.9 down to 0.3."
)
@click.option("--kind", type=click.Choice(["flops", "params", "time"]), default="flops", show_default=True)
@tune_option
@multiple_option
@click.option("--no-random", is_flag=True, help="Leave out the random channels beside each network.")
@click.option("-o", "--out", "target", type=directory, help="For a page and JSON.")
@seed_option
@force_option
@device_option
@hub_option
@offline_option
@reporting
def command(
    project: Path | None,
    data: str | None,
    split: str,
    budgets: tuple[float, ...] | None,
    kind: str,
    tune: str | None,
    multiple: int,
    no_random: bool,
    target: Path | None,
    seed: int,
    force: bool,
    device: str,
    hub: str | None,
    offline: bool,
    out: Out,
) -> None:
    """Compose what modhub.toml wants at a row of budgets and show accuracy, size and time of each.

    Beside them stand the whole parents' logits, restricted to the wanted classes, and as many random
    channels. Without DATA the share of synthetic images on which a network decides as the whole one does is
    all that can be said. Nothing is built: take the budget you like to 'modhub compose --budget'.

    Times are the network's over the whole one's, taken turn about, and again where other work disturbs them.

    Example: modhub frontier --data cifar10:data --budgets 0.8,0.6,0.4 -o trade
    """
    from modhub.api.frontier import frontier, frontier_directory
    from modhub.evaluation.frontiers import BUDGETS, NOISY_NOTE

    with frontier_directory(target, force=force) as write:
        found = frontier(
            project or Path(),
            data=data,
            split=split,
            budgets=budgets or BUDGETS,
            kind=kind,
            tune=tune,
            control=not no_random,
            multiple=multiple,
            seed=seed,
            device=device,
            hub=hub,
            offline=offline,
            reporter=out.reporter(),
        )
        write(found)

    def human() -> None:
        batches = list(found.points[0].latency)
        shares: dict[str, list[float | None]] = {
            "multiply-adds": [point.flops for point in found.points],
            "parameters": [point.params for point in found.points],
            "agrees": [point.agreement for point in found.points],
            "top-1": [point.top1 for point in found.points],
            "random channels": [point.random_top1 for point in found.points],
        }
        # Without labelled images nobody knows how often a network is right.
        known = {name: values for name, values in shares.items() if any(each is not None for each in values)}
        rows = [
            [
                f"{kind}={point.budget:g}",
                *(percent(values[number]) for values in known.values()),
                *map(point.shown_latency, batches),
            ]
            for number, point in enumerate(found.points)
        ]
        head = ["budget", *known, *(f"time × {batch}" for batch in batches)]
        out.table(head, rows, right=range(1, len(head)))
        if found.restricted_top1 is None:
            out.line(f"agreement with the whole network, on {found.images:,} synthetic images")
        else:
            out.line(f"restricted logits {percent(found.restricted_top1)}, on {found.images:,} images")
        if found.noisy:
            out.line(NOISY_NOTE)
        if found.smallest is not None:
            out.line(found.smallest)
        if target is not None:
            out.line(f"page: {target / 'frontier.html'}")

    out.emit(found.to_dict(), human=human, quiet=[f"{p.budget:g} {p.agreement:.4f}" for p in found.points])
    compose = ["modhub", "compose", *([] if project is None else [str(project)]), "-o", out.vacant("build")]
    compose += ["--budget", f"{kind}={found.suggested.budget:g}"]
    # What else the network that was measured was made with.
    compose += [] if multiple == 1 else ["--multiple", str(multiple)]
    compose += [] if tune is None else ["--tune", tune]
    compose += [] if seed == 0 else ["--seed", str(seed)]
    out.next(shlex.join(compose), asks_hub=True)
