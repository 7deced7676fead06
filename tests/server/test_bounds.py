"""What a stranger's request costs: processor time and memory have a bound, and the answer says so."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from urllib.parse import quote

import pytest

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
    assert b"No answer was found in 100,000 steps." in answer.body


def measured(server: Server, method: str, path: str, body: object = None) -> Answer:
    """The answer, once it is known to have cost no more than it may. The server runs in this process."""
    began = time.process_time()
    answer = server.ask(method, path, None, body)
    assert time.process_time() - began < SECONDS
    # Once more, as counting the memory takes several times as long.
    tracemalloc.start()
    try:
        server.ask(method, path, None, body)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    return answer
