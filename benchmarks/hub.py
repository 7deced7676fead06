"""How fast a hub is: pushes and pulls, search in a large store, one large file, one release beside `cp`.

    python benchmarks/hub.py [load] [search] [stream] [release] [--repositories 10000] [--gigabytes 2]

Starts the real server as a process of its own on a free port and prints Markdown tables.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from modhub.server.auth.accounts import Accounts
from modhub.store.model import Add
from modhub.store.records import RepositoryKey
from modhub.store.store import Store

TOKEN = "hf_benchmark-token-0123456789"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
PROGRAM = (
    "import sys\n"
    "from pathlib import Path\n"
    "from modhub.server.serving import serve\n"
    "serve(Path(sys.argv[1]), port=0, started=lambda address: print(address, flush=True))\n"
)


class Server:
    """A server in a process of its own; `ask` keeps one connection for each thread that has a client."""

    def __init__(self, root: Path) -> None:
        accounts = Accounts(root)
        if accounts.empty:
            accounts.create_token("bench", role="admin", value=TOKEN)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(root)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.address)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)

    def memory(self, name: str) -> float:
        """`VmRSS` (now) or `VmHWM` (the most so far) of the server in MB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1000
        return float("nan")


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    server = Server(root)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait()


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] = HEADERS,
) -> bytes:
    connection.request(method, path, body, dict(headers))  # type: ignore[arg-type]
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= 400:
        raise SystemExit(f"{method} {path}: {answer.status} {content[:300]!r}")
    return content


def commit_body(path: str, content: bytes) -> bytes:
    import base64

    lines = [
        {"key": "header", "value": {"summary": "benchmark"}},
        {
            "key": "file",
            "value": {"content": base64.b64encode(content).decode(), "path": path, "encoding": "base64"},
        },
    ]
    return b"\n".join(json.dumps(line).encode() for line in lines)


def measured(
    clients: int, seconds: float, work: Callable[[int, http.client.HTTPConnection, int], None], server: Server
) -> str:
    """Runs `work(client, connection, number)` over and over; a row of figures."""

    def run(client: int) -> list[float]:
        connection, times = server.connection(), []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            work(client, connection, len(times))
            times.append(time.perf_counter() - began)
        connection.close()
        return times

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = sorted(time_ for found in pool.map(run, range(clients)) for time_ in found)
    rate = len(times) / (time.perf_counter() - began)
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
    return f"{rate:.0f} | {1000 * statistics.median(times):.1f} | {1000 * p99:.1f}"


def load(folder: Path, seconds: float) -> None:
    with serving(folder / "load") as server:
        setup = server.connection()
        for client in range(32):
            ask(setup, "POST", "/api/repos/create", json.dumps({"name": f"bench/r{client}"}))
        content = os.urandom(20_000)
        ask(setup, "POST", "/api/models/bench/r0/commit/main", commit_body("w.bin", content))

        def push(client: int, connection: http.client.HTTPConnection, number: int) -> None:
            body = commit_body(f"{number % 50}.bin", os.urandom(3000))
            ask(connection, "POST", f"/api/models/bench/r{client}/commit/main", body)

        def pull(client: int, connection: http.client.HTTPConnection, number: int) -> None:
            ask(connection, "GET", "/bench/r0/resolve/main/w.bin")

        print("| clients | what | a second | p50 (ms) | p99 (ms) |\n|---|---|---|---|---|")
        for clients in (1, 8, 32):
            for name, work in (("push: a commit of 3 kB, durable", push), ("pull: a file of 20 kB", pull)):
                print(f"| {clients} | {name} | {measured(clients, seconds, work, server)} |")


def search(folder: Path, repositories: int) -> None:
    root = folder / "search"
    store = Store(root)
    sync, os.fsync = os.fsync, lambda handle: None  # filling is not what is measured
    began = time.perf_counter()
    for number in range(repositories):
        key = RepositoryKey.model(f"ns{number % 100}/net-{number}")
        store.repositories.create(key)
        classes = "".join(f"- class:thing-{(number * 7 + place * 13) % 1000}\n" for place in range(10))
        card = f"---\nlicense: mit\ntags:\n- modhub\n- dataset:set-{number % 20}\n{classes}---\n# {number}\n"
        store.commits.create(key, [Add("README.md", card.encode())], title="Release")
    os.fsync = sync
    store.close()
    seconds = time.perf_counter() - began
    print(f"\n{repositories:,} repositories, {10 * repositories:,} modules, written in {seconds:.0f} s.\n")
    with serving(root) as server:
        print("| search | a second | p50 (ms) | p99 (ms) |\n|---|---|---|---|")
        for name, path in {
            "by class": "/api/models?filter=modhub&filter=class:thing-42&limit=50",
            "by words": "/api/models?search=net-77&limit=50",
            "newest 50": "/api/models?limit=50",
            "by author, by downloads": "/api/models?author=ns7&sort=downloads&limit=50",
            "front page with facets": "/?class=thing-42",
            "front page": "/",
        }.items():

            def look(
                client: int, connection: http.client.HTTPConnection, number: int, path: str = path
            ) -> None:
                ask(connection, "GET", path)

            print(f"| {name} | {measured(1, 3, look, server)} |")


def stream(folder: Path, gigabytes: float) -> None:
    size, block = int(gigabytes * 1e9), os.urandom(1 << 20)
    digest = hashlib.sha256()
    left = size
    while left:
        digest.update(block[: min(left, len(block))])
        left -= min(left, len(block))
    one = {"oid": digest.hexdigest(), "size": size}

    def blocks() -> Iterator[bytes]:
        left = size
        while left:
            yield block[: min(left, len(block))]
            left -= min(left, len(block))

    with serving(folder / "stream") as server:
        connection = server.connection()
        ask(connection, "POST", "/api/repos/create", json.dumps({"name": "bench/large"}))
        before = server.memory("VmRSS")
        asked = json.dumps({"operation": "upload", "objects": [one]})
        answer = json.loads(ask(connection, "POST", "/bench/large.git/info/lfs/objects/batch", asked))
        href = answer["objects"][0]["actions"]["upload"]["href"].removeprefix(server.address)
        began = time.perf_counter()
        ask(connection, "PUT", href, blocks(), {"Content-Length": str(size)})
        up = time.perf_counter() - began
        lines = [
            {"key": "header", "value": {"summary": "large"}},
            {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", **one}},
        ]
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        ask(connection, "POST", "/api/models/bench/large/commit/main", body)
        began = time.perf_counter()
        connection.request("GET", "/bench/large/resolve/main/w.bin", headers=HEADERS)
        response, received = connection.getresponse(), hashlib.sha256()
        while piece := response.read(1 << 20):
            received.update(piece)
        down = time.perf_counter() - began
        if received.hexdigest() != one["oid"]:
            raise SystemExit("The file came back different.")
        print(f"\n{gigabytes:g} GB up in {up:.1f} s ({size / up / 1e6:.0f} MB/s), down in {down:.1f} s "
              f"({size / down / 1e6:.0f} MB/s); server memory {before:.0f} MB before, "
              f"{server.memory('VmHWM'):.0f} MB at most.")  # fmt: skip


def release(folder: Path) -> None:
    """One release (a 20 MB trunk, ten modules of 20 kB with a manifest each), pushed and pulled."""
    from huggingface_hub import HfApi, snapshot_download

    source = folder / "release"
    files = {"trunk/w.safetensors": os.urandom(20_000_000), "README.md": b"# Release\n"}
    for number in range(10):
        files[f"modules/{number}/module.safetensors"] = os.urandom(20_000)
        files[f"modules/{number}/module.json"] = json.dumps({"n": number}).encode()
    for path, content in files.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    rows = []
    copy = folder / "copy"
    rows.append(
        (
            "cp -r, synced",
            _timed(lambda: (shutil.copytree(source, copy), os.sync())),
            _timed(lambda: shutil.copytree(copy, folder / "copy2")),
        )
    )
    with serving(folder / "release-hub") as server:
        os.environ["HF_TOKEN"] = TOKEN
        for name, place in {
            "modhub, a directory": str(folder / "directory"),
            "modhub, the server": server.address,
        }.items():
            rows.append((name, *_by_modhub(place, source, list(files), folder / f"pull-{len(rows)}")))
        api = HfApi(endpoint=server.address, token=TOKEN)
        api.create_repo("bench/stock")
        up = _timed(lambda: api.upload_folder(folder_path=source, repo_id="bench/stock"))
        down = _timed(
            lambda: snapshot_download(
                "bench/stock", endpoint=server.address, token=TOKEN, cache_dir=folder / "cache"
            )
        )
        rows.append(("huggingface_hub alone, the server", up, down))
    print("\n| one release, 20 MB in 22 files | push (s) | pull (s) |\n|---|---|---|")
    for name, up, down in rows:
        print(f"| {name} | {up:.2f} | {down:.2f} |")


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _by_modhub(place: str, source: Path, paths: list[str], target: Path) -> tuple[float, float]:
    """Seconds to push and to pull through one of modhub's own hubs."""
    from modhub.hub import open_hub
    from modhub.refs import RepositoryId

    hub, repository = open_hub(place), RepositoryId.parse("bench/release")

    def push() -> None:
        hub.create_repository(repository)
        hub.commit(repository, [Add(path, source / path) for path in paths], "Release")

    def pull() -> None:
        commit = hub.commit_of(repository, "main")
        for path in hub.tree(repository, commit):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            with (target / path).open("wb") as stream:
                hub.download(repository, commit, path, stream)

    return _timed(push), _timed(pull)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["load", "search", "stream", "release"])
    parser.add_argument("--repositories", type=int, default=10_000)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument(
        "--folder", type=Path, help="Where the stores are made. Default: the system's temporary folder."
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        if "load" in options.parts:
            load(folder, options.seconds)
        if "search" in options.parts:
            search(folder, options.repositories)
        if "stream" in options.parts:
            stream(folder, options.gigabytes)
        if "release" in options.parts:
            release(folder)


if __name__ == "__main__":
    main()
