"""modhub login"""

from __future__ import annotations

import sys

import click

from modhub_cli.options import reporting
from modhub_cli.output import Out


@click.command("login", short_help="Keep the access token of a hub.")
@click.argument("hub", metavar="HUB")
@reporting
def command(hub: str, out: Out) -> None:
    """Keep the access token of the hub at the address HUB. It is sent to that hub only.

    The token is asked for, or read from standard input. It is stored in a file that only you can read.

    \b
    Example: modhub login https://hub.example.org
    """
    from modhub.api.login import login

    terminal = sys.stdin.isatty()
    token = click.prompt("Token", hide_input=True, err=True) if terminal else sys.stdin.readline()
    report = login(hub, token.strip())
    out.emit(report.to_dict(), human=lambda: out.note(f"The token of {hub} is stored."), quiet=[hub])
