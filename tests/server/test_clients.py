"""Stock clients, unpatched, against the real server: each walks the whole way in its own process.

The installed huggingface_hub always runs. The others run when MODHUB_CLIENTS names a folder that
tests/clients/build.py filled; MODHUB_CLIENT_RESULTS names the file the table in docs/hub.md is made from.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from tests.server.clients.build import JAVASCRIPT, PYTHON, folder_of
from tests.support.hub_server import TOKENS, Server, serving

HERE = Path(__file__).parent / "clients"
CLIENTS = os.environ.get("MODHUB_CLIENTS")
INSTALLED = f"huggingface_hub {huggingface_hub.__version__}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hub")) as server:
        yield server


def walk(server: Server, name: str, command: list[str], home: Path, folder: Path | None = None) -> None:
    """Run a journey; it fails with the steps that failed."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHON"))},
        "HF_ENDPOINT": server.address,
        "HF_TOKEN": TOKENS["alice"],
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    steps = json.loads(done.stdout.strip().splitlines()[-1])["steps"]
    remember(name, steps)
    assert {step: found for step, found in steps.items() if found != "ok"} == {}
    assert len(steps) >= 10


def remember(name: str, steps: dict[str, str]) -> None:
    file = os.environ.get("MODHUB_CLIENT_RESULTS")
    if file:
        path = Path(file)
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, name: steps}))


def installed(name: str) -> Path:
    if CLIENTS is None:
        pytest.skip("MODHUB_CLIENTS names no folder with other clients (tests/clients/build.py makes one)")
    folder = Path(CLIENTS) / folder_of(name)
    if not folder.exists():
        pytest.skip(f"'{name}' is not in MODHUB_CLIENTS")
    return folder


def test_the_installed_client(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "journey.py"), "here"]
    if CLIENTS is None:
        # A dozen programs that each import a client: too slow for every day.
        command.append("hf command line")
    walk(server, INSTALLED, command, tmp_path)


@pytest.mark.parametrize("name", list(PYTHON))
def test_other_python_clients(server: Server, tmp_path: Path, name: str) -> None:
    program = installed(name) / "bin" / "python"
    walk(server, name, [str(program), str(HERE / "journey.py"), folder_of(name)], tmp_path)


def test_the_javascript_client(server: Server, tmp_path: Path) -> None:
    folder = installed(JAVASCRIPT)
    package = json.loads((folder / "node_modules" / JAVASCRIPT / "package.json").read_text())
    command = ["node", str(HERE / "journey.mjs"), server.address, TOKENS["alice"], "js"]
    walk(server, f"{JAVASCRIPT} {package['version']}", command, tmp_path, folder)


def test_git_lfs(server: Server, tmp_path: Path) -> None:
    if shutil.which("git-lfs") is None:
        pytest.skip("git-lfs is not installed: apt-get install git-lfs")
    server.ask("POST", "/api/repos/create", "alice", {"name": "lfs"})
    address = server.address.replace("://", f"://alice:{TOKENS['alice']}@")
    environment = {**os.environ, "HOME": str(tmp_path), "GIT_TERMINAL_PROMPT": "0"}

    def git(folder: Path, *arguments: str) -> str:
        options = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            ["git", *options, *arguments], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    origin, work, other = tmp_path / "origin.git", tmp_path / "work", tmp_path / "other"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(origin))
    git(tmp_path, "init", "-q", "-b", "main", str(work))
    content = os.urandom(1_200_000)
    (work / "w.bin").write_bytes(content)
    git(work, "lfs", "install", "--local")
    git(work, "lfs", "track", "*.bin")
    git(work, "config", "-f", ".lfsconfig", "lfs.locksverify", "false")
    git(work, "config", "lfs.url", f"{address}/alice/lfs.git/info/lfs")
    git(work, "remote", "add", "origin", str(origin))
    git(work, "add", ".")
    git(work, "commit", "-qm", "large")
    git(work, "push", "-q", "origin", "main")
    git(tmp_path, "clone", "-q", "--no-checkout", str(origin), str(other))
    git(other, "lfs", "install", "--local")
    git(other, "config", "lfs.url", f"{address}/alice/lfs.git/info/lfs")
    git(other, "checkout", "-q", "main")
    assert (other / "w.bin").read_bytes() == content
    remember("git-lfs", {"upload a file": "ok", "download a file (ETag, cache, absence)": "ok"})


def test_the_first_start_makes_a_token_and_prints_it_once(tmp_path: Path) -> None:
    root = str(tmp_path / "hub")

    def modhub(*arguments: str) -> subprocess.Popen[str]:
        code = "from modhub_cli.main import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = modhub("serve", "--root", root, "--port", str(taken.getsockname()[1]))
        refused = process.communicate(timeout=60)[1]
    assert (process.returncode, "cannot be used" in refused) == (1, True)
    seen = []
    for _ in range(2):
        process = modhub("serve", "--root", root, "--port", "0")
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert Server(address, tmp_path).ask("GET", "/healthz").status == 200
        process.terminate()
        seen.append(process.communicate(timeout=30)[1])
    value = refused.split("shown only once: ")[1].split()[0]
    assert value.startswith("hf_")
    assert "only once" not in "".join(seen)
    made, _ = modhub(
        "token", "create", "--root", root, "--user", "eve", "--org", "lab", "--json"
    ).communicate()
    token = json.loads(made)
    assert (token["user"], token["organisations"], token["role"]) == ("eve", ["lab"], "write")
    listed, _ = modhub("token", "list", "--root", root, "--json").communicate()
    assert [one["user"] for one in json.loads(listed)] == ["admin", "eve"]
    assert token["token"] not in listed
    revoked, _ = modhub("token", "revoke", "--root", root, token["id"]).communicate()
    assert revoked == f"Token {token['id']} of eve is revoked.\n"
