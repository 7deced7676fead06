"""What a user would pick instead: a classifier of two classes, made of one trained parent in other ways.

    python benchmarks/peers.py --data D --weights W --out DIR [--parent C10-R20] [--sets 10] [--quick]

D and W are those of composition.py; torch-pruning comes with modhub's extra `benchmark`. For each pair of
classes, at 70, 50 and 35 % of the parent's multiply-adds:

- `modhub`: composed without data; `modhub --tune`: on 600 training images of the pair, labels unread
- `torch-pruning`: Taylor importance on these images, channels inside residual blocks; then distillation from
  the parent on them
- `slim`: a narrower network of the same kind from scratch on these images and their labels
- `slim, all images`: the same on all 10,000 labelled training images of the pair
- `int8`: the whole parent, statically quantized by ONNX Runtime on the same 600 images

What trains gets the processor seconds that `modhub --tune` took for the same pair and budget; `slim, all
images` is measured once more with ten times as many. Accuracy is top-1 on the pair's test images, beside the
parent's logits restricted to the pair. Test images measure only. Latency is measured on the first pair, every
candidate in one run, interleaved, as a ratio to the whole parent. DIR keeps every measurement: run it again
to go on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
import torch_pruning
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ledger import Ledger
from modhub.composition import Budget, compose
from modhub.data import ImageSet
from modhub.evaluation.timing import side_by_side
from modhub.runtimes.export import export_classifier
from peer_tables import BUDGETS, MORE, PEERS, accuracy_table, latency_table
from subsets import class_sets, flops_share, tuning_images
from training import augmented
from world import PARENTS, World

_PRUNING_STEPS = 40
_CALIBRATION = 600
_BATCH = 128


@dataclass(frozen=True, slots=True)
class Pair:
    """Two classes of a parent, and the images that methods may see of them."""

    world: World
    parent: str
    labels: tuple[str, ...]

    @property
    def key(self) -> str:
        return "+".join(self.labels)

    @property
    def rows(self) -> Tensor:
        return torch.tensor([self.world.parent(self.parent).labels.index(label) for label in self.labels])

    @property
    def few(self) -> ImageSet:
        return tuning_images(self.world, self.parent, self.labels)

    @property
    def all(self) -> ImageSet:
        return self.world.images(PARENTS[self.parent].dataset, "train").only(list(self.labels))

    def pixels(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """uint8 (n, 3, 32, 32) and targets (n,) as places in `labels`."""
        batches = list(images.batches(250))
        order = {images.labels.index(label): place for place, label in enumerate(self.labels)}
        targets = torch.tensor([order[int(target)] for target in images.targets])
        return torch.cat([pixels for pixels, _ in batches]), targets

    def whole(self) -> nn.Module:
        """The parent as its authors wrote it, with the pair's outputs alone; raw images in."""
        network = deepcopy(self.world.module(self.parent))
        network[1].load_state_dict(_state(self.world, self.parent))
        linear = network[1].linear
        narrowed = nn.Linear(linear.in_features, len(self.labels))
        narrowed.weight.data, narrowed.bias.data = linear.weight.data[self.rows], linear.bias.data[self.rows]
        network[1].linear = narrowed
        return network.eval()

    def accuracy(self, network: Callable[[Tensor], Tensor]) -> float:
        """Top-1 on the test images of the pair; `network` answers (n, 2) in the order of `labels`."""
        test = self.world.images(PARENTS[self.parent].dataset, "test").only(list(self.labels))
        pixels, targets = self.pixels(test)
        with torch.inference_mode():
            answers = torch.cat([network(batch) for batch in pixels.split(250)]).argmax(1)
        return float((answers == targets).double().mean())


def _state(world: World, parent: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(world.weights / f"{PARENTS[parent].weights}.safetensors")


def multiply_adds(network: nn.Module) -> int:
    """Of one image, by PyTorch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    return int(counter.get_total_flops()) // 2


def fit(
    network: nn.Module,
    pixels: Tensor,
    loss_of: Callable[[Tensor, Tensor, Tensor], Tensor],
    *,
    seconds: float,
    rate: float,
    seed: int = 0,
) -> None:
    """Fit in place for so many processor seconds: SGD with momentum, warm-up and cosine by the seconds spent,
    random flips and crops. `loss_of` takes the answers, the augmented images and which images these are."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    network.train()
    start = time.process_time()
    while True:
        for chosen in torch.randperm(len(pixels), generator=generator).split(_BATCH):
            spent = (time.process_time() - start) / seconds
            if spent >= 1:
                network.eval()
                return
            optimizer.param_groups[0]["lr"] = (
                rate * min(1.0, spent / 0.1) * (1 + math.cos(math.pi * spent)) / 2
            )
            if len(chosen) < 2:
                continue
            images = augmented(pixels[chosen].float() / 255, generator)
            loss = loss_of(network(images), images, chosen)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def pruned(pair: Pair, budget: float) -> nn.Module:
    """torch-pruning (Fang et al., CVPR 2023, arXiv 2301.12900): group Taylor importance, global, in small
    steps, each by the gradients of 200 of the 600 images; first convolutions of blocks only; to `budget` of
    the parent's multiply-adds."""
    pixels, targets = pair.pixels(pair.few)
    network = pair.whole()
    wanted = budget * multiply_adds(network)
    inner = {block.conv1 for block in network.modules() if hasattr(block, "conv2")}
    layers = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    pruner = torch_pruning.pruner.BasePruner(
        network[1],
        torch.zeros(1, 3, 32, 32),
        importance=torch_pruning.importance.GroupTaylorImportance(),
        global_pruning=True,
        pruning_ratio=0.95,
        max_pruning_ratio=0.95,
        iterative_steps=_PRUNING_STEPS,
        ignored_layers=[layer for layer in layers if layer not in inner],
    )
    batches = cycle(zip(*(part.split(200) for part in _mixed(pixels, targets)), strict=True))
    for _ in range(_PRUNING_STEPS):
        if multiply_adds(network) <= wanted:
            break
        batch, expected = next(batches)
        network.zero_grad()
        F.cross_entropy(network(batch), expected).backward()
        pruner.step()
    return network.eval()


def _mixed(pixels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    return pixels[order], targets[order]


def slim(pair: Pair, budget: float) -> nn.Module:
    """A fresh ResNet of the parent's depth, narrow enough for `budget` of its multiply-adds."""
    whole = pair.whole()
    wanted = budget * multiply_adds(whole)
    preprocess, depth = whole[0], 2 + 2 * sum(hasattr(module, "conv2") for module in whole.modules())
    torch.manual_seed(0)
    for base in range(15, 1, -1):
        network = nn.Sequential(preprocess, NarrowResNet(depth, base, len(pair.labels)))
        if multiply_adds(network) <= wanted:
            break
    return network


class _NarrowBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.stride, self.more = stride, channels_out - channels_in

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        before = self.more // 2
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.more - before))
        return F.relu(y + shortcut)


class NarrowResNet(nn.Module):
    """The parents' kind of network (option A shortcuts) with `base`, 2·`base` and 4·`base` channels."""

    def __init__(self, depth: int, base: int, classes: int) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, base, 3, 1, 1, bias=False), nn.BatchNorm2d(base)
        blocks, channels = [], base
        for stage in range(3):
            for block in range((depth - 2) // 6):
                stride = 2 if stage and not block else 1
                blocks.append(_NarrowBlock(channels, base << stage, stride))
                channels = base << stage
        self.blocks, self.linear = nn.Sequential(*blocks), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.stem(x))))
        answers: Tensor = self.linear(x.mean((2, 3)))
        return answers


def distilled(pair: Pair, network: nn.Module, seconds: float) -> nn.Module:
    """Fitted to the parent's answers for the 600 images."""
    pixels, _ = pair.pixels(pair.few)
    teacher = pair.whole()

    def loss_of(answers: Tensor, images: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            taught = teacher(images).log_softmax(1)
        return F.kl_div(answers.log_softmax(1), taught, reduction="batchmean", log_target=True)

    fit(network, pixels, loss_of, seconds=seconds, rate=0.02)
    return network


def from_scratch(pair: Pair, network: nn.Module, images: ImageSet, seconds: float) -> nn.Module:
    pixels, targets = pair.pixels(images)
    fit(
        network,
        pixels,
        lambda answers, _, chosen: F.cross_entropy(answers, targets[chosen]),
        seconds=seconds,
        rate=0.1,
    )
    return network


def made(pair: Pair, peer: str, budget: float, seconds: float) -> nn.Module:
    """The network of a peer, trained for `seconds` where it is one that trains."""
    if peer.startswith("modhub"):
        tune = pair.few if peer.endswith("--tune") else None
        parts = pair.world.parts(pair.parent, pair.labels)
        return compose(parts, budget=Budget(flops=budget), tune=tune, synthesizer=pair.world.synthesizer)
    if peer == "torch-pruning":
        start = time.process_time()
        network = pruned(pair, budget)
        return distilled(pair, network, max(1.0, seconds - (time.process_time() - start)))
    images = pair.few if peer == "slim" else pair.all
    return from_scratch(pair, slim(pair, budget), images, seconds * (MORE if "×" in peer else 1))


def measured(pair: Pair, peer: str, budget: float, seconds: float) -> dict[str, float]:
    start = time.process_time()
    network = made(pair, peer, budget, seconds)
    spent = time.process_time() - start
    ours = peer.startswith("modhub")
    share = flops_share(network) if ours else multiply_adds(network) / multiply_adds(pair.whole())  # type: ignore[arg-type]
    return {
        "accuracy": pair.accuracy(network),
        "restricted": pair.world.restricted(pair.parent, pair.labels),
        "flops": share,
        "seconds": spent,
        "bytes": 4 * sum(weights.numel() for weights in _weights(network)),
    }


def _weights(network: nn.Module) -> Iterator[Tensor]:
    """What a file of the network holds."""
    return (
        tensor
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point() and "preprocess" not in name
    )


class _Images(CalibrationDataReader):
    def __init__(self, name: str, pixels: Tensor) -> None:
        self._batches = iter([{name: batch.numpy()} for batch in pixels.split(50)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def quantized(pair: Pair, folder: Path) -> Path:
    """The whole parent in int8, as ONNX Runtime's static quantization makes it from the 600 images. Its
    input is normalised images: preprocessing stays in float."""
    pixels, _ = pair.pixels(pair.few)
    whole = pair.whole()
    plain, prepared, path = (folder / f"{name}.onnx" for name in ("float", "prepared", "int8"))
    _to_onnx(whole[1], plain, torch.zeros(2, 3, 32, 32))
    quant_pre_process(plain, prepared)
    with torch.inference_mode():
        normal = whole[0](pixels[:_CALIBRATION])
    quantize_static(
        prepared,
        path,
        _Images("input", normal),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
    )
    return path


def _to_onnx(network: nn.Module, path: Path, example: Tensor) -> None:
    torch.onnx.export(
        network,
        (example,),
        str(path),
        input_names=["input"],
        dynamic_axes={"input": {0: "batch"}},
        dynamo=False,
    )


def _session(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def int8(pair: Pair) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        path = quantized(pair, Path(folder))
        spent = time.process_time() - start
        run, preprocess = _session(path, 1), pair.whole()[0]
        return {
            "accuracy": pair.accuracy(lambda batch: torch.from_numpy(run(preprocess(batch).numpy()))),
            "restricted": pair.world.restricted(pair.parent, pair.labels),
            "flops": 1.0,
            "seconds": spent,
            "bytes": path.stat().st_size,
        }


def latency(pair: Pair, budget: float, seconds: float, threads: int) -> dict[str, dict[str, float]]:
    """Medians of every candidate's time over the whole parent's, one run a runtime and batch size; what
    trains is not trained for it."""
    networks: dict[str, nn.Module] = {
        "parent": pair.whole(),
        "modhub": made(pair, "modhub", budget, 0),
        "torch-pruning": pruned(pair, budget),
        "slim": slim(pair, budget).eval(),
    }
    found: dict[str, dict[str, float]] = {name: {} for name in (*networks, "int8")}
    with tempfile.TemporaryDirectory() as folder:
        sessions: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
        images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
        for number, (name, network) in enumerate(networks.items()):
            path = Path(folder) / f"{number}.onnx"
            export_classifier(network, list(pair.labels), path, format="onnx", images=images[:2])
            sessions[name] = _session(path, threads)
        run, preprocess = _session(quantized(pair, Path(folder)), threads), pair.whole()[0]
        sessions["int8"] = lambda batch: run(preprocess(torch.from_numpy(batch)).numpy())
        for size in (1, 64):
            batch = images[:size].contiguous()
            with torch.inference_mode():
                eager = side_by_side([partial(network, batch) for network in networks.values()], seconds)
                onnx = side_by_side([partial(run, batch.numpy()) for run in sessions.values()], seconds)
            for runtime, names, times in (("PyTorch", networks, eager), ("ONNX Runtime", sessions, onnx)):
                for name, value in zip(names, times, strict=True):
                    found[name][f"{runtime}, batch {size}"] = value / times[0]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--parent", choices=sorted(PARENTS), default="C10-R20")
    parser.add_argument("--sets", type=int, default=10)
    parser.add_argument("--minutes", type=float)
    parser.add_argument(
        "--only", default="", help="measure what matches this pattern; show the rest if known"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8, help="for each comparison of latencies")
    parser.add_argument("--quick", action="store_true", help="one pair at 50 %%")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seconds = None if options.minutes is None else 60 * options.minutes
    ledger = Ledger(options.out / "peers.jsonl", seconds=seconds, only=options.only)
    world = World(options.data, options.weights, options.out)
    budgets = (0.5,) if options.quick else BUDGETS
    pairs = [
        Pair(world, options.parent, labels)
        for labels in class_sets(world.parent(options.parent).labels, 2, 1 if options.quick else options.sets)
    ]
    for pair in pairs:
        key = f"peers/{options.parent}/{pair.key}"
        for budget in budgets:
            tune = ledger.measure(
                f"{key}/{budget:g}/modhub --tune", partial(measured, pair, "modhub --tune", budget, 0)
            )
            for peer in PEERS:
                seconds = 0.0 if tune is None else tune["seconds"]
                if tune is not None or peer == "modhub":
                    ledger.measure(f"{key}/{budget:g}/{peer}", partial(measured, pair, peer, budget, seconds))
        ledger.measure(f"{key}/int8", partial(int8, pair))
    for budget in budgets:
        ledger.measure(
            f"peers/{options.parent}/{pairs[0].key}/{budget:g}/latency",
            partial(latency, pairs[0], budget, options.seconds, options.threads),
        )
    print(accuracy_table(ledger.known, [options.parent]))
    print(latency_table(ledger.known))
    if ledger.skipped:
        print(json.dumps({"not measured": ledger.skipped}))


if __name__ == "__main__":
    main()
