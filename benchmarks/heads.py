"""`decompose --fit-head` beside scikit-learn's LogisticRegressionCV, on the same features.

    python benchmarks/heads.py --data DATA --weights WEIGHTS

20 classes of CIFAR-100 on the trunk of a CIFAR-10 network (C10-R20), from 5, 20 and 100 images of each; top-1
on their 2,000 test images, and seconds of one core for choosing the regularisation and fitting.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modhub.api.decompose import open_parent
from modhub.data import ImageSet, open_data
from modhub.data.preprocessing import Preprocess
from modhub.decomposition.discriminant import fit_discriminant
from modhub.nets import Runner, fuse_batch_norm
from world import World

CLASSES, SEEDS, SHOTS = 20, 5, (5, 20, 100)
Array = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    given = parser.parse_args()
    source = {
        split: open_data(f"imagefolder:{given.data / 'cifar100'}", split) for split in ("train", "test")
    }
    labels = source["train"].labels
    chosen = [labels[row] for row in sorted(np.random.default_rng(7).permutation(len(labels))[:CLASSES])]
    train, test = source["train"].only(chosen).sample(120, 0), source["test"].only(chosen)
    world = World(given.data, given.weights, Path())
    features, targets = _features(world, train)
    unseen, answers = _features(world, test)
    print(
        "| images of each class | modhub | LogisticRegressionCV | seconds | seconds |\n|---|---|---|---|---|"
    )
    for shots in SHOTS:
        right, seconds = np.zeros((2, SEEDS)), np.zeros((2, SEEDS))
        for seed in range(SEEDS):
            draw = np.random.default_rng(seed)
            each = [draw.permutation(np.flatnonzero(targets == row))[:shots] for row in range(CLASSES)]
            indices = np.concatenate(each)
            for place, fit in enumerate((_discriminant, _logistic)):
                start = time.perf_counter()
                predict = fit(features[indices], targets[indices])
                seconds[place, seed] = time.perf_counter() - start
                right[place, seed] = float((predict(unseen) == answers).mean())
        tops = [f"{100 * row.mean():.1f} ± {100 * row.std():.1f} %" for row in right]
        print(f"| {shots} | {' | '.join(tops)} | {' | '.join(f'{row.mean():.2f}' for row in seconds)} |")


def _features(world: World, images: ImageSet) -> tuple[Array, NDArray[np.int64]]:
    settings = world.settings("C10-R20")
    parent = open_parent("modhub:resnet20", images.only(images.labels[:10]), settings)
    runner, preprocess = Runner(fuse_batch_norm(parent.trunk)), Preprocess(parent.input)
    values, order = [], []
    with torch.inference_mode():
        for pixels, indices in images.batches(100):
            values.append(runner(preprocess(pixels)).double().numpy())
            order.append(indices)
    return np.concatenate(values), images.targets[np.concatenate(order)]


def _discriminant(features: Array, targets: NDArray[np.int64]) -> Callable[[Array], NDArray[np.int64]]:
    fitted = fit_discriminant(features, targets)
    return lambda values: (values @ fitted.weight.T + fitted.bias).argmax(1)


def _logistic(features: Array, targets: NDArray[np.int64]) -> Callable[[Array], NDArray[np.int64]]:
    model = make_pipeline(
        StandardScaler(), LogisticRegressionCV(Cs=10, cv=5, max_iter=1000, use_legacy_attributes=False)
    )
    model.fit(features, targets)
    return lambda values: np.asarray(model.predict(values))


if __name__ == "__main__":
    main()
