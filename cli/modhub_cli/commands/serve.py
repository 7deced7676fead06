"""modhub serve"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import click

from modhub_cli.options import root_option
from modhub_cli.output import Out

__all__ = ["command"]


@click.command("serve", short_help="Run a hub for others.")
@root_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@click.option("--read-only", is_flag=True, help="Refuse every change.")
@click.option(
    "--public-url",
    default="",
    metavar="URL",
    help="The address clients see, behind a proxy that rewrites it.",
)
@click.option(
    "--upstream",
    default="",
    metavar="HUB",
    help="Mirror 'hf' or another endpoint: fetch from it what is not here.",
)
@click.option(
    "--log-level", type=click.Choice(["warning", "info", "debug"]), default="warning", show_default=True
)
def command(
    root: Path | None,
    host: str,
    port: int,
    read_only: bool,
    public_url: str,
    upstream: str,
    log_level: str,
) -> None:
    """Serve the repositories in a folder to modhub, any Hugging Face client, and browsers.

    The first start makes an admin token and prints it once, unless there are tokens already. Everything in
    the folder is there at once, whatever was pushed to it before. A mirror (--upstream) shows everybody what
    its own HF_TOKEN may read.

    Example: modhub serve --root /srv/hub --host 0.0.0.0 --port 8000
    """
    from modhub.server.http.state import Options
    from modhub.server.launch import first_token, serve, store_root

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    out = Out()
    folder = store_root(root)
    options = Options(
        read_only=read_only,
        public_url=public_url,
        upstream=upstream,
        upstream_token=os.environ.get("HF_TOKEN") if upstream else None,
    )
    value = first_token(folder, read_only=read_only)
    if value is not None:
        # Before anything can fail: nobody could get it afterwards.
        out.note(f"The admin token, shown this once: {value}")

    def started(address: str) -> None:
        out.line(address)
        out.note(f"Serving {folder}. Stop it with Ctrl-C.")
        out.note(f"Clients: export MODHUB_HUB={address}, and HF_ENDPOINT={address} for others than modhub")

    serve(folder, host=host, port=port, options=options, started=started)
    out.note("Stopped.")
