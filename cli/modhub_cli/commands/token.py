"""modhub token create|list|revoke"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modhub_cli.options import reporting, root_option
from modhub_cli.output import Out

if TYPE_CHECKING:
    from modhub.server.auth.accounts import Token


@click.group("token", short_help="Manage the access tokens of a hub.")
def command() -> None:
    """Manage the access tokens of a hub. Works on the hub's directory, whether the server runs or not.

    \b
    Example: modhub token list --root /srv/hub
    """


@command.command("create", short_help="Create a token.")
@root_option
@click.option("--user", required=True, metavar="NAME", help="User the token belongs to.")
@click.option(
    "--org",
    "organisations",
    multiple=True,
    metavar="NAME",
    help="Organisation the user belongs to. Repeatable.",
)
@click.option(
    "--role",
    type=click.Choice(["read", "write", "admin"]),
    default="write",
    show_default=True,
    help="Permissions of the token.",
)
@click.option("--expires", metavar="DURATION", help="Lifetime: 90d, 12h or 30m. Default: unlimited.")
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
    """Create a token for a user and print it. It is shown only once: the hub stores its digest.

    \b
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
    expiry = f"expires {token.expires}" if token.expires else "does not expire"
    out.note(
        f"Token {token.id} of {token.user} ({role}) for the hub in '{folder}' {expiry}. "
        "It is not shown again."
    )


@command.command("list", short_help="List the tokens.")
@root_option
@reporting
def show(root: Path | None, out: Out) -> None:
    """List all tokens, without their values. The time of the last use is up to ten minutes early.

    \b
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
        def moment(text: str | None) -> str:
            return "–" if text is None else text[:16].replace("T", " ")

        cells = [
            [
                row["id"],
                row["user"],
                row["role"],
                *(moment(row[name]) for name in ("revoked", "expires", "last_used", "created")),
                ", ".join(row["organisations"]) or "–",
            ]
            for row in rows
        ]
        columns = ["id", "user", "role", "revoked", "expires", "last used", "created", "organisations"]
        out.table(columns, cells)

    out.emit(rows, human=human, quiet=[str(row["id"]) for row in rows])


@command.command("revoke", short_help="Revoke a token.")
@click.argument("token", metavar="ID|TOKEN")
@root_option
@reporting
def revoke(token: str, root: Path | None, out: Out) -> None:
    """Revoke a token by its id (see 'modhub token list') or its value, permanently and at once.

    \b
    Example: modhub token revoke 1f2e3d4c --root /srv/hub
    """
    from modhub.server.auth.accounts import Accounts
    from modhub.server.launch import store_root

    revoked = Accounts(store_root(root, begin=False)).revoke(token)
    out.emit(_document(revoked), human=lambda: out.line(f"Token {revoked.id} of {revoked.user} is revoked."))


def _document(token: Token) -> dict[str, Any]:
    """The JSON document of a token; a time that does not apply is null."""
    return {name: text or None for name, text in token.shown().items()}
