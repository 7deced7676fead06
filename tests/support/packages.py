"""Packages as an installer leaves them, made without one: a folder to put on the path."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "modhub-activity"
ACTIVITY = EXAMPLE / "modhub_activity.py"


def install(place: Path, project: Path) -> Path:
    """The project of one-file modules in `project`, as its pyproject.toml says, into the folder `place`."""
    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    built = about["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    sources = {name: (project / name).read_text(encoding="utf-8") for name in built}
    name, version = about["project"]["name"], about["project"]["version"]
    points = about["project"]["entry-points"]["modhub.methods"]
    return put_package(place, name, points, sources, version=version)


def put_package(
    place: Path,
    name: str,
    points: Mapping[str, str],
    sources: Mapping[str, str],
    *,
    version: str = "1.0",
) -> Path:
    """A package of these files, with entry points of the group modhub.methods."""
    about = place / f"{name.replace('-', '_')}-{version}.dist-info"
    shutil.rmtree(about, ignore_errors=True)
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = ["[modhub.methods]", *(f"{point} = {value}" for point, value in points.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for path, text in sources.items():
        (place / path).write_text(text, encoding="utf-8")
    return place
