"""Write a set of golden files with the code that is checked out: `python -m tests.golden.make VERSION`.

    parent/                 a trained network of about 1,200 weights, as `write_parent` writes it
    modules/<name>/         artifacts: relevance, concern, standalone, taught
    hub/                    a directory hub with a release of each, and one that is yanked
    accounts/               the accounts of a server, with two tokens
    builds/<name>/          what `modhub compose` wrote, modhub.toml and modhub.lock among it
    digits.onnx             the default build, exported
    documents/<name>.json   what commands print with --json
    answers.safetensors     images, and the scores of the parent and of each build for them

Everything is made by the commands that users type, so that a later version makes its own set with the same
program. A set is made once, by the release it is named after, and never again: users have files like these.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import modhub
from modhub.data import as_batch, open_data
from modhub.importing import import_module
from modhub.manifest import InputSpec
from modhub.nets import Runner
from modhub.parents import write_parent

HOME = Path(__file__).parent
LABELS = ("0", "1", "2")
INPUT = InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.35,))
DATE = "2025-01-01T00:00:00Z"
DECOMPOSE = ("decompose", "parent", "--data", "digits", "--license", "mit", "--date", DATE)
METHODS = {
    "relevance": ("--images-per-class", "40"),
    "concern": ("--method", "concern", "--images-per-class", "40", "--only", "1,2"),
    "standalone": ("--form", "standalone", "--images-per-class", "40", "--only", "2", "--measure", "digits"),
}
"""The options that made `modules/<name>`, after `DECOMPOSE`."""
BUILDS = {
    # Two classes of one parent and one that was taught: one trunk, two heads.
    "default": (("0=lab/digits/0", "1=lab/digits/1>=1,<2", "eight=lab/taught/8"), ()),
    # Two methods, and a trunk of its own: two passes.
    "budget": (
        ("0=lab/digits/0", "1=lab/concern/1", "2=lab/alone/2"),
        ("--budget", "flops=0.7", "--seed", "3"),
    ),
    "reject": (
        ("1=lab/digits/1", "2=lab/digits/2"),
        ("--reject", "--calibrate", "digits", "--multiple", "2"),
    ),
}
"""What `builds/<name>` wants, and the options of `modhub compose`."""
TOKENS = {"alice": ("write", "hf_golden-alice-0123456789"), "bob": ("read", "hf_golden-bob-0123456789")}


class PicoResNet(nn.Module):
    """conv-bn-relu, a residual block, a strided conv, linear; (batch, 1, 8, 8) to (batch, classes)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, 6, 3, 1, 1), nn.BatchNorm2d(6)
        self.conv1, self.bn1 = nn.Conv2d(6, 5, 3, 1, 1, bias=False), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.Conv2d(5, 6, 3, 1, 1, bias=False), nn.BatchNorm2d(6)
        self.conv3 = nn.Conv2d(6, 10, 3, 2, 1)
        self.head = nn.Linear(10, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        out: Tensor = self.head(F.relu(self.conv3(x)).mean((2, 3)))
        return out


def trained() -> nn.Module:
    images = open_data("digits", "train").only(list(LABELS))
    inputs = (as_batch(images.images(range(len(images)))).float() / 255 - INPUT.mean[0]) / INPUT.std[0]
    targets = torch.from_numpy(images.targets)
    torch.manual_seed(0)
    model = PicoResNet(len(LABELS))
    optimiser = torch.optim.AdamW(model.parameters(), 0.01)
    for _ in range(12):
        for batch in torch.randperm(len(inputs)).split(32):
            optimiser.zero_grad()
            F.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            optimiser.step()
    return model.eval()


def make(place: Path) -> None:
    """The whole set, in a folder that is not there yet."""
    place.mkdir(parents=True)
    network = import_module(trained(), (1, 8, 8), name="pico")
    write_parent(
        place / "parent", network, name="pico", architecture="PicoResNet", labels=list(LABELS), input=INPUT
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "MODHUB_HUB": str(place / "hub"),
        "MODHUB_CACHE": str(place / ".cache"),
        "NO_COLOR": "1",
    }

    def run(*arguments: object, at: Path = place, document: str = "") -> None:
        command = [
            sys.executable,
            "-m",
            "modhub_cli",
            *map(str, arguments),
            *(["--json"] if document else []),
        ]
        done = subprocess.run(command, cwd=at, env=environment, check=True, stdout=subprocess.PIPE)
        if document:
            file = place / "documents" / f"{document}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(done.stdout)

    for name, options in METHODS.items():
        run(*DECOMPOSE, *options, "-o", f"modules/{name}")
    run("teach", "8", "--on", "modules/relevance", "--data", "digits", "--date", DATE, "-o", "modules/taught")
    run("push", "modules/relevance", "lab/digits", "--version", "1.0.0")
    run(*DECOMPOSE, "--only", "0,1", "--max-loss", "0.02", "-o", ".second")
    run("push", ".second", "lab/digits", "--version", "1.1.0")
    run("yank", "lab/digits==1.1.0", "--reason", "class 2 is missing")
    for name, repository in (("concern", "concern"), ("standalone", "alone"), ("taught", "taught")):
        run("push", f"modules/{name}", f"lab/{repository}", "--version", "v1.0")
    for user, (role, value) in TOKENS.items():
        to = ("--root", "accounts", "--user", user, "--role", role, "--org", "lab", "--value", value)
        run("token", "create", *to)
    for name, (wants, options) in BUILDS.items():
        project = place / ".projects" / name
        run("init", project)
        run("add", *wants, at=project)
        run("lock", at=project)
        run("compose", "-o", place / "builds" / name, *options, at=project)
    run("info", "lab/digits", document="info")
    run("versions", "lab/digits", document="versions")
    run("tree", at=place / ".projects" / "budget", document="tree")
    run("evaluate", "builds/default", "--data", "digits", document="evaluate")
    run("export", "builds/default", "-o", "digits.onnx")

    images = open_data("digits", "test").only([*LABELS, "8"])
    pixels = as_batch(images.images(range(0, len(images), 6)))
    answers = {"images": pixels, "targets": torch.from_numpy(images.targets[::6].copy())}
    with torch.inference_mode():
        answers["parent"] = Runner(network)((pixels.float() / 255 - INPUT.mean[0]) / INPUT.std[0])
        for name in BUILDS:
            classifier = modhub.load(place / "builds" / name)
            answers[name] = classifier(pixels)
            if classifier.reject:
                answers[f"{name}.acceptance"] = classifier.assess(pixels)[1]
    save_file({key: value.contiguous() for key, value in answers.items()}, place / "answers.safetensors")
    clean(place)


def clean(place: Path) -> None:
    """Without locks, what is made anew from the rest, and where on this machine it was made."""
    for pattern in (".*", "hub/*.sqlite*", "hub/staging", "hub/locks", "hub/blobs/.locks", "accounts/*.lock"):
        for path in list(place.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in sorted(place.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    exported = onnx.load(place / "digits.onnx")
    graph = exported.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
    onnx.save(exported, place / "digits.onnx")


def main(arguments: list[str]) -> str | None:
    """What is wrong, or None once the set is written."""
    if arguments != [modhub.__version__]:
        return f"This is the code of one version only. Type: python -m tests.golden.make {modhub.__version__}"
    place = HOME / modhub.__version__
    if place.exists():
        return f"Golden files of {modhub.__version__} exist, and are never written again."
    make(place)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
