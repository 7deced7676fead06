"""Install the clients that tests/server/test_clients.py tries besides the one it runs with.

    python tests/server/clients/build.py DIR [--python]
    MODHUB_CLIENTS=DIR pytest tests/server/test_clients.py

Needs the network, and npm for the JavaScript client (left out with --python); git-lfs comes with the system.
uv makes the environments where there is one, else venv and pip.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

PYTHON = {
    "huggingface_hub 2.4.0 without hf_xet": (["huggingface_hub==2.4.0"], ["hf_xet"]),
    "huggingface_hub 1.33.0": (["huggingface_hub==1.33.0", "hf_xet"], []),
    "huggingface_hub 1.8.0": (["huggingface_hub==1.8.0", "hf_xet", "click"], []),
    "huggingface_hub 0.36.2": (["huggingface_hub==0.36.2", "hf_xet"], []),
}
"""Name in the table → what to install and what to take out again."""
JAVASCRIPT = "@huggingface/hub"


def folder_of(name: str) -> str:
    """The folder of a client below DIR."""
    return name.replace(" ", "-").replace("/", "-").strip("@")


def install(folder: Path, wanted: list[str], unwanted: list[str]) -> None:
    program = str(folder / "bin" / "python")
    if shutil.which("uv"):
        subprocess.run(["uv", "venv", "-q", str(folder), "--python", sys.executable], check=True)
        pip = ["uv", "pip"]
        target = ["--python", program]
    else:
        venv.create(folder, with_pip=True)
        pip, target = [program, "-m", "pip"], []
    subprocess.run([*pip, "install", "-q", *target, *wanted], check=True)
    if unwanted:
        confirmed = [] if target else ["-y"]
        subprocess.run([*pip, "uninstall", "-q", *target, *confirmed, *unwanted], check=True)


def main() -> None:
    root = Path(sys.argv[1])
    for name, (wanted, unwanted) in PYTHON.items():
        if not (folder := root / folder_of(name)).exists():
            install(folder, wanted, unwanted)
    if "--python" in sys.argv:
        return
    folder = root / folder_of(JAVASCRIPT)
    if not folder.exists():
        folder.mkdir(parents=True)
        subprocess.run(["npm", "init", "-y"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["npm", "install", "--silent", JAVASCRIPT], cwd=folder, check=True)


if __name__ == "__main__":
    main()
