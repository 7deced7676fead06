"""modhub demo"""

from __future__ import annotations

from pathlib import Path

import click

from modhub_cli.options import reporting
from modhub_cli.output import Out
from modhub_cli.terminal import styled


@click.command("demo", short_help="Run the complete workflow on handwritten digits in under a minute.")
@click.option(
    "-o",
    "--out",
    "target",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-out"),
    show_default=True,
    help="Output directory.",
)
@click.option("--force", is_flag=True, help="Replace the output directory, whatever it holds.")
@reporting
def command(target: Path, force: bool, out: Out) -> None:
    """Train two small networks on handwritten digits; decompose, publish, pull, compose and measure them.

    Prints each step with the equivalent commands, writes an HTML report and prints its path last. All files
    are written to the output directory, including the hub.

    \b
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
        out.line(f"Finished in {story.seconds:.0f} s. To use the hub of the demo: export MODHUB_HUB={hub}")
        out.line(f"{path}")

    out.emit({**story.to_dict(), "report": str(path)}, human=human, quiet=[str(path)])
