"""What a stranger's request costs: processor time and memory have a bound, and the answer says so."""

from __future__ import annotations

import socket
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import anyio
import numpy as np
import pytest
import safetensors.numpy
from starlette.requests import Request as StarletteRequest

from modhub.project.resolver import resolve
from modhub.project.toml import Project, Want
from modhub.refs import Ref, RepositoryId
from modhub.server.app import create_app
from modhub.server.auth.principal import ANONYMOUS
from modhub.server.errors import HTTPError
from modhub.server.http.connections import Connections
from modhub.server.http.request import Request
from modhub.server.web.repository_view import VisibleRepositories
from modhub.store.blobs import store_content
from modhub.store.changes import Add, Link
from modhub.store.records import CommitRecord, RepositoryKey, now
from modhub.store.store import Store
from modhub.store.tree import Tree
from modhub.store.uploads import tree_file
from tests.store.test_front_matter import LAUGHS, MERGES
from tests.support.hub_server import Answer, Server, serving
from tests.support.releases import ReleaseHub

SECONDS = 5.0
"""Of processor time on a busy machine; two on an idle one."""
MEMORY = 200 << 20
TOO_MANY = "The metadata is not valid YAML: its values are too many"


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (LAUGHS, "The metadata is not valid YAML: its values are too many"),
        (MERGES, "The metadata is not valid YAML: its values are too many"),
        ("tags: [" + "a," * 125_000 + "a]", "The metadata is not valid YAML: its values are too many"),
        (
            "tags: [" + "a," * 500_000 + "a]",
            "The metadata block has 1,000,009 characters; at most 262,144 are read.",
        ),
        ("[" * 200_000, "The metadata is not valid YAML: it is nested more than 20 levels deep"),
    ],
)
def test_the_card_check_is_bounded(tmp_path: Path, head: str, problem: str) -> None:
    with serving(tmp_path) as server:
        answer = measured(server, "POST", "/api/validate-yaml", {"content": f"---\n{head}\n---\n"})
    assert (answer.status, answer.json()["errors"]) == (400, [{"message": problem}])


def test_composing_picks_that_cannot_stand_together_is_bounded(tmp_path: Path) -> None:
    zoo = ReleaseHub(tmp_path)
    for owner in "abc":
        for version in ("1.0", "1.1", "1.2", "2.0"):
            zoo.put(f"{owner}/all", version, {f"class {n}": 0.5 for n in range(10)}, trunk=owner + version)
    for version in ("1.0", "2.0"):
        zoo.put("d/pair", version, {"x": 0.5, "y": 0.5}, trunk=version)
    picks = [*(f"class {n}" for n in range(10)), "x>=2", "y<2"]
    with serving(tmp_path / "hub") as server:
        page = "/compose?" + "&".join(f"pick={quote(pick)}" for pick in picks)
        answer = measured(server, "GET", page)
    assert answer.status == 200
    # A bare label has one provider or none, so that there is little to search; the limit of steps is held by
    # `tests/project/test_resolver.py`.
    assert b"is offered only in namespaces that are not trusted: a/all/" in answer.body


def test_the_files_of_a_long_history_are_bounded(tmp_path: Path) -> None:
    """A store from before last changes were recorded: many commits of many files, read within the bound."""
    store, key = Store(tmp_path), RepositoryKey.model("lab/net")
    store.repositories.create(key)
    long_history(store, key, commits=90, files=300)
    with serving(tmp_path) as server:
        for path in ("/lab/net/tree/main", "/api/models/lab/net/tree/main?expand=true"):
            store.last_changes.forget(key)
            answer = measured(server, "GET", path)
            while answer.status == 503 or b"is being indexed" in answer.body:
                answer = measured(server, "GET", path, memory=False)
            assert answer.status == 200
        dated = [entry["lastCommit"]["title"] for entry in answer.json()]
    assert dated == [f"commit {number}" for number in range(50)]
    store.close()


def long_history(store: Store, key: RepositoryKey, *, commits: int, files: int) -> None:
    """Each commit changes one more file; written without syncing each to disk."""
    contents = [tree_file(store_content(store.blobs, b"%d" % number)) for number in range(3)]
    tree = {f"f{number:05}": contents[0] for number in range(files)}
    with store.write_lock(key):
        state = store.references.state(key)
        head = store.reader.commit(key, state.refs["refs/heads/main"])
        for number in range(commits):
            path = f"f{number % files:05}"
            tree[path] = contents[1] if tree[path] == contents[0] else contents[2]
            head = CommitRecord(
                parents=(head.id,),
                tree=store.commits.put_tree(Tree(tree)),
                title=f"commit {number}",
                description="",
                author="",
                date=now(),
                ref="refs/heads/main",
                generation=number + 1,
            )
            store.references.add_commit(key, head)
        store.references.save_state(key, replace(state, refs={"refs/heads/main": head.id}))


def test_a_thousand_ignore_rules_are_bounded(tmp_path: Path) -> None:
    deep = "/".join(["a"] * 240)
    files = [{"path": f"{number}/{deep}", "size": 1} for number in range(256)]
    with serving(tmp_path) as server:
        server.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        for rule in ("**/y{}/**/z*",):
            rules = "\n".join(rule.format(number) for number in range(1000))
            body = {"files": files, "gitIgnore": rules}
            answer = measured(
                server, "POST", "/api/models/alice/net/preupload/main", body, "alice", memory=False
            )
            assert (answer.status, answer.json()["error"]) == (
                400,
                "1,000 rules to ignore files are too many for these paths. "
                "Send fewer files at once, or fewer rules.",
            )
        body = {"files": [{"path": f"d{number}/a/b.txt", "size": 1} for number in range(256)]}
        body["gitIgnore"] = "\n".join(f"x{number}*" for number in range(900)) + "\nd7/\n"  # type: ignore[assignment]
        answer = measured(server, "POST", "/api/models/alice/net/preupload/main", body, "alice", memory=False)
    ignored = [file["path"] for file in answer.json()["files"] if file["shouldIgnore"]]
    assert ignored == ["d7/a/b.txt"]


def test_a_page_reads_a_bounded_part_of_every_module(tmp_path: Path) -> None:
    """24 modules of 20 MB, whose masks are all of that, or a small one behind it."""
    huge = {"mask": np.ones(20 << 20, np.uint8)}
    small = {"bulk": np.ones(20 << 20, np.uint8), "mask": np.ones(16, np.uint8)}
    labels = [f"c{number}" for number in range(24)]
    zoo = ReleaseHub(tmp_path)
    for name, tensors in (("huge", huge), ("small", small)):
        zoo.put(f"lab/{name}", "1.0.0", dict.fromkeys(labels, 0.5))
        content = safetensors.numpy.save(tensors)
        key = RepositoryKey.model(f"lab/{name}")
        store = Store(tmp_path / "hub")
        first, *others = (f"modules/{label}/module.safetensors" for label in labels)
        store.commits.create(key, [Add(first, content)], title="t")
        same = store.reader.tree(key)[first]
        store.commits.create(key, [Link(path, same.sha256, same.size) for path in others], title="t")
        store.close()
    with serving(tmp_path / "hub") as server:
        for name, drawn in (("huge", False), ("small", True)):
            answer = measured(server, "GET", f"/lab/{name}/modules/c3?revision=main")
            assert (answer.status, b'class="picture overlap"' in answer.body) == (200, drawn)


def test_reading_providers_has_a_deadline(tmp_path: Path) -> None:
    ReleaseHub(tmp_path).put("lab/net", "1.0.0", {"cat": 0.5})
    store = Store(tmp_path / "hub")
    late = VisibleRepositories(store, ANONYMOUS, until=time.monotonic() - 1)
    with pytest.raises(HTTPError) as refused:
        late.releases(RepositoryId.parse("lab/net"))
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "5"})
    with pytest.raises(HTTPError):
        resolve(Project("p", (Want.of(Ref.parse("cat")),)), late, nearest=late.nearest)
    store.close()


def test_idle_connections_make_room(tmp_path: Path) -> None:
    """More connections than the limit: the server goes on to answer, and an address has its share."""
    with serving(tmp_path) as server:
        assert server.listening is not None
        connections = server.listening.connections
        connections.limit, connections.share = 40, 10
        place = (urlsplit(server.address).hostname, urlsplit(server.address).port)
        idle = [socket.create_connection(place) for _ in range(60)]
        try:
            assert server.ask("GET", "/healthz").status == 200
            others = [socket.create_connection(place, source_address=("127.0.0.2", 0)) for _ in range(12)]
            idle += others
            for other in others[10:]:
                other.settimeout(10)
                assert other.recv(100).startswith(b"HTTP/1.1 503 ")
            others[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert others[0].recv(100).startswith(b"HTTP/1.1 200 ")
            assert server.ask("GET", "/healthz").status == 200
        finally:
            for connection in idle:
                connection.close()


def test_an_address_has_its_share_of_the_work(tmp_path: Path) -> None:
    app = create_app(tmp_path)

    def request(host: str) -> Request:
        scope = {"type": "http", "client": (host, 1), "headers": [], "query_string": b"", "method": "GET"}
        return Request(app.state, StarletteRequest(scope), ANONYMOUS, {})

    async def at_work(host: str, number: int) -> int:
        """How many of so many requests work at once."""
        working, most = 0, 0

        async def work() -> None:
            nonlocal working, most
            async with app.turn(request(host)):
                working += 1
                most = max(most, working)
                await anyio.sleep(0.01)
                working -= 1

        async with anyio.create_task_group() as group:
            for _ in range(number):
                group.start_soon(work)
        return most

    # A proxy on this machine speaks for many.
    for host, most in (("203.0.113.5", 16), ("2001:db8::1", 16), ("127.0.0.1", 40)):
        assert anyio.run(at_work, host, 40) == most
    app.state.store.close()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (1024, "At most 384 connections, 48 from one address; 1,024 open files."),
        (4256, "At most 2,000 connections, 250 from one address; 4,256 open files."),
        (1 << 20, "At most 2,000 connections, 250 from one address; 1,048,576 open files."),
    ],
)
def test_connections_fit_the_open_files(files: int, said: str) -> None:
    connections = Connections(files)
    assert str(connections) == said
    assert connections.limit * 2 + 256 <= files


def measured(
    server: Server,
    method: str,
    path: str,
    body: object = None,
    who: str | None = None,
    *,
    memory: bool = True,
) -> Answer:
    """The answer, once it is known to have cost no more than it may. The server runs in this process."""
    began = time.process_time()
    answer = server.ask(method, path, who, body)
    assert time.process_time() - began < SECONDS
    if not memory:
        return answer
    # Once more, as counting the memory takes several times as long.
    tracemalloc.start()
    try:
        server.ask(method, path, who, body)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    return answer
