"""Write the table of docs/hub.md from what tests/server/test_clients.py saw.

MODHUB_CLIENT_RESULTS=FILE pytest tests/server/test_clients.py && python tests/clients/table.py FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

BEGIN, END = "<!-- clients: begin -->", "<!-- clients: end -->"


def table(results: dict[str, dict[str, str]]) -> str:
    """Markdown; a step that a client was not asked for is left blank."""
    steps = list(dict.fromkeys(step for steps in results.values() for step in steps))
    lines = [f"| | {' | '.join(results)} |", f"|---|{'---|' * len(results)}"]
    for step in steps:
        cells = [{"ok": "yes", None: ""}.get(found.get(step), "no") for found in results.values()]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    results = json.loads(Path(sys.argv[1]).read_text())
    page = Path(__file__).parents[3] / "docs" / "hub.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}")


if __name__ == "__main__":
    main()
