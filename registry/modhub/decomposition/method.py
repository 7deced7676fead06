"""What a decomposition method must do, and what it says of itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from modhub.decomposition.method_options import CheckedOptions

if TYPE_CHECKING:
    from modhub.artifact.modules import Decomposition, ModuleDraft
    from modhub.data import ImageSet
    from modhub.decomposition.options import DecomposeOptions
    from modhub.decomposition.parent import Parent
    from modhub.decomposition.workbench import Workbench
    from modhub.reporter import Reporter


class Method(Protocol):
    """One way to find the part of a parent that a class needs.

    `name` and `paper` stand in manifests; `paper` is a URL, an identifier such as arXiv:2110.07720, or None.
    What else a class may say of itself for `modhub methods` is in `modhub.decomposition.method_options`.
    """

    @property
    def name(self) -> str: ...

    @property
    def paper(self) -> str | None: ...

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        """One draft per wanted class, in the order of the parent's labels.

        `images` are training images with labels of their own; `aligned` makes them the parent's. Raises
        `DataError` when a wanted class has too few of them.
        """
        ...


class WorkbenchMethod(CheckedOptions):
    """Base of methods that choose channels on a `Workbench`, and of which manifests record every option."""

    name: ClassVar[str]
    paper: ClassVar[str | None]

    @abstractmethod
    def drafts(self, bench: Workbench) -> Sequence[ModuleDraft]:
        """One draft per row of `bench.rows`, in their order."""

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        from modhub.decomposition.workbench import Workbench

        bench = Workbench(parent, images, options, reporter)
        return bench.finished(self, self.drafts(bench), self.parameters())
