"""Real processes: two give the same files as one, and a killed one is taken up where it was."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from modhub.api.decompose import decompose_to
from modhub.data import ImageSet, open_data
from modhub.decomposition import DecomposeOptions
from modhub.decomposition.checkpoint import Checkpoint, digest_of_images, looked_at
from modhub.decomposition.network_input import voting
from modhub.errors import StorageError
from modhub.files import claimed
from modhub.reporter import Reporter
from tests.support.determined import determined_files
from tests.support.digit_parents import DigitNet, digit_parent, digits
from tests.support.preloaded import Decomposition

ROOT = Path(__file__).parents[2]
POOLED = "from modhub.decomposition import observations; observations.CORRELATION_LIMIT = 0"
"""A tiny parent treated as one that is too large for correlations of each class's own."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent as a file of code and a file of weights."""
    home = tmp_path_factory.mktemp("shop")
    parent = digit_parent()
    network = parent.head.join(parent.trunk)
    torch.save(network.tensors, home / "weights.pt")
    (home / "net.py").write_text(
        "import torch\n"
        "from tests.support.digit_parents import DigitNet\n"
        "def net():\n"
        "    torch.manual_seed(3)\n"
        "    return DigitNet(6, 12).eval()\n",
        encoding="utf-8",
    )
    return home


def command(shop: Path, target: str, *more: str) -> list[str]:
    return [
        f"{shop}/net.py:net",
        *("--data", "digits", "--labels", "0,1,2,3,4,5", "--input-size", "1x8x8", "--images-per-class", "60"),
        *("-o", str(shop / target), *more),
    ]


def reported(launcher: Sequence[str], arguments: Sequence[str]) -> Any:
    """What a process of its own prints with --json."""
    path = os.pathsep.join(str(part) for part in (ROOT / "registry", ROOT / "cli", ROOT))
    done = subprocess.run(
        [sys.executable, "-m", *launcher, *arguments, "--json"],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        text=True,
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module", params=["", POOLED], ids=["own", "pooled"])
def whole(request: pytest.FixtureRequest, shop: Path) -> tuple[str, dict[str, bytes]]:
    """The code that a process runs first, and the files of one that is not interrupted."""
    code = str(request.param)
    target = f"whole-{bool(code)}"
    if code:
        ended, said = Decomposition(command(shop, target), shop / "whole.log", code).end()
        assert ended == 0, said
    else:
        made = reported(["modhub.decompose"], command(shop, target))
        assert (made["processes"], made["device"]) == (1, "cuda:0" if torch.cuda.is_available() else "cpu")
        assert made["elapsed_seconds"] >= made["seconds"] > 0
        assert made["peak_bytes"] is not None
        assert made["peak_bytes"] > 10_000_000
    assert not (shop / f".{target}.resume").exists()
    return code, determined_files(shop / target)


def test_two_processes_write_the_files_of_one(shop: Path, whole: tuple[str, dict[str, bytes]]) -> None:
    code, expected = whole
    target = f"two-{bool(code)}"
    if code:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        # What torchrun tells its processes.
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks = [
            Decomposition(command(shop, target), shop / f"{rank}.log", code, {**group, "RANK": str(rank)})
            for rank in range(2)
        ]
        assert [rank.end()[0] for rank in ranks] == [0, 0]
    else:
        torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
        assert reported([*torchrun, "modhub.decompose"], command(shop, target))["processes"] == 2
    assert determined_files(shop / target) == expected
    assert not (shop / f".{target}.resume").exists()


@pytest.mark.parametrize("moment", ["classes-1", "choice-2"])
def test_a_killed_run_goes_on_and_writes_the_same(
    shop: Path, whole: tuple[str, dict[str, bytes]], moment: str
) -> None:
    code, expected = whole
    target = f"killed-{bool(code)}-{moment}"
    folder = shop / f".{target}.resume"
    process = Decomposition(command(shop, target), shop / "killed.log", code).process
    until = time.monotonic() + 100
    while not list(folder.glob(f"*/{moment}.safetensors")):
        assert process.is_alive(), "it was done before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.001)
    process.kill()
    process.join()
    assert not (shop / target).exists()
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*/*.safetensors")}
    assert kept.keys() >= {"classes-0.safetensors", f"{moment}.safetensors"}
    again, said = Decomposition(command(shop, target), shop / "again.log", code).end()
    assert again == 0, said
    assert determined_files(shop / target) == expected
    assert not folder.exists()


INTERRUPTED = """\
import os, signal
from modhub.decomposition.checkpoint import Checkpoint
save = Checkpoint.save
def pressed(self, name, *more, **options):
    save(self, name, *more, **options)
    if name == "choice-1":
        os.kill(os.getpid(), signal.SIGINT)
Checkpoint.save = pressed
"""
"""A process that gets Ctrl-C at a certain moment, however fast the machine is."""


def test_ctrl_c_says_how_to_go_on(shop: Path) -> None:
    folder = shop / ".stopped.resume"
    code, said = Decomposition(command(shop, "stopped"), shop / "stopped.log", INTERRUPTED).end()
    assert code == 130
    assert f"What was found so far is kept in '{folder}': the same command goes on from there." in said
    assert folder.is_dir()
    assert not (shop / "stopped").exists()


class _Interrupting(Reporter):
    """Presses Ctrl-C when the third class is being chosen, and counts the classes observed."""

    def __init__(self, after: int) -> None:
        self.left, self.title, self.said = after, "", []

    def step(self, title: str, total: int | None = None):  # type: ignore[no-untyped-def]
        self.title = title
        return super().step(title, total)

    def advance(self, amount: int = 1) -> None:
        if self.title == "choose channels":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.said.append(text)


def test_finished_work_is_not_done_again(tmp_path: Path) -> None:
    """After an interruption no image of the fit is read again."""
    images = digits("012345").sample(30, 0)
    read: list[int] = []

    def counting(index: int):  # type: ignore[no-untyped-def]
        read.append(index)
        return images.images([index])[0]

    counted = ImageSet(images.name, images.split, images.labels, images.targets, counting)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = DigitNet(6, 12).eval()
    settings = DecomposeOptions(input_size=(8, 8), images_per_class=20, device="cpu")
    reporter = _Interrupting(3)
    with pytest.raises(KeyboardInterrupt):
        decompose_to(tmp_path / "out", model, counted, settings, reporter=reporter)
    said = reporter.said[-1]
    assert said.startswith(f"What was found so far is kept in '{tmp_path}/.out.resume'")
    assert sorted(read) == list(range(len(images))), "each image is decoded once"
    first = len(read)
    read.clear()
    decompose_to(tmp_path / "out", model, counted, settings)
    assert len(set(read)) == len(read)
    looked = len({*voting(images), *looked_at(images)})
    assert 6 * 5 - looked <= first - len(read) <= 6 * 5, "of those to choose by only what tells them apart"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_images_are_other_work_and_two_never_share_a_place(tmp_path: Path) -> None:
    for label in ("one", "two"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(40):
            pixels = np.full((8, 8), number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{number:02}.bmp")
    before = open_data(f"imagefolder:{tmp_path / 'data'}")
    known = digest_of_images(before.only(["one"]))
    assert known == digest_of_images(open_data(f"imagefolder:{tmp_path / 'data'}").only(["one"]))
    # Not one of those whose pixels are looked at.
    (tmp_path / "data" / "one" / "01.bmp").write_bytes(b"another image")
    assert known != digest_of_images(open_data(f"imagefolder:{tmp_path / 'data'}").only(["one"]))

    settings = DecomposeOptions(input_size=(8, 8), device="cpu")
    with (
        claimed(tmp_path / ".out.resume", tmp_path / "out"),
        pytest.raises(StorageError, match=rf"^Another process is at work on '{tmp_path / 'out'}'"),
    ):
        decompose_to(tmp_path / "out", DigitNet(2, 4).eval(), before, settings)
    assert not (tmp_path / ".out.resume").exists()


def test_other_work_finds_nothing_of_this(tmp_path: Path) -> None:
    one = Checkpoint(tmp_path, ["parent", 1])
    tensors = {"a": torch.tensor([1 / 3], dtype=torch.float64)}
    one.save("x", tensors, {"price": 1 / 3})
    found = Checkpoint(tmp_path, ["parent", 1]).load("x")
    assert found is not None
    assert torch.equal(found[0]["a"], tensors["a"])
    assert found[1] == {"price": 1 / 3}
    assert Checkpoint(tmp_path, ["parent", 2]).load("x") is None
    assert Checkpoint(tmp_path, ["parent", 1]).load("x") is None, "removed with the first other work"
    assert Checkpoint(None, []).load("x") is None


def test_damaged_savings_are_named(tmp_path: Path) -> None:
    saved = Checkpoint(tmp_path, 1)
    saved.save("x", {"a": torch.zeros(3)})
    (place,) = tmp_path.glob("*/x.safetensors")
    place.write_bytes(place.read_bytes()[:-4])
    with pytest.raises(
        StorageError, match=r"x\.safetensors' is damaged .*Remove its folder to begin again\."
    ):
        saved.load("x")
