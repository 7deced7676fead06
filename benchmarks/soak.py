"""A server asked for a long time: what it holds of the system is level after the first tenth.

    python benchmarks/soak.py --requests 200000 --folder soak

Mixed requests (files, lists, pages, searches, commits, denials, new connections) to the real server, a
process of its own. After each tenth it prints descriptors, threads and memory. Exits with 1 where any
of these goes on growing, or a request fails. With --folder an interrupted run goes on where it stopped; the
figures are of the server that it then starts.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.server.test_bounds import long_history
from tests.support.hub_server import TOKENS, commit_body
from tests.support.hub_world import push

from modhub.server.auth.accounts import Accounts
from modhub.store.reader import TREE_FILES
from modhub.store.records import RepositoryKey
from modhub.store.store import Store

CHECKOUT = Path(__file__).resolve().parents[1]
CLIENTS = 4
ON_A_CONNECTION = 50
"""Requests before a client connects anew."""
WARM = 64
"""Commits of a repository whose lists of files fill the server's memory before anything is counted."""
MORE_FILES, MORE_THREADS, MORE_MEMORY = 16, 4, 0.1
"""What may come after the first tenth: connections open at the moment, and a share of the memory."""
REQUESTS: tuple[tuple[int, str, str, str | None], ...] = (
    (30, "GET", "/lab/net/resolve/main/trunk/weights.safetensors", None),
    (10, "HEAD", "/lab/net/resolve/main/README.md", None),
    (10, "GET", "/api/models/lab/net/revision/v1.0.0", None),
    (8, "GET", "/api/models/lab/net/tree/main?recursive=true&expand=true", None),
    (8, "GET", "/api/models?search=net&full=true", None),
    (5, "GET", "/api/models?filter=class:cat", None),
    (4, "GET", "/", None),
    (4, "GET", "/lab/net", None),
    (4, "GET", "/lab/net/modules/cat", None),
    (3, "GET", "/compose?q=cat&pick=lab/net/cat", None),
    (3, "GET", "/api/whoami-v2", "alice"),
    (2, "GET", "/metrics", None),
    (2, "GET", "/nobody/nothing/resolve/main/a", None),
    (2, "GET", "/api/models/lab/secret", "bob"),
    (5, "POST", "/api/models/alice/{}/commit/main", "alice"),
)


@dataclass(frozen=True, slots=True)
class Held:
    """What a process has of the system; memory in MB."""

    descriptors: int
    threads: int
    memory: float

    @classmethod
    def by(cls, process: int) -> Held:
        facts = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        files = len(os.listdir(f"/proc/{process}/fd"))
        return cls(files, int(facts["Threads"]), int(facts["VmRSS"].split()[0]) / 1000)

    def grows_beyond(self, first: Held) -> list[str]:
        limits = {
            "descriptors": first.descriptors + MORE_FILES,
            "threads": first.threads + MORE_THREADS,
            "memory": first.memory * (1 + MORE_MEMORY) + 4,
        }
        return [name for name, limit in limits.items() if getattr(self, name) > limit]


@contextmanager
def serving(root: Path, checkout: Path = CHECKOUT) -> Iterator[tuple[str, int]]:
    """A server of a checkout's version, as address and process."""
    path = os.pathsep.join(str(checkout / part) for part in ("registry", "cli"))
    process = subprocess.Popen(
        [sys.executable, "-m", "modhub_cli", "serve", "--root", str(root), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.terminate()
        process.wait()


class Client:
    """Sends requests of the mix, one after the other."""

    def __init__(self, address: str, number: int, seed: int) -> None:
        parts = urlsplit(address)
        self.place = (parts.hostname or "", parts.port)
        self.number = number
        self.dice = random.Random(seed)
        self.connection: http.client.HTTPConnection | None = None
        self.failures: list[str] = []

    def work(self, requests: int) -> None:
        weights = [weight for weight, *_ in REQUESTS]
        for sent in range(requests):
            if self.connection is None or sent % ON_A_CONNECTION == 0:
                self.close()
                self.connection = http.client.HTTPConnection(*self.place, timeout=120)
            _, method, path, who = self.dice.choices(REQUESTS, weights)[0]
            headers = {} if who is None else {"Authorization": f"Bearer {TOKENS[who]}"}
            body = None
            if method == "POST":
                path = path.format(f"r{self.number}")
                name = f"f{self.dice.randrange(20)}"
                body = commit_body({name: self.dice.randbytes(self.dice.choice([10, 3000, 30_000]))})
                headers["Content-Type"] = "application/x-ndjson"
            try:
                self.connection.request(method, path, body, headers)
                response = self.connection.getresponse()
                response.read()
                if response.status >= 500:
                    self.failures.append(f"{method} {path}: {response.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{method} {path}: {error!r}")
                self.close()

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None


def soak(folder: Path, requests: int, seed: int) -> int:
    root, notes = folder / "store", folder / "soak.json"
    done = json.loads(notes.read_text())["done"] if notes.exists() else 0
    if not done:
        store, large = Store(root), RepositoryKey.model("lab/large")
        store.repositories.create(large)
        long_history(store, large, commits=WARM, files=TREE_FILES // WARM + 1)
        store.close()
        push(root, "lab/net", ("cat", "dog"))
        push(root, "lab/secret", ("cat",), private=True, seed=1)
        accounts = Accounts(root)
        accounts.create_token("alice", value=TOKENS["alice"])
        accounts.create_token("bob", value=TOKENS["bob"])
    first: Held | None = None
    grown: list[str] = []
    print("| requests | a second | descriptors | threads | memory (MB) |\n|---|---|---|---|---|", flush=True)
    with serving(root) as (address, process):
        clients = [Client(address, number, seed + done + number) for number in range(CLIENTS)]
        for client in clients:
            setup = http.client.HTTPConnection(*client.place, timeout=60)
            headers = {"Authorization": f"Bearer {TOKENS['alice']}", "Content-Type": "application/json"}
            setup.request("POST", "/api/repos/create", json.dumps({"name": f"r{client.number}"}), headers)
            setup.getresponse().read()
            setup.close()
        _fill_memory(clients[0])
        while done < requests:
            tenth = min(max(requests // 10, 1), requests - done)
            began = time.monotonic()
            threads = [
                threading.Thread(target=client.work, args=(-(-tenth // CLIENTS),)) for client in clients
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            done += tenth
            notes.write_text(json.dumps({"done": done}))
            held = Held.by(process)
            rate = tenth / (time.monotonic() - began)
            print(
                f"| {done:,} | {rate:.0f} | {held.descriptors} | {held.threads} | {held.memory:.1f} |",
                flush=True,
            )
            first = first or held
            grown = held.grows_beyond(first)
        for client in clients:
            client.close()
    failures = [failure for client in clients for failure in client.failures]
    print(f"\n{len(failures)} requests failed.", *failures[:10], sep="\n  ")
    if grown:
        print(f"Grown since the first tenth: {', '.join(grown)}.")
    return int(bool(grown or failures))


def _fill_memory(client: Client) -> None:
    """Read as many lists of files as the server keeps in memory, which else grows until it has them."""
    connection = http.client.HTTPConnection(*client.place, timeout=120)
    connection.request("GET", f"/api/models/lab/large/commits/main?limit={WARM}")
    for commit in json.loads(connection.getresponse().read()):
        connection.request("GET", f"/api/models/lab/large/tree/{commit['id']}?limit=1")
        connection.getresponse().read()
    connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument(
        "--folder", type=Path, help="Where the store and the notes are, to go on after a stop."
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        return soak(arguments.folder, arguments.requests, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        return soak(Path(folder), arguments.requests, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
