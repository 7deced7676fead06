"""modhub logout"""

from __future__ import annotations

import click

from modhub_cli.options import reporting
from modhub_cli.output import Out


@click.command("logout", short_help="Forget the access token of a hub.")
@click.argument("hub", metavar="HUB")
@reporting
def command(hub: str, out: Out) -> None:
    """Forget the access token that 'modhub login' stored for the hub at the address HUB.

    \b
    Example: modhub logout https://hub.example.org
    """
    from modhub.api.login import logout

    report = logout(hub)
    out.emit(report.to_dict(), human=lambda: out.note(f"The token of {hub} is forgotten."), quiet=[hub])
