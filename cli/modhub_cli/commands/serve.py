"""modhub serve"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import click

from modhub_cli.options import root_option
from modhub_cli.output import Out


@click.command("serve", short_help="Serve a hub over HTTP.")
@root_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 selects a free port.",
)
@click.option("--read-only", is_flag=True, help="Reject all writes.")
@click.option(
    "--public-url",
    default="",
    metavar="URL",
    help="URL of the server as clients see it, if it is behind a proxy.",
)
@click.option(
    "--upstream",
    default="",
    metavar="HUB",
    help="Mirror 'hf' or another endpoint: download files from it that are missing here.",
)
@click.option(
    "--mirror",
    "mirrored",
    multiple=True,
    metavar="PATTERN",
    help="Repositories to mirror, such as 'vision-lab/*'; repeatable. All by default.",
)
@click.option(
    "--upstream-host",
    "upstream_hosts",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Another host that the upstream may redirect to; repeatable.",
)
@click.option(
    "--private-organisation",
    "private_organisations",
    multiple=True,
    metavar="NAME",
    help="An organisation whose new repositories are private unless asked for as public; repeatable.",
)
@click.option(
    "--log-level",
    type=click.Choice(["warning", "info", "debug"]),
    default="warning",
    show_default=True,
    help="Lowest level of messages to log.",
)
def command(
    root: Path | None,
    host: str,
    port: int,
    read_only: bool,
    upstream: str,
    mirrored: tuple[str, ...],
    log_level: str,
    **settings: Any,
) -> None:
    """Serve the repositories in a directory to modhub, Hugging Face clients and browsers.

    The first start creates an admin token and prints it once, unless tokens exist. The directory may already
    hold repositories. A mirror (--upstream) serves everything that its own HF_TOKEN can read to everybody.

    \b
    Example: modhub serve --root /srv/hub --host 0.0.0.0 --port 8000
    """
    from modhub.server.http.state import Options
    from modhub.server.launch import connection_limits, first_token, serve, store_root

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    out = Out()
    folder = store_root(root)
    options = Options(
        read_only=read_only,
        upstream=upstream,
        mirrored=mirrored or ("*/*",),
        upstream_token=os.environ.get("HF_TOKEN") if upstream else None,
        **settings,
    )
    value = first_token(folder, read_only=read_only)
    if value is not None:
        # Before anything can fail: the token cannot be read again.
        out.note(f"Admin token, shown only once: {value}")

    def started(address: str) -> None:
        out.line(address)
        out.note(f"Serving {folder}. Press Ctrl-C to stop.")
        out.note(connection_limits())
        out.note(f"modhub: export MODHUB_HUB={address}")
        out.note(f"Hugging Face clients: export HF_ENDPOINT={address}")

    serve(folder, host=host, port=port, options=options, started=started)
    out.note("Stopped.")
