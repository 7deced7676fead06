"""A hub under attack: what was acknowledged stays, nothing private is shown, and nothing is a server error.

    python benchmarks/attack.py kills --number 180         kill -9 in the middle of pushes
    python benchmarks/attack.py rights                     every route and role against a private repository
    python benchmarks/attack.py documents --number 2000    hostile cards, manifests, yanks and references
    python benchmarks/attack.py bytes --number 500         one byte of the store flipped at a time
    python benchmarks/attack.py reads --against CHECKOUT   small reads a second, beside another version's
    python benchmarks/attack.py history                    2,500 commits of 2,000 files: the slowest pages

Each prints its figures and exits with 1 where one is not as it should be.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.soak import serving as serving_process
from tests.server.test_bounds import long_history
from tests.server.test_isolation import FILES, World
from tests.support.hub_server import Answer, Server, commit_body, serving
from tests.support.hub_world import push
from tests.support.killed_servers import kill_servers

from modhub.catalog.catalog import Catalog
from modhub.catalog.pull import pull
from modhub.errors import ModhubError
from modhub.hub.cache import Cache
from modhub.hub.directory import DirectoryHub
from modhub.refs import Ref
from modhub.store.fsck import fsck
from modhub.store.records import RepositoryKey
from modhub.store.store import Store

ROLES = (None, "wrong-token-0123456789", "bob", "reader", "alice", "admin")
SECRET = b"what only the members of lab may read"


def kills(folder: Path, number: int, seed: int) -> int:
    done = kill_servers(folder / "store", number, seed)
    print(
        f"{done.kills} kills, {done.acknowledged:,} pushes acknowledged, {len(done.lost)} lost, "
        f"fsck {'clean' if done.clean else 'not clean'}."
    )
    return int(bool(done.lost) or not done.clean)


def _neutral(answer: Answer) -> bytes:
    """The body without the name that was asked for."""
    return re.sub(rb"secret|nothing|[0-9a-f]{8}-[0-9a-f-]{27}", b"", answer.body)


def rights(folder: Path) -> int:
    """Strangers get for a private repository what they get for none."""
    leaks, errors, sent = [], [], 0
    with serving(folder / "store") as server:
        for name, private in (("secret", True), ("open", False)):
            body = {"name": name, "organization": "lab", "private": private}
            server.ask("POST", "/api/repos/create", "alice", body)
        files = {"README.md": SECRET, "dir/secret.bin": SECRET + b"\0", "modhub.json": SECRET}
        commit = server.commit("models/lab/secret", files).json()["commitOid"]
        server.ask("POST", "/api/models/lab/secret/tag/main", "alice", {"tag": "secret-tag"})
        fields = {"kind": "model", "web": "", "namespace": "lab", "path": "dir/secret.bin", "slug": "secret"}
        assert server.listening is not None
        for route in server.listening.app.router.routes:
            if "{name}" not in route.pattern:
                continue
            for revision in ("main", commit, "secret-tag"):
                for role in ROLES:
                    answers = []
                    for name in ("secret", "nothing"):
                        values = {**fields, "name": name, "revision": revision}
                        path = re.sub(r"\{(\w+)\*?\}", lambda field: values.get(field[1], "1"), route.pattern)  # noqa: B023
                        body = b"{}" if route.method in ("POST", "PUT", "DELETE") else None
                        if role in ("alice", "admin") and route.method != "GET":
                            # Members may change it; what they are answered is not in question.
                            continue
                        answers.append(server.ask(route.method, path, role, body))
                        sent += 1
                    errors += [
                        f"{route.method} {route.pattern}" for answer in answers if answer.status >= 500
                    ]
                    if role in ("alice", "admin", "reader") or len(answers) < 2:
                        continue
                    hidden, missing = answers
                    shown = b"".join([hidden.body, *(f"{pair}".encode() for pair in hidden.headers.items())])
                    alike = [(answer.status, answer.error, _neutral(answer)) for answer in answers]
                    if alike[0] != alike[1] or SECRET in shown:
                        leaks.append(
                            f"{route.method} {route.pattern} as {role}: {hidden.error}/{missing.error}"
                        )
    print(f"{sent:,} requests, {len(leaks)} leaks, {len(errors)} server errors.", *leaks, *errors, sep="\n  ")
    return int(bool(leaks or errors))


VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1 << 70, 1e308, "", "x" * 100_000, "\ud800", "\u202e", "../../x", [], {}, [[[]]],
    {"": {}}, ["a"] * 2000, {"a": {"b": {"c": {}}}}, "1:59:59", "0x" + "f" * 20_000, "!!bool maybe", ".nan",
    "&a [*a]", "<<: *x",
)  # fmt: skip


def _mutated(document: Any, dice: random.Random) -> Any:
    """A document with other values, keys lost or doubled, at any depth."""
    if isinstance(document, dict) and document and dice.random() < 0.85:
        name = dice.choice(list(document))
        changed = dict(document)
        if dice.random() < 0.2:
            del changed[name]
        else:
            changed[name] = _mutated(document[name], dice)
        return changed
    if isinstance(document, list) and document and dice.random() < 0.85:
        place = dice.randrange(len(document))
        return [*document[:place], _mutated(document[place], dice), *document[place + 1 :]]
    return dice.choice(VALUES)


def _document(path: str, content: bytes, dice: random.Random) -> bytes:
    if dice.random() < 0.1:
        return dice.choice(
            [b"", b"\0", b"\xff\xfe", b"[" * 10_000, content[: len(content) // 2], b"{}", b"null"]
        )
    if path == "README.md":
        shown = dice.choice(VALUES)
        head = "\n".join(
            f"{name}: {shown!r}" for name in dice.sample(["tags", "license", "pipeline_tag", "a"], 2)
        )
        return f"---\n{head}\n---\n# x\n".encode("utf-8", "surrogatepass")
    return json.dumps(_mutated(json.loads(content), dice)).encode()


def documents(folder: Path, number: int, seed: int) -> int:
    dice, problems = random.Random(seed), []
    with serving(folder / "store") as server:
        world = World(server)
        names = [*sorted(FILES), *world.documents]
        originals = {**world.files, "yanked.json": b'{"1.0.0": "bad"}'}
        originals |= {name: json.dumps(value).encode() for name, value in world.documents.items()}
        for turn in range(number):
            name = dice.choice(names)
            content = _document(name, originals[name], dice)
            with world.damaged(name, content):
                try:
                    world.check()
                except Exception as error:
                    problems.append(f"{turn} {name}: {error!r:.200} {content[:80]!r}")
                for page in ("/lab/bad", "/lab/bad/modules/cat", "/api/models/lab/bad", "/lab/bad/tree/main"):
                    answer = server.ask("GET", page)
                    if answer.status >= 500 and not (name == "refs.json" or name == "repository.json"):
                        problems.append(f"{turn} {name}: {page} {answer.status} {content[:80]!r}")
        world.store.close()
    print(f"{number:,} hostile documents, {len(problems)} problems.", *problems[:20], sep="\n  ")
    return int(bool(problems))


def flipped(folder: Path, number: int, seed: int) -> int:
    """A pull brings the right bytes or an error; contents that changed are named by fsck."""
    dice, wrong, missed, refused = random.Random(seed), [], [], 0
    root = folder / "store"
    push(root, "lab/net", ("cat", "dog"))

    def pulled(turn: int) -> dict[str, str]:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            part = pull(Catalog(DirectoryHub(root), Cache(cache)), Ref.parse("lab/net==1.0.0"))
            return {
                path: hashlib.sha256(place.read_bytes()).hexdigest() for path, place in part.files.items()
            }

    right = pulled(-1)
    places = [
        path
        for kind in ("blobs", "repositories")
        for path in sorted((root / kind).rglob("*"))
        if path.is_file()
    ]
    for turn in range(number):
        place = dice.choice([path for path in places if path.stat().st_size])
        content, mode = place.read_bytes(), place.stat().st_mode
        at = dice.randrange(len(content))
        place.chmod(0o644)
        place.write_bytes(content[:at] + bytes([content[at] ^ (1 << dice.randrange(8))]) + content[at + 1 :])
        try:
            if pulled(turn) != right:
                wrong.append(f"{place.relative_to(root)} at {at}")
        except ModhubError:
            refused += 1
        except Exception as error:
            wrong.append(f"{place.relative_to(root)} at {at}: {error!r:.200}")
        store = Store(root)
        if place.is_relative_to(root / "blobs") and not fsck(store).findings:
            missed.append(f"{place.relative_to(root)} at {at}")
        store.close()
        place.write_bytes(content)
        place.chmod(mode)
    print(
        f"{number} bytes flipped, {refused} pulls refused, {len(wrong)} wrong, "
        f"{len(missed)} not named by fsck.",
        *wrong,
        *missed,
        sep="\n  ",
    )
    return int(bool(wrong or missed))


def _processor(process: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _asked(server: tuple[str, int], path: str, clients: int, seconds: float) -> tuple[float, float]:
    """Requests a second, and a second of the server's processor time."""
    address, process = server
    parts, counts = urlsplit(address), [0] * clients

    def work(client: int) -> None:
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200, answer.status
            answer.read()
            counts[client] += 1
        connection.close()

    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    began, used = time.perf_counter(), _processor(process)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began), sum(counts) / (_processor(process) - used)


def reads(folder: Path, against: Path, rounds: int, seconds: float, clients: int) -> int:
    """Both versions serve a file of 20 kB, in turns. What counts is the processor time, which other work on
    the machine changes least."""
    here = Path(__file__).resolve().parents[1]
    with Reading(folder / "this", here) as this, Reading(folder / "other", against) as other:
        rates: dict[tuple[str, int], list[tuple[float, float]]] = {this: [], other: []}
        for turn in range(rounds):
            for server in (this, other) if turn % 2 else (other, this):
                rates[server].append(_asked(server, "/alice/r/resolve/main/w.bin", clients, seconds))
    result = 0.0
    for place, name in enumerate(("a second", "a second of processor time")):
        ours, theirs = ([rate[place] for rate in rates[server]] for server in (this, other))
        ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
        result = statistics.median(ratios)
        print(
            f"small reads {name}: {statistics.median(ours):.0f} here, {statistics.median(theirs):.0f} in "
            f"{against}; ratio {result:.3f} (median of {rounds} pairs, {min(ratios):.2f} to "
            f"{max(ratios):.2f})."
        )
    return int(result < 0.95)


class Reading:
    """A version's server with one repository."""

    def __init__(self, root: Path, checkout: Path) -> None:
        self.root, self.server = root, serving_process(root, checkout)
        path = os.pathsep.join(str(checkout / part) for part in ("registry", "cli"))
        command = ["token", "create", "--root", str(root), "--user", "alice", "--json"]
        made = subprocess.run(
            [sys.executable, "-m", "modhub_cli", *command],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        self.token = json.loads(made.stdout)["token"]

    def __enter__(self) -> tuple[str, int]:
        address, process = self.server.__enter__()
        server = Server(address, self.root)
        server.ask("POST", "/api/repos/create", self.token, {"name": "r"})
        body = commit_body({"w.bin": random.Random(0).randbytes(20_000)})
        sent = {"Content-Type": "application/x-ndjson"}
        assert server.ask("POST", "/api/models/alice/r/commit/main", self.token, body, sent).status == 200
        return address, process

    def __exit__(self, *error: Any) -> None:
        self.server.__exit__(*error)


def history(folder: Path, commits: int, files: int) -> int:
    """The files page and `expand` of a long history: recorded as it was written, and from an older store."""
    root = folder / "store"
    store, key = Store(root), RepositoryKey.model("lab/net")
    store.repositories.create(key)
    long_history(store, key, commits=commits, files=files)
    slow = []
    with serving_process(root) as (address, _):
        server = Server(address, root)
        for state in ("not indexed", "indexed"):
            if state == "indexed":
                began = time.perf_counter()
                store.last_changes.fill(key)
                print(f"indexed by fsck in {time.perf_counter() - began:.1f} s")
            for path in ("/lab/net/tree/main", "/api/models/lab/net/tree/main?expand=true"):
                began = time.perf_counter()
                answer = server.ask("GET", path)
                seconds = time.perf_counter() - began
                print(f"{state}: {path}: {answer.status} in {seconds:.2f} s")
                if seconds > 2 or answer.status not in (200, 503):
                    slow.append(path)
    store.close()
    return int(bool(slow))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("attack", choices=["kills", "rights", "documents", "bytes", "reads", "history"])
    parser.add_argument("--number", type=int, help="Kills, documents or bytes.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--against", type=Path, help="Another checkout (reads).")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--commits", type=int, default=2500)
    parser.add_argument("--files", type=int, default=2000)
    given = parser.parse_args()
    # What the server says of each damaged file.
    logging.disable()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        match given.attack:
            case "kills":
                return kills(folder, given.number or 180, given.seed)
            case "rights":
                return rights(folder)
            case "documents":
                return documents(folder, given.number or 2000, given.seed)
            case "bytes":
                return flipped(folder, given.number or 500, given.seed)
            case "history":
                return history(folder, given.commits, given.files)
    if given.against is None:
        parser.error("reads needs --against")
    with tempfile.TemporaryDirectory() as name:
        return reads(Path(name), given.against, given.rounds, given.seconds, given.clients)


if __name__ == "__main__":
    sys.exit(main())
