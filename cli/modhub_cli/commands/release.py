"""modhub release remove"""

from __future__ import annotations

from pathlib import Path

import click

from modhub_cli.options import reporting, root_option
from modhub_cli.output import Out


@click.group("release", short_help="Remove a release from a hub for good.")
def command() -> None:
    """Administer the releases of a hub. Works on the hub's directory, whether the server runs or not.

    \b
    Example: modhub release remove vision-lab/resnet20-cifar10==1.0.0 --force --root /srv/hub
    """


@command.command("remove", short_help="Remove a release for good.")
@click.argument("ref", metavar="REPOSITORY==VERSION")
@click.option("--force", is_flag=True, help="Remove it although locks that pin it break.")
@root_option
@reporting
def remove(ref: str, force: bool, root: Path | None, out: Out) -> None:
    """Remove a release for good, and enter that in the audit log. 'modhub yank' is enough in most cases.

    The version cannot be published again with other files. The next 'modhub gc' removes the release's files,
    except those that a branch has.

    \b
    Example: modhub release remove vision-lab/resnet20-cifar10==1.0.0 --force --root /srv/hub
    """
    from modhub.api.release import remove_release

    removed = remove_release(ref, root=root, force=force)
    out.emit(
        removed.to_dict(),
        human=lambda: out.line(f"Release {removed.version} of {removed.repository} is removed."),
    )
