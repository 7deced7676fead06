"""modhub search"""

from __future__ import annotations

import shlex
from typing import Any

import click

from modhub.formatting import percent
from modhub_cli.options import hub_option, offline_option, reporting
from modhub_cli.output import Out, measured_here, shown_to

_DIGITS = 12
_FILTERS = ("license", "dataset", "architecture", "trunk", "text")


@click.command("search", short_help="Find modules by class.")
@click.argument("labels", metavar="[LABEL…]", nargs=-1)
@click.option("--license", default="", help="Only modules under this licence.")
@click.option("--dataset", default="", help="Only modules of parents trained on this data set.")
@click.option("--architecture", default="", help="Only modules of parents with this architecture.")
@click.option(
    "--trunk",
    default="",
    metavar="PARENT|DIGEST",
    help="Only modules on this trunk: eight digits of its digest, a directory of modules, or a parent such "
    "as timm:resnet50.",
)
@click.option("--text", default="", help="Only repositories whose name or tags contain these words.")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="Maximum number of modules."
)
@hub_option
@offline_option
@reporting
def command(labels: tuple[str, ...], hub: str | None, out: Out, **options: Any) -> None:
    """Find modules for any of the LABELs (default: all modules), best first.

    'measured here' is what 'modhub decompose' or 'modhub evaluate' measured on this machine; such modules
    come first. Everything else is what the publisher claims: figures of a test split rank before those of
    images that the parent may have been trained on, then by the lower confidence bound of the balanced
    accuracy. '≥' marks that bound; of training images the figure itself is shown, which is too high. In
    brackets and under 'claimed on' are the split and the number of images of the class.

    \b
    Example: modhub search cat dog --license mit
    """
    from modhub.api.search import search
    from modhub.hub import open_hub
    from modhub.manifest import shown_bound

    answer = search(labels, hub=hub, reporter=out.reporter(), **options)
    modules = answer.modules
    filters = {f"--{name}": options[name] for name in _FILTERS if options[name]}

    def human() -> None:
        for label, names in answer.nearest.items():
            out.note(f"No class '{label}'. Similar: {', '.join(names)}.")
        if not modules:
            where = open_hub(hub).address
            if filters:
                conditions = " and ".join(f"{name} {text}" for name, text in filters.items())
                out.note(f"No modules found on {where} with {conditions}.")
                out.note(f"Remove {' or '.join(filters)}, or choose another hub with --hub.")
            else:
                out.note(f"No modules found on {where}.\nChoose another hub with --hub.")
            return
        rows = [
            [
                module.ref,
                measured_here(module.measured),
                percent(module.recall),
                shown_bound(module.metrics, module.sample),
                shown_to(module.sample),
                module.version or "–",
                module.license or "–",
                module.dataset or "–",
            ]
            for module in modules
        ]
        claims = ["claimed recall", "claimed balanced accuracy", "claimed on"]
        columns = ["module", "measured here", *claims, "release", "licence", "data set"]
        out.table(columns, rows, right=(1, 2, 3))
        trunks = list(dict.fromkeys(module.trunk[:_DIGITS] for module in modules))
        if options["trunk"] and len(trunks) > 1:
            out.note(f"They stand on {len(trunks)} trunks, name one with --trunk: {', '.join(trunks)}")

    out.emit(answer.to_dict(), human=human, quiet=[module.ref for module in modules])
    if modules:
        out.next(f"modhub pull {shlex.quote(modules[0].ref)}", asks_hub=True)
