"""Latency of slim networks beside their whole parents, in PyTorch and in ONNX Runtime, in one run.

Two networks: a composed classifier of two classes of a CIFAR parent (raw images in, scores out; with exactly
its modules' channels, with default settings, at half the multiply-adds, and at half in multiples of 8), and
torchvision's resnet18 at 224 × 224 cut to half of them. Both runtimes compute on the same number of threads;
all four candidates of a row run interleaved, and medians are reported. ONNX files are written and checked as
`modhub export` does it.

    python benchmarks/runtimes.py --modules bench-out/modules/C10-R20
    python benchmarks/runtimes.py --modules DIR --threads 2 --seconds 20
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from modhub.artifact import read_artifact
from modhub.composition import Budget, compose, parts_of
from modhub.data.preprocessing import Preprocess
from modhub.evaluation.timing import side_by_side
from modhub.nets import Head, Runner
from modhub.runtimes.export import export_classifier
from speed import wide_pair

Pair = tuple[str, nn.Module, nn.Module, Tensor, tuple[int, ...]]
"""What it is, the slim and the whole network, images to draw a batch from, and batch sizes."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--modules", type=Path, required=True, help="the modules of a CIFAR parent, as decompose wrote them"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10, help="for each row")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"{options.threads} thread{'s' * (options.threads > 1)}, torch {torch.__version__}, ", end="")
    print(f"ONNX Runtime {onnxruntime.__version__}; milliseconds per batch, medians.\n")
    print("| network | batch | PyTorch, slim | whole | ratio | ONNX Runtime, slim | whole | ratio |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    pairs = [
        _composed(options.modules, Budget(multiple=1)),
        _composed(options.modules, Budget()),
        _composed(options.modules, Budget(flops=0.5)),
        _composed(options.modules, Budget(flops=0.5, multiple=8)),
        _wide(0.5),
    ]
    for name, slim, whole, images, sizes in pairs:
        with tempfile.TemporaryDirectory() as folder:
            sessions = [
                _session(network, images, Path(folder) / f"{number}.onnx", options.threads)
                for number, network in enumerate((slim, whole))
            ]
        for size in sizes:
            batch = images[torch.arange(size) % len(images)].contiguous()
            array = batch.numpy()
            works: list[Callable[[], object]] = [
                partial(slim, batch),
                partial(whole, batch),
                partial(sessions[0], array),
                partial(sessions[1], array),
            ]
            with torch.inference_mode():
                times = side_by_side(works, options.seconds)
            eager, eager_whole, onnx, onnx_whole = (1000 * each for each in times)
            print(
                f"| {name} | {size} | {eager:.2f} | {eager_whole:.2f} | {eager / eager_whole:.2f} "
                f"| {onnx:.2f} | {onnx_whole:.2f} | {onnx / onnx_whole:.2f} |",
                flush=True,
            )


def _composed(directory: Path, budget: Budget) -> Pair:
    """The fourth and sixth class of a parent, on CIFAR-10 cat and dog."""
    modules = read_artifact(directory)
    about = modules.manifest
    labels = [about.parent.labels[row] for row in (3, 5)]
    slim = compose(parts_of(modules, labels), budget=budget)
    head = Head(modules.shared.parent_weight, modules.shared.parent_bias)
    whole = nn.Sequential(Preprocess(about.input), Runner(head.join(modules.trunk))).eval()
    (report,) = [each.report for each in slim.trunk_passes]
    images = torch.randint(0, 256, (16, 3, about.input.height, about.input.width), dtype=torch.uint8)
    share = report.flops / report.parent_flops
    name = f"{about.parent.name}, {' and '.join(labels)}, {100 * share:.0f} % of the multiply-adds"
    if budget.block > 1:
        name += f", channels in multiples of {budget.block}"
    return name, slim, whole, images, (1, 128)


def _wide(flops: float) -> Pair:
    slim, whole, share = wide_pair(flops)
    name = f"torchvision resnet18, 224 × 224, {100 * share:.0f} % of the multiply-adds"
    return name, slim, whole, torch.rand(4, 3, 224, 224), (1, 16)


def _session(network: nn.Module, images: Tensor, path: Path, threads: int) -> Callable[[object], object]:
    with torch.inference_mode():
        count = network(images[:1]).shape[1]
    export_classifier(network, [str(row) for row in range(count)], path, format="onnx", images=images)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})


if __name__ == "__main__":
    main()
