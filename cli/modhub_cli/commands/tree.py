"""modhub tree"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from modhub_cli.options import reporting
from modhub_cli.output import Out


@click.command("tree", short_help="Show the locked modules by trunk.")
@reporting
def command(out: Out) -> None:
    """Show the modules of modhub.lock by trunk. Each trunk is one pass per image.

    \b
    Example: modhub tree
    """
    from modhub.api.project_files import current_lock, read_project

    lock, name = current_lock(Path()), read_project(Path()).name
    trunks: list[dict[str, Any]] = [
        {
            "sha256": sha256,
            "repository": str(locked[0].repository),
            "modules": [
                {
                    "label": module.want.label,
                    "ref": module.want.text,
                    "repository": str(module.repository),
                    "version": None if module.version is None else str(module.version),
                    "module": module.module,
                }
                for module in lock.modules
                if module.trunk == sha256
            ],
        }
        for sha256, locked in lock.passes.items()
    ]

    def human() -> None:
        out.line(name)
        for trunk in trunks:
            last_trunk = trunk is trunks[-1]
            out.line(f"{'└' if last_trunk else '├'}── trunk {trunk['sha256'][:12]} ({trunk['repository']})")
            for module in trunk["modules"]:
                branch = "└" if module is trunk["modules"][-1] else "├"
                release = f"{module['repository']}/{module['module']} {module['version'] or 'unreleased'}"
                out.line(f"{' ' if last_trunk else '│'}   {branch}── {module['label']} = {release}")

    out.emit({"name": name, "passes": len(trunks), "trunks": trunks}, human=human)
