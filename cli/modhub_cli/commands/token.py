"""modhub token create|list|revoke"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modhub_cli.options import reporting, root_option
from modhub_cli.output import Out

if TYPE_CHECKING:
    from modhub.server.auth.accounts import Token

__all__ = ["command"]


@click.group("token", short_help="Say who may use your hub.")
def command() -> None:
    """Tokens of a hub's users. Works on the store's folder, whether the server runs or not.

    Example: modhub token list --root /srv/hub
    """


@command.command("create", short_help="Make a token.")
@root_option
@click.option("--user", required=True, metavar="NAME", help="Whom it speaks for.")
@click.option(
    "--org", "organisations", multiple=True, metavar="NAME", help="An organisation the user belongs to."
)
@click.option("--role", type=click.Choice(["read", "write", "admin"]), default="write", show_default=True)
@click.option("--expires", metavar="DURATION", help="90d, 12h, 30m. Default: never.")
@click.option("--value", metavar="TOKEN", help="Use this token instead of a random one.")
@reporting
def create(
    root: Path | None,
    user: str,
    organisations: tuple[str, ...],
    role: str,
    expires: str | None,
    value: str | None,
    out: Out,
) -> None:
    """Make a token for a user and print it. It is shown this once: the hub keeps its digest only.

    Example: modhub token create --user alice --org vision-lab --role write --expires 90d
    """
    from modhub.server.auth.accounts import Accounts, parse_expiry
    from modhub.server.launch import store_root

    folder = store_root(root)
    token, secret = Accounts(folder).create_token(
        user,
        organisations=organisations,
        role=role,
        expires=None if expires is None else parse_expiry(expires),
        value=value,
    )
    document = {**_document(token), "organisations": list(organisations), "token": secret}
    out.emit(document, human=lambda: out.line(secret), quiet=[secret])
    until = f"until {token.expires}" if token.expires else "without end"
    out.note(
        f"Token {token.id} of {token.user} ({role}) for the hub in '{folder}' is good {until}. "
        "It is not shown again."
    )


@command.command("list", short_help="Show the tokens.")
@root_option
@reporting
def show(root: Path | None, out: Out) -> None:
    """Show all tokens, without the tokens themselves. The time of the last use may be ten minutes early.

    Example: modhub token list --root /srv/hub
    """
    from modhub.server.auth.accounts import Accounts
    from modhub.server.launch import store_root

    accounts = Accounts(store_root(root, begin=False))
    rows = [
        {
            **_document(token),
            "last_used": accounts.last_used(token) or None,
            "organisations": list(accounts.organisations_of(token.user)),
        }
        for token in accounts.tokens()
    ]

    def human() -> None:
        moments = ["created", "last_used", "expires", "revoked"]
        cells = [
            [str(row["id"]), str(row["user"]), ", ".join(row["organisations"]) or "–", str(row["role"])]
            + [(row[name] or "–")[:16].replace("T", " ") for name in moments]
            for row in rows
        ]
        columns = ["id", "user", "organisations", "role", *(name.replace("_", " ") for name in moments)]
        out.table(columns, cells)

    out.emit(rows, human=human, quiet=[str(row["id"]) for row in rows])


@command.command("revoke", short_help="Close a token for good.")
@click.argument("token", metavar="ID|TOKEN")
@root_option
@reporting
def revoke(token: str, root: Path | None, out: Out) -> None:
    """Close the token with this id (see 'modhub token list'), or this token itself. It works at once.

    Example: modhub token revoke 1f2e3d4c --root /srv/hub
    """
    from modhub.server.auth.accounts import Accounts
    from modhub.server.launch import store_root

    revoked = Accounts(store_root(root, begin=False)).revoke(token)
    out.emit(_document(revoked), human=lambda: out.line(f"Token {revoked.id} of {revoked.user} is closed."))


def _document(token: Token) -> dict[str, Any]:
    """What scripts read of a token: a moment that has not come, or never does, is no text."""
    return {name: text or None for name, text in token.shown().items()}
