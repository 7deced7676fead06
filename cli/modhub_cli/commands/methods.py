"""modhub methods"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from modhub_cli.options import reporting
from modhub_cli.output import Out

if TYPE_CHECKING:
    from modhub.decomposition.method_options import MethodOption


@click.command("methods", short_help="List the decomposition methods, what each needs, and its options.")
@click.argument("name", required=False)
@reporting
def command(name: str | None, out: Out) -> None:
    """List the methods that decompose takes with --method, or show the paper and the options of NAME.

    Those of installed packages are listed too; docs/writing-a-method.md says how to write one.

    \b
    Example: modhub methods activation
    """
    from modhub.api.methods import methods
    from modhub.errors import NotFoundError

    # A package may print when it is imported; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        report = methods()
    for sentence in report.unusable:
        out.reporter().warn(sentence)
    names = [method.name for method in report.methods]
    if name is not None and name not in names:
        raise NotFoundError(f"There is no method '{name}'.", hint=f"There are: {', '.join(names)}.")
    shown = [method for method in report.methods if name in (None, method.name)]

    def human() -> None:
        if name is None:
            rows = [[method.name, method.summary, ", ".join(method.needs)] for method in shown]
            out.table(["method", "what it does", "needs"], rows)
            out.next("modhub methods NAME")
            return
        (method,) = shown
        paper = " ".join(part for part in (method.citation, method.url or method.paper) if part)
        out.line(method.summary)
        out.facts(
            {
                "paper": paper,
                "needs": ", ".join(method.needs),
                "cost": method.cost or "",
                "package": method.package,
            }
        )
        if method.options:
            out.line()
            out.facts({_setting(each): each.description or each.type for each in method.options})

    document = report.to_dict()
    document["methods"] = [method.to_dict() for method in shown]
    out.emit(document, human=human, quiet=[method.name for method in shown])


def _setting(option: MethodOption) -> str:
    """With its default, as --method-option takes it."""
    if option.default is None:
        return option.name
    value = str(option.default)
    return f"{option.name}={value.lower() if isinstance(option.default, bool) else value}"
