"""What a decomposition method must do."""

from __future__ import annotations

from typing import Protocol

from modhub.artifact.modules import Decomposition
from modhub.data import ImageSet
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent
from modhub.reporter import Reporter

__all__ = ["Method"]


class Method(Protocol):
    """One way to find the part of a parent that a class needs. `paper` is where it comes from, if any."""

    name: str
    paper: str | None

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        """One draft per wanted class, in the order of the parent's labels.

        `images` are training images with labels of their own; `aligned` makes them the parent's. Raises
        `DataError` when a wanted class has too few of them.
        """
        ...
