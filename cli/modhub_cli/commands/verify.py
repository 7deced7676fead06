"""modhub verify"""

from __future__ import annotations

import click

from modhub_cli.options import hub_option, offline_option, reporting
from modhub_cli.output import Out

__all__ = ["command"]


@click.command("verify", short_help="Check every byte of a release, a directory or a build.")
@click.argument("target", metavar="REF|DIR")
@hub_option
@offline_option
@reporting
def command(target: str, hub: str | None, offline: bool, out: Out) -> None:
    """Check size and sha256 of every file that the manifests name, and that the manifests agree.

    Example: modhub verify out/r20
    """
    from modhub.api.verifying import verify

    report = verify(target, hub=hub, offline=offline, reporter=out.reporter())
    out.emit(
        report,
        human=lambda: out.line(
            f"{target}: {report['files']} files and {report['modules']} modules are whole"
        ),
    )
