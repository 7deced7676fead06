"""Candidates for the channels of several classes, bred for the accuracy of their composition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.calibration.margins import margin_of
from modhub.decomposition.samples import logits_of, validation_sample
from modhub.decomposition.workbench import Workbench
from modhub.nets import Mask

_ACCURACY = 0.9
"""What the composed accuracy counts; the rest is for being different."""
_FIRST = 0.5
"""Chance that a gene of the least important channels is on at first; it rises to 1 for half of them."""


class Population:
    """For every wanted row `size` candidates: bits over `genes`, lists of slots. `images` per class judge."""

    def __init__(
        self,
        bench: Workbench,
        genes: Mapping[int, Sequence[NDArray[np.int64]]],
        *,
        images: int,
        size: int,
    ) -> None:
        self.bench, self.genes, self.size = bench, genes, size
        self.sample = validation_sample(bench, images)
        self.draw = np.random.default_rng(bench.options.seed)
        self.bits: dict[int, NDArray[np.bool_]] = {}
        self.margins: dict[int, Tensor] = {}
        for row in bench.reporter.track(bench.rows, "judge the first candidates", len(bench.rows)):
            count = len(genes[row])
            # Genes of one group stand in a row, the least important first.
            chance = np.minimum(1.0, _FIRST + np.array(self._ranks(row)))
            self.bits[row] = self.draw.random((size, count)) < chance
            self.margins[row] = self._judged(row, self.bits[row])
        self._rank()

    def advance(self, mutation: float) -> None:
        """The fitter half of every class lives on, and has children."""
        live = max(self.size // 2, 1)
        for row in self.bench.rows:
            parents = self.bits[row][:live]
            children = bred(parents, self.size - live, mutation, self.draw)
            self.bits[row] = np.concatenate([parents, children])
            self.margins[row] = torch.cat([self.margins[row][:live], self._judged(row, children)])
        self._rank()

    def best(self, row: int) -> Mask:
        """(slots,) the channels of the fittest candidate."""
        return self._mask(row, self.bits[row][0])

    def kept(self, row: int) -> NDArray[np.float64]:
        """(slots,) the share of the candidates that keep each slot."""
        return np.asarray(np.mean([self._mask(row, bits) for bits in self.bits[row]], axis=0))

    def _ranks(self, row: int) -> list[float]:
        """For each gene, how far up it stands in its group, from 0 on to below 1."""
        starts = {group.start: group for group in self.bench.space.groups}
        groups = [max(start for start in starts if start <= int(slots.min())) for slots in self.genes[row]]
        return [groups[:number].count(group) / groups.count(group) for number, group in enumerate(groups)]

    def _mask(self, row: int, bits: NDArray[np.bool_]) -> Mask:
        mask = self.bench.space.full_mask()
        for slots, keep in zip(self.genes[row], bits, strict=True):
            mask[slots] = keep
        return self.bench.space.close(mask)

    def _judged(self, row: int, bits: NDArray[np.bool_]) -> Tensor:
        """(candidates, images) the margins of the class."""
        statistics = self.bench.statistics(row)
        return torch.stack(
            [
                margin_of(logits_of(self.bench, self.sample, self._mask(row, each), statistics), row)
                for each in bits
            ]
        )

    def _rank(self) -> None:
        """The candidates of every class by fitness, the fittest first, beside the fittest of the others."""
        rows = self.bench.rows
        first = {row: self.margins[row][0] for row in rows}
        masks = {row: self.best(row) for row in rows}
        for row in rows:
            fitness = [
                self._fitness(row, self._mask(row, bits), margin, first, masks)
                for bits, margin in zip(self.bits[row], self.margins[row], strict=True)
            ]
            order = np.argsort(-np.array(fitness), kind="stable")
            self.bits[row] = self.bits[row][order]
            self.margins[row] = self.margins[row][torch.from_numpy(order)]
            first[row], masks[row] = self.margins[row][0], self.best(row)

    def _fitness(
        self, row: int, mask: Mask, margin: Tensor, first: Mapping[int, Tensor], masks: Mapping[int, Mask]
    ) -> float:
        rows, targets = self.bench.rows, torch.from_numpy(self.sample.targets)
        if len(rows) == 1:
            positive = targets == row
            right = float(((margin > 0) == positive).double().mean())
            return _ACCURACY * right + (1 - _ACCURACY) * float(1 - mask.mean())
        said = torch.stack([margin if other == row else first[other] for other in rows], 1).argmax(1)
        right = float((torch.tensor(rows)[said] == targets).double().mean())
        shared = [
            float((mask & masks[other]).sum() / max((mask | masks[other]).sum(), 1))
            for other in rows
            if other != row
        ]
        return _ACCURACY * right + (1 - _ACCURACY) * (1 - float(np.mean(shared)))


def bred(
    parents: NDArray[np.bool_], children: int, mutation: float, draw: np.random.Generator
) -> NDArray[np.bool_]:
    """(children, genes) of parents (parents, genes): each gene from one of two of them, and now and then
    changed."""
    pairs = draw.integers(0, len(parents), (children, 2))
    first = draw.random((children, parents.shape[1])) < 0.5
    genes = np.where(first, parents[pairs[:, 0]], parents[pairs[:, 1]])
    return np.asarray(genes ^ (draw.random(genes.shape) < mutation))
