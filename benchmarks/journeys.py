"""Seconds, decodes and parent passes of decompose and compose, here and in an older checkout, side by side.

    python benchmarks/journeys.py --data DATA --weights WEIGHTS --against CHECKOUT
    python benchmarks/journeys.py --data DATA --weights WEIGHTS --against CHECKOUT --quick

DATA holds `cifar10/train/<class>/*.png`, WEIGHTS `cifar10_resnet20.safetensors`, CHECKOUT is an older working
tree. Two journeys: ResNet-20 on 5,000 of the PNG files, and torchvision's resnet18 (random weights) at 224 on
1,000 JPEG files of 500 × 375 that are made here. Each is `modhub decompose`, then `modhub.compose` of all ten
modules to half of the multiply-adds, tuned on a tenth of the images.

Every run is a process of its own; the checkouts are interleaved, round by round, so that other work on the
machine slows both alike. Shown are medians and the ratios old / new of medians: of wall-clock seconds, and of
CPU seconds, which a busy machine disturbs less. A decode is a file opened by Pillow; a pass is one image that
goes through the parent's first convolution, unpruned. Both are per image of the data set.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
STEPS = ("decompose", "compose")
IMAGENET = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
RESNET18 = """
import torch
from torchvision.models import resnet18


def parent():
    torch.manual_seed(0)
    return resnet18(num_classes=10).eval()
"""


def link_pngs(source: Path, target: Path, per_class: int) -> None:
    """The first `per_class` PNG files of every class, as links."""
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        (target / folder.name).mkdir(parents=True)
        for path in sorted(folder.glob("*.png"))[:per_class]:
            (target / folder.name / path.name).symlink_to(path.resolve())


def make_jpegs(source: Path, target: Path, per_class: int) -> None:
    """The first `per_class` PNG files of every class, enlarged to 500 × 375, with noise, as JPEG."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(-8, 9, (375, 500, 3))
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        (target / folder.name).mkdir(parents=True)
        for path in sorted(folder.glob("*.png"))[:per_class]:
            with Image.open(path) as image:
                large = image.convert("RGB").resize((500, 375), Image.Resampling.BICUBIC)
            pixels = (np.asarray(large) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(target / folder.name / f"{path.stem}.jpg", quality=90)


def worker(out: Path, images: Path, tune: Path, decompose: list[str]) -> None:
    """Both steps in this process, with the modhub that PYTHONPATH names; prints one JSON document."""
    import PIL.Image
    import torch
    import torch.nn.functional as F

    import modhub
    from modhub_cli.main import main

    counts = {"decodes": 0, "passes": 0}
    stem: list[tuple[int, ...]] = []
    open_image: Callable[..., Any] = PIL.Image.open
    conv2d: Callable[..., Any] = F.conv2d

    def counted_open(*arguments: Any, **options: Any) -> Any:
        counts["decodes"] += 1
        return open_image(*arguments, **options)

    def counted_conv2d(x: torch.Tensor, weight: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        # Not while the network is imported: tracing may not look at the batch size.
        if type(x) is torch.Tensor and weight.shape[1] == 3 and not torch.compiler.is_compiling():
            # The first convolution that runs is the parent's; slices of it are smaller.
            if not stem:
                stem.append(tuple(weight.shape))
            counts["passes"] += len(x) if tuple(weight.shape) == stem[0] else 0
        return conv2d(x, weight, *arguments, **options)

    PIL.Image.open, F.conv2d = counted_open, counted_conv2d
    total = sum(1 for path in images.rglob("*.*"))
    results: dict[str, dict[str, float]] = {}

    def measure(step: str, work: Callable[[], object]) -> None:
        counts.update(decodes=0, passes=0)
        start, processor = time.perf_counter(), time.process_time()
        work()
        results[step] = {
            "seconds": time.perf_counter() - start,
            "processor": time.process_time() - processor,
            **{name: count / total for name, count in counts.items()},
        }

    def run_decompose() -> None:
        sys.argv = [
            "modhub",
            "decompose",
            *decompose,
            "--data",
            f"imagefolder:{images}",
            "-o",
            str(out),
            "-q",
        ]
        try:
            main()
        except SystemExit as stop:
            if stop.code:
                raise

    measure("decompose", run_decompose)
    budget = modhub.Budget(flops=0.5)
    measure("compose", lambda: modhub.compose(out, budget=budget, tune=f"imagefolder:{tune}", device="cpu"))
    # The command line has used stdout; the last line is ours.
    print(json.dumps(results))


def run(checkout: Path, arguments: list[str], threads: int) -> dict[str, dict[str, float]]:
    path = os.pathsep.join(str(checkout / part) for part in ("registry", "cli"))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, __file__, "--worker", f"{scratch}/modules", *arguments],
            env=environment,
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{checkout}: {done.stderr.strip() or done.stdout.strip()}")
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(name: str, arguments: list[str], checkouts: list[Path], rounds: int, threads: int) -> None:
    """Print a row for each step of one journey."""
    runs: list[list[dict[str, dict[str, float]]]] = [[] for _ in checkouts]
    for _ in range(rounds):
        for checkout, results in zip(checkouts, runs, strict=True):
            results.append(run(checkout, arguments, threads))
    for step in STEPS:
        row = [name, step]
        for clock in ("seconds", "processor"):
            medians = [statistics.median(result[step][clock] for result in results) for results in runs]
            row += [*(f"{value:.1f}" for value in medians), f"{medians[0] / medians[-1]:.2f}"]
        for count in ("decodes", "passes"):
            row += [f"{results[0][step][count]:.2f}" for results in runs]
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--against", type=Path, required=True, metavar="CHECKOUT")
    parser.add_argument("--quick", action="store_true", help="A tenth of the images, one round.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="OMP_NUM_THREADS of all runs."
    )
    parser.add_argument("--only", choices=("png", "jpeg"))
    options = parser.parse_args()
    source = options.data / "cifar10" / "train"
    share, rounds = (10, 1) if options.quick else (1, options.rounds)
    checkouts = [options.against.resolve(), HERE]
    print(
        "| journey | step | old, s | new, s | old / new | old, CPU s | new, CPU s | old / new "
        "| decodes, old | new | passes, old | new |"
    )
    print("|---|---" + "|--:" * 10 + "|")
    with tempfile.TemporaryDirectory() as scratch:
        for kind, per_class in (("png", 500 // share), ("jpeg", 100 // share)):
            if options.only not in (None, kind):
                continue
            fill = link_pngs if kind == "png" else make_jpegs
            images, tune = Path(scratch, kind), Path(scratch, f"{kind}-tune")
            fill(source, images, per_class)
            fill(source, tune, max(per_class // 10, 2))
            if kind == "png":
                weights = (options.weights / "cifar10_resnet20.safetensors").resolve()
                parent = ["modhub:resnet20", "--weights", str(weights), *IMAGENET]
            else:
                Path(scratch, "resnet18.py").write_text(RESNET18)
                parent = [f"{scratch}/resnet18.py:parent", "--input-size", "224x224", *IMAGENET]
            name = f"{'ResNet-20' if kind == 'png' else 'resnet18'}, {10 * per_class:,} {kind.upper()}"
            compare(
                name, [str(images), str(tune), "--device", "cpu", *parent], checkouts, rounds, options.threads
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        out, images, tune = map(Path, sys.argv[2:5])
        worker(out, images, tune, sys.argv[5:])
    else:
        main()
