"""modhub demo"""

from __future__ import annotations

from pathlib import Path

import click

from modhub_cli.options import reporting
from modhub_cli.output import Out, styled

__all__ = ["command"]


@click.command("demo", short_help="The whole story on real handwritten digits, in under a minute.")
@click.option(
    "-o",
    "--out",
    "target",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-out"),
    show_default=True,
    help="Where to.",
)
@click.option("--force", is_flag=True, help="Replace what is in the target directory, whatever it is.")
@reporting
def command(target: Path, force: bool, out: Out) -> None:
    """Train two small networks on handwritten digits, decompose them, publish, pull, compose and measure.

    Shows each step with the commands you would type, and writes one HTML report whose path it prints last.
    Everything stays inside the target directory, its hub (a folder) included.

    Example: modhub demo
    """
    from modhub.demo import REPORT_NAME, Story, tell, write_report
    from modhub.files import new_directory

    again = (target / REPORT_NAME).is_file()
    story = Story()
    with new_directory(target, force=force or again) as root:
        for number, step in enumerate(tell(root, story, out.reporter()), 1):
            if out.mode == "human":
                out.line(f"{styled(f'{number}. {step.title}.', bold=True)} {step.sentence}")
                for line in step.commands:
                    out.line(styled(f"   $ {line}", dim=True))
        write_report(root / REPORT_NAME, story)
    path = target / REPORT_NAME

    def human() -> None:
        hub = target.resolve() / "hub"
        out.line(f"{story.seconds:.0f} s. Go on where it stopped: export MODHUB_HUB={hub}")
        out.line(f"{path}")

    out.emit({**story.to_dict(), "report": str(path)}, human=human, quiet=[str(path)])
