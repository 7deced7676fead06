"""Install the clients that tests/server/test_clients.py tries besides the one it runs with.

    python tests/clients/build.py DIR        then: MODHUB_CLIENTS=DIR pytest tests/server/test_clients.py

Needs the network, and npm for the JavaScript client; git-lfs comes with the system.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

PYTHON = {
    "huggingface_hub 2.4.0 without hf_xet": (["huggingface_hub==2.4.0"], ["hf_xet"]),
    "huggingface_hub 1.33.0": (["huggingface_hub==1.33.0", "hf_xet"], []),
    "huggingface_hub 0.36.2": (["huggingface_hub==0.36.2", "hf_xet"], []),
}
"""Name in the table → what to install and what to take out again."""
JAVASCRIPT = "@huggingface/hub"


def folder_of(name: str) -> str:
    """The folder of a client below DIR."""
    return name.replace(" ", "-").replace("/", "-").strip("@")


def main() -> None:
    root = Path(sys.argv[1])
    for name, (wanted, unwanted) in PYTHON.items():
        folder = root / folder_of(name)
        if not folder.exists():
            venv.create(folder, with_pip=True)
            pip = [str(folder / "bin" / "python"), "-m", "pip", "-q"]
            subprocess.run([*pip, "install", *wanted], check=True)
            if unwanted:
                subprocess.run([*pip, "uninstall", "-y", *unwanted], check=True)
    folder = root / folder_of(JAVASCRIPT)
    if not folder.exists():
        folder.mkdir(parents=True)
        subprocess.run(["npm", "init", "-y"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["npm", "install", "--silent", JAVASCRIPT], cwd=folder, check=True)


if __name__ == "__main__":
    main()
