"""Servers that are killed in the middle of pushes, over one store."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from modhub.server.auth.accounts import Accounts
from modhub.store.fsck import fsck
from modhub.store.records import RepositoryKey
from modhub.store.store import Store
from modhub.store.tree import TreeFile
from tests.support.hub_server import TOKENS, Server

# Imports once; for each line it reads, a child serves the store and says its number and address.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from modhub.server.serving import serve
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in iter(sys.stdin.readline, ""):
    if os.fork() == 0:
        serve(Path(sys.argv[1]), port=0, started=lambda address: print(os.getpid(), address, flush=True))
        os._exit(0)
"""


@dataclass(frozen=True)
class Killed:
    """What happened: pushes attempted, acknowledged and found in the history, and the acknowledged ones whose
    bytes are not there; whether `fsck` finds nothing and the history has as many files as commits."""

    kills: int
    attempted: int
    acknowledged: int
    landed: int
    lost: tuple[str, ...]
    clean: bool


class Servers:
    """Real servers over one store, one after the other, each a process of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._parent = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def start(self) -> tuple[int, Server]:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write("next\n")
        self._parent.stdin.flush()
        number, address = self._parent.stdout.readline().split()
        return int(number), Server(address, self._root)

    def close(self) -> None:
        self._parent.communicate()


class Pusher:
    """Commits files, one after the other, until its server is gone; `acknowledged` has their digests."""

    def __init__(self, server: Server, name: str, acknowledged: dict[str, str]) -> None:
        self.server, self.name, self.acknowledged = server, name, acknowledged
        self.attempted, self.wanted = 0, True
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while self.wanted:
            self.attempted += 1
            path = f"{self.name}/{self.attempted}.bin"
            content = os.urandom(3000) + path.encode()
            try:
                answer = self.server.commit("models/alice/net", {path: content})
            except Exception:
                # The server is gone, or the answer was cut off in the middle.
                return
            if answer.status == 200:
                self.acknowledged[path] = hashlib.sha256(content).hexdigest()

    def stop(self) -> int:
        self.wanted = False
        self.thread.join()
        return self.attempted


def kill_servers(root: Path, kills: int, seed: int) -> Killed:
    """Kill a server so many times while three clients push; what they were told is then looked for."""
    Accounts(root).create_token("alice", value=TOKENS["alice"])
    chance, acknowledged, attempted = random.Random(seed), dict[str, str](), 0
    servers = Servers(root)
    for turn in range(kills):
        process, server = servers.start()
        if turn == 0:
            assert server.ask("POST", "/api/repos/create", "alice", {"name": "net"}).status == 200
        known = len(acknowledged)
        pushers = [Pusher(server, f"{turn}/{number}", acknowledged) for number in range(3)]
        # Two thirds of the kills come in the middle of things, the others before anything was answered.
        while turn % 3 and len(acknowledged) == known:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.25)
        os.kill(process, signal.SIGKILL)
        attempted += sum(pusher.stop() for pusher in pushers)
    servers.close()
    store, key = Store(root), RepositoryKey.model("alice/net")
    tree = store.reader.tree(key)
    lost = [path for path, digest in acknowledged.items() if not _is_there(store, tree.get(path), digest)]
    landed = sum(1 for _ in store.reader.history(key)) - 1
    clean = fsck(store).clean and landed == len(tree) - 1
    store.close()
    return Killed(kills, attempted, len(acknowledged), landed, tuple(lost), clean)


def _is_there(store: Store, file: TreeFile | None, digest: str) -> bool:
    if file is None or file.sha256 != digest:
        return False
    with store.reader.open(digest) as stream:
        return hashlib.sha256(stream.read()).hexdigest() == digest
