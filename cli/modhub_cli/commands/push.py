"""modhub push"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from modhub.formatting import size
from modhub_cli.options import hub_option, large_option, reporting
from modhub_cli.output import Out, many


@click.command("push", short_help="Publish modules as a release of a repository.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.argument("repository")
@click.option("--version", required=True, help="Version of the release (PEP 440), such as 1.0.0.")
@click.option("--private", is_flag=True, help="Create the repository as private.")
@click.option(
    "--form",
    type=click.Choice(["as-is", "standalone"]),
    default="as-is",
    show_default=True,
    help="standalone: publish each module with a separate copy of its channels, without the trunk.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Publish even if no class is in common with the previous release.",
)
@hub_option
@large_option
@reporting
def command(directory: Path, repository: str, form: str, out: Out, **options: Any) -> None:
    """Publish the modules in DIRECTORY, written by `modhub decompose`, as a release of REPOSITORY.

    The upload is atomic: one commit and one tag. Releases are immutable; yank a release that is wrong.

    \b
    Example: modhub push out/r20 vision-lab/resnet20-cifar10 --version 1.0.0
    """
    from modhub.api.push import push

    with ExitStack() as stack:
        if form == "standalone":
            from modhub.api.decompose import write_standalone

            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="modhub-"))
            source, directory = directory, Path(scratch) / "standalone"
            write_standalone(source, directory)
        report = push(directory, repository, reporter=out.reporter(), **options)

    def human() -> None:
        if report.existed:
            restored = f"; {size(report.bytes)} of lost contents restored" if report.bytes else ""
            out.line(f"{report.repository} {report.version} already exists with the same files{restored}")
            return
        out.line(
            f"{report.repository} {report.version}: {many(report.modules, 'module', 'modules')}, "
            f"{size(report.bytes)}, commit {report.commit[:12]} on {report.hub}"
        )

    out.emit(report.to_dict(), human=human, quiet=[report.commit])
    out.next(f"modhub info {report.repository}", asks_hub=True)
