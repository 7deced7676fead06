"""modhub pull"""

from __future__ import annotations

from pathlib import Path

import click

from modhub.formatting import size
from modhub_cli.options import hub_option, large_option, offline_option, reporting
from modhub_cli.output import Out


@click.command("pull", short_help="Download modules to the cache or a directory.")
@click.argument("refs", metavar="REF…", nargs=-1, required=True)
@click.option(
    "-o",
    "--out",
    "target",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also copy the modules to this directory.",
)
@click.option("--force", is_flag=True, help="Replace that directory.")
@hub_option
@offline_option
@large_option
@reporting
def command(
    refs: tuple[str, ...], target: Path | None, force: bool, hub: str | None, offline: bool, out: Out
) -> None:
    """Download modules by name. Cached files are not downloaded again; every file is verified.

    REF is namespace/name[/label][>=1.2,<2 | @revision], or a bare label, which is resolved among your own
    namespaces and those of MODHUB_TRUSTED.

    \b
    Example: modhub pull "vision-lab/resnet20-cifar10/cat>=1,<2"
    """
    from modhub.api.pull import pull

    pulled = pull(refs, out=target, force=force, hub=hub, offline=offline, reporter=out.reporter())

    def human() -> None:
        for module in pulled.modules:
            out.line(
                f"{module.repository}/{module.label} {module.version or module.commit[:12]}: "
                f"{size(module.bytes)}"
            )
        out.note(f"{size(pulled.downloaded_bytes)} downloaded, {size(pulled.cached_bytes)} cached")

    out.emit(pulled.to_dict(), human=human, quiet=[str(module.path) for module in pulled.modules])
