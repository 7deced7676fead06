"""A server in front of another: passes on, keeps, and goes on when the other is gone."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download

from modhub.hub.server.state import Options
from tests.hub_server import TOKENS, Server, serving

BIG = os.urandom(1_500_000)


def _answers(server: Server) -> bool:
    try:
        return server.ask("GET", "/healthz").status == 200
    except OSError:
        return False


def test_a_mirror_passes_on_keeps_and_survives_its_upstream(tmp_path: Path) -> None:
    with serving(tmp_path / "up") as upstream:
        upstream.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        upstream.ask("POST", "/api/repos/create", "alice", {"name": "hidden", "private": True})
        upstream.commit("models/alice/net", {"README.md": b"# Hi\n", "w.bin": BIG, "dir/a.txt": b"a"})
        head = upstream.ask("GET", "/api/models/alice/net").json()["sha"]
        with serving(tmp_path / "here", Options(upstream=upstream.address)) as mirror:
            mirror.ask("POST", "/api/repos/create", "bob", {"name": "own"})
            mirror.ask("POST", "/api/repos/create", "alice", {"name": "hidden2", "private": True})
            api = HfApi(endpoint=mirror.address, token=False)
            assert api.model_info("alice/net").sha == head
            assert api.model_info("bob/own").id == "bob/own"
            path = Path(
                snapshot_download(
                    "alice/net", endpoint=mirror.address, cache_dir=tmp_path / "c1", token=False
                )
            )
            assert (path / "w.bin").read_bytes() == BIG
            assert (path / "dir" / "a.txt").read_bytes() == b"a"
            for repository in ("alice/none", "alice/hidden", "alice/hidden2"):
                assert mirror.ask("GET", f"/api/models/{repository}", "bob").error == "404 RepoNotFound"
            missing = mirror.ask("GET", "/alice/net/resolve/main/none.txt")
            assert missing.error == "404 EntryNotFound"
            assert missing.headers["x-repo-commit"] == head
            part = mirror.ask("GET", "/alice/net/resolve/main/w.bin", headers={"Range": "bytes=5-9"})
            assert (part.status, part.body) == (206, BIG[5:10])
            assert upstream.listening is not None
            upstream.listening.stop()
            while _answers(upstream):
                pass
            again = hf_hub_download(
                "alice/net", "w.bin", endpoint=mirror.address, cache_dir=tmp_path / "c2", token=False
            )
            assert Path(again).read_bytes() == BIG
            assert mirror.ask("GET", "/api/models/alice/other", TOKENS["bob"]).status == 504
