"""modhub info"""

from __future__ import annotations

import click

from modhub.formatting import count, percent, size
from modhub_cli.options import hub_option, offline_option, reporting
from modhub_cli.output import Out, measured_here, shown_to


@click.command("info", short_help="Show the metadata of a repository or a module.")
@click.argument("ref")
@hub_option
@offline_option
@reporting
def command(ref: str, hub: str | None, offline: bool, out: Out) -> None:
    """Show the metadata of a repository (namespace/name) or a module (namespace/name/label).

    'measured here' is the balanced accuracy that was measured on this machine. Recall, precision, balanced
    accuracy and that of the parent are what the publisher claims; 'claimed on' is the split and the number of
    images of the class.

    \b
    Example: modhub info vision-lab/resnet20-cifar10/cat
    """
    from modhub.api.info import info

    release = info(ref, hub=hub, offline=offline)

    def human() -> None:
        out.facts(
            {
                "repository": release.repository,
                "release": f"{release.version or 'unreleased'} ({release.commit[:12]})",
                "yanked": "" if release.yanked is None else release.yanked or "no reason given",
                "parent": f"{release.parent.name} ({release.parent.architecture})",
                "data set": release.parent.dataset or "",
                "licence": release.license or "not stated",
                "method": release.method.name,
                "input": f"{release.input.channels} × {release.input.height} × {release.input.width}",
            }
        )
        rows = [
            [
                module.label,
                percent(module.kept_channels_fraction),
                measured_here(module.measured),
                percent(module.metrics.get("recall")),
                percent(module.metrics.get("precision")),
                percent(module.metrics.get("balanced_accuracy")),
                percent(module.metrics.get("parent_balanced_accuracy")),
                shown_to(module.sample),
                size(module.bytes),
            ]
            for module in release.modules
        ]
        claims = ["claimed recall", "precision", "balanced", "parent's", "claimed on"]
        columns = ["module", "channels kept", "measured here", *claims, "size"]
        out.table(columns, rows, right=(1, 2, 3, 4, 5, 6, 8))
        trunk = release.trunk
        if trunk is not None:
            out.line(
                f"trunk {trunk.sha256[:12]}: claimed {count(trunk.parameters)} parameters, "
                f"{count(trunk.flops)} multiply-adds per image, {size(trunk.bytes)}"
            )
        if release.energy is not None:
            out.line(f"decomposed in {release.energy}")

    out.emit(release.to_dict(), human=human, quiet=[module.label for module in release.modules])
