"""modhub verify"""

from __future__ import annotations

import click

from modhub_cli.options import hub_option, large_option, offline_option, reporting
from modhub_cli.output import Out, many


@click.command("verify", short_help="Verify a release, a directory of modules or a build.")
@click.argument("target", metavar="REF|DIR")
@click.option(
    "--networks",
    is_flag=True,
    help="Also build the networks, check their memory and work, and count their costs (needs torch).",
)
@hub_option
@offline_option
@large_option
@reporting
def command(target: str, networks: bool, hub: str | None, offline: bool, out: Out) -> None:
    """Verify modules or a build against their manifests.

    Modules: size and sha256 of every file named in modhub.json, and that modhub.json agrees with the
    module.json of each module.

    Builds: size and sha256 of every network and of the heads, and that they load; that modhub.toml,
    modhub.lock and options.json are valid and match its classes; that the manifests in modules/ are those
    named in modhub.lock. README.md is not checked.

    \b
    Example: modhub verify out/r20
    """
    from modhub.api.verify import verify

    report = verify(target, networks=networks, hub=hub, offline=offline, reporter=out.reporter())
    out.emit(
        report.to_dict(),
        human=lambda: out.line(
            f"{target}: verified {many(report.files, 'file', 'files')} and "
            f"{many(report.modules, 'module', 'modules')}"
        ),
    )
