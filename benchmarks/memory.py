"""Peak memory and time of a decomposition: few classes, many classes, and twice the images.

    python benchmarks/memory.py                     torchvision's resnet50 at 64 × 64, 10 and 1,000 classes
    python benchmarks/memory.py --one 100 8         one run: classes, images per class

Weights and images are random: memory and time do not depend on what they say. Every run is a process of its
own, so that its peak is its own. Half of the images are looked at, half are held out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torchvision.models import resnet50

from modhub.artifact import write_artifact
from modhub.data import ImageSet
from modhub.decomposition import DecomposeOptions, Parent, decompose
from modhub.decomposition.assembly import assemble
from modhub.devices import peak_memory
from modhub.importing import import_module
from modhub.manifest import InputSpec

SIDE = 64


def images_of(classes: int, each: int) -> ImageSet:
    """Noise made when it is looked at, so that the images themselves take no memory."""
    targets = np.repeat(np.arange(classes), each)
    labels = [f"class {number}" for number in range(classes)]

    def read(index: int) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)

    return ImageSet("noise", "train", labels, targets, read)


def measure(classes: int, each: int) -> dict[str, float]:
    torch.manual_seed(0)
    images = images_of(classes, each)
    spec = InputSpec(channels=3, height=SIDE, width=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    parent = Parent.of(
        import_module(resnet50(num_classes=classes).eval(), (3, SIDE, SIDE)),
        name="resnet50",
        architecture="resnet50",
        labels=images.labels,
        input=spec,
    )
    before = peak_memory() or 0
    started = time.perf_counter()
    options = DecomposeOptions(images_per_class=each // 2, calibration_images=each - each // 2)
    done = decompose(parent, images, options=options)
    found = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        modules = assemble(parent, done)
        write_artifact(Path(scratch) / "modules", modules)
    entries = modules.manifest.modules
    return {
        "classes": classes,
        "images": done.images,
        "seconds": found - started,
        "writing": time.perf_counter() - found,
        "before": before,
        "peak": peak_memory() or 0,
        "module": float(np.mean([entry.tensors.size for entry in entries])),
        "kept": float(np.mean([entry.kept_channels_fraction for entry in entries])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", nargs=2, type=int, metavar=("CLASSES", "IMAGES"))
    wanted = parser.parse_args().one
    if wanted:
        print(json.dumps(measure(*wanted)))
        return
    print("| classes | images | seconds | + writing | parent in memory | peak | per module on disk |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for classes, each in ((10, 4), (10, 400), (10, 800), (1000, 4), (1000, 8)):
        command = [sys.executable, __file__, "--one", str(classes), str(each)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"| {row['classes']:,} | {row['images']:,} | {row['seconds']:.0f} | {row['writing']:.0f} "
            f"| {row['before'] / 1e6:,.0f} MB | {row['peak'] / 1e6:,.0f} MB | {row['module'] / 1e3:.0f} kB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
