"""modhub verify"""

from __future__ import annotations

import click

from modhub_cli.options import hub_option, offline_option, reporting
from modhub_cli.output import Out, many

__all__ = ["command"]


@click.command("verify", short_help="Check that a release, a directory or a build is whole.")
@click.argument("target", metavar="REF|DIR")
@hub_option
@offline_option
@reporting
def command(target: str, hub: str | None, offline: bool, out: Out) -> None:
    """Check that modules or a build are what their manifests promise.

    Of modules: size and sha256 of every file that modhub.json names, and that it says the same of each
    module as its module.json.

    Of a build: size and sha256 of every network and of the heads, and that they load; that modhub.toml,
    modhub.lock and options.json can be read and belong to its classes; and that the manifests in modules/
    are those that modhub.lock names. Its README.md is for people and is not checked.

    Example: modhub verify out/r20
    """
    from modhub.api.verifying import verify

    report = verify(target, hub=hub, offline=offline, reporter=out.reporter())
    out.emit(
        report,
        human=lambda: out.line(
            f"{target}: {many(report['files'], 'file', 'files')} and "
            f"{many(report['modules'], 'module', 'modules')}, all whole"
        ),
    )
