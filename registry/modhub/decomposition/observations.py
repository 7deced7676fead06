"""What the classes of a parent do to its trunk: observed in one pass, saved on the way, and taken up again.

Statistics of their own are kept as they are; those with pooled correlations as they stand in modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.artifact.tensors import ValueStatistics
from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.decomposition.checkpoint import Savings
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent
from modhub.nets import ChannelSpace, Runner, fuse_batch_norm
from modhub.pruning.moments import StreamingMoments, chunks_of
from modhub.pruning.statistics import (
    ClassStatistics,
    Moments,
    correlation_tensors,
    stored_statistics,
    unpacked,
)
from modhub.reporter import Reporter
from modhub.workers import Workers

__all__ = ["Observations"]

_PARTS = ("mean", "deviation", "sensitivity")
_SAVES = 10
"""How often the pooled sums are saved on the way."""


class Observations:
    """The statistics of the classes `wanted` (rows of the head) on the images of `fit`.

    With `own` every class keeps its correlations; otherwise they are pooled, and `correlations` are the
    tensors that all modules share.
    """

    def __init__(
        self,
        parent: Parent,
        fit: ImageSet,
        space: ChannelSpace,
        options: DecomposeOptions,
        wanted: Sequence[int],
        *,
        own: bool,
        workers: Workers,
        saved: Savings,
        reporter: Reporter,
    ) -> None:
        self.wanted, self.fit, self.options, self.own = wanted, fit, options, own
        self.workers, self.saved, self.reporter = workers, saved, reporter
        self.observer = StreamingMoments(
            Runner(fuse_batch_norm(parent.trunk)).to(options.torch_device),
            parent.head,
            space,
            fit,
            Preprocess(parent.input),
            per_class=own,
            batch=options.batch,
            device=options.torch_device,
            workers=workers,
        )
        self.values = self.observer.values
        self.full: dict[int, ClassStatistics] = {}
        self.stored: dict[int, dict[str, ValueStatistics]] = {}
        self.correlations: dict[str, Tensor] = {}
        self.matrices: dict[str, NDArray[np.float64]] = {}
        self.pooled = f"pooled-{workers.rank}-of-{workers.size}"

    def observe(self) -> None:
        """The pass over the images, or what an interrupted run has left of it."""
        observer = self.observer
        counts = self.fit.counts()
        chunks = chunks_of(self.wanted, counts.tolist(), self.options.batch)
        done = self._restored(len(chunks))
        every = 1 if self.own else -(-len(chunks) // _SAVES)
        unsaved: dict[str, dict[str, Tensor]] = {}
        turn = 0
        with self.reporter.step("observe classes", len(self.wanted)):
            for number, rows in enumerate(chunks):
                if number >= done:
                    unsaved[f"classes-{number}"] = self._seen(rows, observer.observe(rows, turn))
                    if (number + 1) % every == 0 or number + 1 == len(chunks):
                        self._save(unsaved, number + 1)
                turn += -(-int(counts[rows].sum()) // self.options.batch)
                self.reporter.advance(len(rows))
        if not self.own:
            self.workers.sum(observer.pooled.second.values())
            self.correlations = correlation_tensors(observer.pooled.moments())
            # float16 as it is stored: what is chosen here is chosen alike where modules are composed.
            self.matrices = {
                name: unpacked(self.correlations[name].float().numpy())
                if name in self.correlations
                else np.ones(observer.channels[name])
                for name in self.values
            }

    def statistics(self, row: int, *, covariances: bool = True) -> ClassStatistics:
        """As `read_statistics` gives them to a composer, where correlations are pooled."""
        if self.own:
            return self.full[row]
        moments, sensitivity = {}, {}
        for name in self.values:
            mean, deviation, slope = (self._part(row, name, part) for part in _PARTS)
            matrix = self.matrices[name]
            covariance: NDArray[np.float64] = deviation**2
            if covariances and matrix.ndim == 2:
                covariance = matrix * deviation[:, None] * deviation[None, :]
            moments[name] = Moments(mean, covariance)
            sensitivity[name] = slope
        return ClassStatistics(moments, sensitivity)

    def deviations(self, row: int) -> dict[str, NDArray[np.float64]]:
        """(channels,) by value, of a class whose correlations are pooled."""
        return {name: self._part(row, name, "deviation") for name in self.values}

    def _part(self, row: int, name: str, part: str) -> NDArray[np.float64]:
        tensor: Tensor = getattr(self.stored[row][name], part)
        return tensor.double().numpy()

    def carried(self, row: int) -> dict[str, ValueStatistics]:
        """What the class's module carries, by value."""
        if self.own:
            return stored_statistics(self.full[row], correlations=True)
        return self.stored[row]

    def _seen(self, rows: list[int], found: list[ClassStatistics]) -> dict[str, Tensor]:
        """Remember what was found; the same by `<row>/<name>`, to be saved."""
        kept: dict[str, Tensor] = {}
        for row, statistics in zip(rows, found, strict=True):
            if self.own:
                self.full[row] = statistics
                for name, moments in statistics.moments.items():
                    for part, array in (
                        ("mean", moments.mean),
                        ("covariance", moments.covariance),
                        ("sensitivity", statistics.sensitivity[name]),
                    ):
                        kept[f"{row}/{name}/{part}"] = torch.from_numpy(array)
            else:
                self.stored[row] = stored_statistics(statistics, correlations=False)
                for name, each in self.stored[row].items():
                    kept.update({f"{row}/{name}/{part}": getattr(each, part) for part in _PARTS})
        return kept

    def _save(self, unsaved: dict[str, dict[str, Tensor]], done: int) -> None:
        if self.workers.first:
            for name, tensors in unsaved.items():
                self.saved.save(name, tensors)
        unsaved.clear()
        if not self.own:
            sums = self.observer.pooled
            tensors = {f"first/{name}": each for name, each in sums.first.items()}
            tensors.update({f"second/{name}": each for name, each in sums.second.items()})
            self.saved.save(self.pooled, tensors, {"chunks": done, "classes": sums.classes})

    def _restored(self, chunks: int) -> int:
        """How many chunks an interrupted run has left, which are read."""
        done = 0
        if self.own:
            while done < chunks and self.saved.has(f"classes-{done}"):
                done += 1
            done = min(self.workers.gather(done))
        elif (left := self.saved.load(self.pooled)) is not None:
            done = int(left[1]["chunks"])
        if not self.workers.agree(done):
            return 0
        if done and not self.own and left is not None:
            self.observer.pooled.classes = int(left[1]["classes"])
            for name in self.observer.values:
                self.observer.pooled.first[name] = left[0][f"first/{name}"]
                self.observer.pooled.second[name] = left[0][f"second/{name}"]
        for number in range(done):
            found = self.saved.load(f"classes-{number}")
            self._remember({} if found is None else found[0])
        return done

    def _remember(self, kept: Mapping[str, Tensor]) -> None:
        for row in dict.fromkeys(int(key.partition("/")[0]) for key in kept):
            own = {key.partition("/")[2]: each for key, each in kept.items() if key.startswith(f"{row}/")}
            if not self.own:
                self.stored[row] = {
                    name: ValueStatistics(**{part: own[f"{name}/{part}"] for part in _PARTS})
                    for name in self.values
                }
                continue
            arrays = {key: each.numpy() for key, each in own.items()}
            self.full[row] = ClassStatistics(
                {name: Moments(arrays[f"{name}/mean"], arrays[f"{name}/covariance"]) for name in self.values},
                {name: arrays[f"{name}/sensitivity"] for name in self.values},
            )
