"""modhub search"""

from __future__ import annotations

import shlex

import click

from modhub.formatting import percent
from modhub_cli.options import hub_option, offline_option, reporting
from modhub_cli.output import Out, shown_to

__all__ = ["command"]


@click.command("search", short_help="Find modules by class.")
@click.argument("labels", metavar="[LABEL…]", nargs=-1)
@click.option("--license", "licence", default="", help="Only modules under this licence.")
@click.option("--dataset", default="", help="Only modules of parents trained on this.")
@click.option("--architecture", default="", help="Only modules of such parents.")
@click.option("--text", default="", help="Only repositories whose name or tags contain these words.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@hub_option
@offline_option
@reporting
def command(
    labels: tuple[str, ...],
    licence: str,
    dataset: str,
    architecture: str,
    text: str,
    limit: int,
    hub: str | None,
    offline: bool,
    out: Out,
) -> None:
    """Find modules that answer to any of the LABELs (default: all modules), the best first.

    Those measured on a test split come before those measured on images that their parent was trained on. Then
    counts 'balanced ≥', what the balanced accuracy is at least, given how many images it was measured on.
    'measured on' is the split and the number of images of the class.

    Example: modhub search cat dog --license mit
    """
    from modhub.api.sharing import search
    from modhub.hub import open_hub

    answer = search(
        labels,
        license=licence,
        dataset=dataset,
        architecture=architecture,
        text=text,
        limit=limit,
        hub=hub,
        offline=offline,
        reporter=out.reporter(),
    )
    found = answer["modules"]
    given = {"--license": licence, "--dataset": dataset, "--architecture": architecture, "--text": text}

    def human() -> None:
        for label, names in answer["nearest"].items():
            out.note(f"There is no class '{label}'. Nearest: {', '.join(names)}.")
        if not found:
            where = open_hub(hub).address
            if filters := [name for name, text in given.items() if text]:
                asked = " and ".join(f"{name} {given[name]}" for name in filters)
                out.note(f"Nothing found on {where} with {asked}.")
                out.note(f"Leave out {' or '.join(filters)}, or name another hub with --hub.")
            else:
                out.note(f"Nothing found on {where}.\nName another hub with --hub.")
            return
        rows = [
            [
                module["ref"],
                module["version"] or "–",
                percent(module["recall"]),
                percent(module["at_least"]),
                shown_to(module["sample"]),
                module["license"] or "–",
                module["dataset"] or "–",
            ]
            for module in found
        ]
        columns = ["module", "release", "recall", "balanced ≥", "measured on"]
        out.table([*columns, "licence", "data set"], rows, right=(2, 3))

    out.emit(answer, human=human, quiet=[module["ref"] for module in found])
    if found:
        out.next(f"modhub pull {shlex.quote(found[0]['ref'])}", asks_hub=True)
