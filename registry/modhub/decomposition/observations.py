"""Statistics of a parent's classes, from one pass over the images to choose by; saved on the way, and
resumed.

A class of a trunk with few enough channels keeps correlations of its own. Of a larger trunk they are
pooled over the classes, and what channels are chosen by is what stands in the modules.
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
from modhub.decomposition.checkpoint import Checkpoint
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent
from modhub.nets import ChannelSpace, Runner
from modhub.pruning.moments import StreamingMoments, chunks_of, correlation_numbers
from modhub.pruning.statistics import (
    CORRELATION_LIMIT,
    ClassStatistics,
    Moments,
    correlation_tensors,
    stored_statistics,
    unpacked,
)
from modhub.reporter import Reporter
from modhub.workers import Workers

_PARTS = ("mean", "deviation", "sensitivity")
_SAVES = 10
"""How often the pooled sums are saved on the way."""


class Observations:
    """Statistics of the classes `rows` (of the head) on their `images`, by the fused trunk that runs in
    `runner`.

    With `per_class` every class keeps its correlations; otherwise they are pooled, and `correlations` are the
    tensors that all modules share.
    """

    def __init__(
        self,
        runner: Runner,
        parent: Parent,
        images: ImageSet,
        space: ChannelSpace,
        options: DecomposeOptions,
        rows: Sequence[int],
        *,
        workers: Workers,
        checkpoint: Checkpoint,
        reporter: Reporter,
    ) -> None:
        self.rows, self.images, self.options = rows, images, options
        self.workers, self.checkpoint, self.reporter = workers, checkpoint, reporter
        self.per_class = correlation_numbers(parent.trunk.graph, space) <= CORRELATION_LIMIT
        self.streaming = StreamingMoments(
            runner,
            parent.head,
            space,
            images,
            Preprocess(parent.input),
            per_class=self.per_class,
            batch=options.batch,
            device=options.torch_device,
            workers=workers,
        )
        self.values = self.streaming.values
        self.full: dict[int, ClassStatistics] = {}
        self.stored: dict[int, dict[str, ValueStatistics]] = {}
        self.textures: dict[int, Moments] = {}
        self.correlations: dict[str, Tensor] = {}
        self.matrices: dict[str, NDArray[np.float64]] = {}
        self.pooled = f"pooled-{workers.rank}-of-{workers.size}"

    def observe(self) -> None:
        """The pass over the images, or what an interrupted run has left of it."""
        streaming = self.streaming
        counts = self.images.counts()
        chunks = chunks_of(self.rows, counts.tolist(), self.options.batch)
        done = self._restored(len(chunks))
        every = 1 if self.per_class else -(-len(chunks) // _SAVES)
        unsaved: dict[str, dict[str, Tensor]] = {}
        turn = 0
        with self.reporter.step("observe classes", len(self.rows)):
            for number, rows in enumerate(chunks):
                if number >= done:
                    unsaved[f"classes-{number}"] = self._seen(rows, streaming.observe(rows, turn))
                    if (number + 1) % every == 0 or number + 1 == len(chunks):
                        self._save(unsaved, number + 1)
                turn += -(-int(counts[rows].sum()) // self.options.batch)
                self.reporter.advance(len(rows))
        if not self.per_class:
            self.workers.sum(streaming.pooled.second.values())
            self.correlations = correlation_tensors(streaming.pooled.moments())
            # float16 as it is stored: what is chosen here is chosen alike where modules are composed.
            self.matrices = {
                name: unpacked(self.correlations[name].float().numpy())
                if name in self.correlations
                else np.ones(streaming.channels[name])
                for name in self.values
            }

    def statistics(self, row: int, *, covariances: bool = True) -> ClassStatistics:
        """As `read_statistics` gives them to a composer, where correlations are pooled."""
        if self.per_class:
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

    def _seen(self, rows: list[int], found: list[ClassStatistics]) -> dict[str, Tensor]:
        """Remember what was found; the same by `<row>/<name>`, to be saved."""
        kept: dict[str, Tensor] = {}
        for row, statistics in zip(rows, found, strict=True):
            if statistics.texture is not None:
                self.textures[row] = statistics.texture
                kept[f"{row}//mean"] = torch.from_numpy(statistics.texture.mean)
                kept[f"{row}//covariance"] = torch.from_numpy(statistics.texture.covariance)
            if self.per_class:
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
                self.checkpoint.save(name, tensors)
        unsaved.clear()
        if not self.per_class:
            sums = self.streaming.pooled
            tensors = {f"first/{name}": each for name, each in sums.first.items()}
            tensors.update({f"second/{name}": each for name, each in sums.second.items()})
            self.checkpoint.save(self.pooled, tensors, {"chunks": done, "classes": sums.classes})

    def _restored(self, chunks: int) -> int:
        """How many chunks an interrupted run has left, which are read."""
        done = 0
        if self.per_class:
            while done < chunks and self.checkpoint.has(f"classes-{done}"):
                done += 1
            done = min(self.workers.gather(done))
        elif (left := self.checkpoint.load(self.pooled)) is not None:
            done = int(left[1]["chunks"])
        if not self.workers.agree(done):
            return 0
        if done and not self.per_class and left is not None:
            self.streaming.pooled.classes = int(left[1]["classes"])
            for name in self.streaming.values:
                self.streaming.pooled.first[name] = left[0][f"first/{name}"]
                self.streaming.pooled.second[name] = left[0][f"second/{name}"]
        for number in range(done):
            found = self.checkpoint.load(f"classes-{number}")
            self._remember({} if found is None else found[0])
        return done

    def _remember(self, kept: Mapping[str, Tensor]) -> None:
        for row in dict.fromkeys(int(key.partition("/")[0]) for key in kept):
            own = {key.partition("/")[2]: each for key, each in kept.items() if key.startswith(f"{row}/")}
            if "/mean" in own:
                self.textures[row] = Moments(own["/mean"].numpy(), own["/covariance"].numpy())
            if not self.per_class:
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
