"""From a trained classifier to one module per class; one file per method."""

from __future__ import annotations

from modhub.artifact.modules import Decomposition
from modhub.data import ImageSet
from modhub.decomposition.method import Method
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent
from modhub.decomposition.registry import METHODS, drafted, method_of
from modhub.decomposition.workbench import Workbench
from modhub.devices import torch_defaults
from modhub.reporter import SILENT, Reporter

__all__ = [
    "METHODS",
    "DecomposeOptions",
    "Method",
    "Parent",
    "Workbench",
    "decompose",
    "drafted",
    "method_of",
]


@torch_defaults()
def decompose(
    parent: Parent,
    images: ImageSet,
    *,
    method: str | Method = "relevance",
    options: DecomposeOptions | None = None,
    reporter: Reporter = SILENT,
) -> Decomposition:
    """One draft per class of `parent` from training `images`. Raises `DataError` and `MethodError`.

    The same parent, images, method and options give the same drafts.
    """
    made = method_of(method)
    called = method if isinstance(method, str) else made.name
    return drafted(made, called, parent, images, options or DecomposeOptions(), reporter)
