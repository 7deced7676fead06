"""modhub versions"""

from __future__ import annotations

import click

from modhub_cli.options import hub_option, offline_option, reporting
from modhub_cli.output import Out


@click.command("versions", short_help="List the releases of a repository.")
@click.argument("repository")
@hub_option
@offline_option
@reporting
def command(repository: str, hub: str | None, offline: bool, out: Out) -> None:
    """List the releases of a repository, newest first, including yanked ones.

    \b
    Example: modhub versions vision-lab/resnet20-cifar10
    """
    from modhub.api.versions import versions

    releases = versions(repository, hub=hub, offline=offline)

    def human() -> None:
        for release in releases:
            yanked = "" if release.yanked is None else f"  yanked: {release.yanked or 'no reason given'}"
            out.line(f"{release.version}  {release.commit[:12]}{yanked}")
        if not releases:
            out.note(f"'{repository}' has no releases.")

    out.emit(
        releases.to_dict(),
        human=human,
        quiet=[release.version for release in releases],
    )
