"""From a trained classifier to one module per class; one file per method."""

from __future__ import annotations

import torch

from modhub.data import ImageSet
from modhub.decompose.base import DecomposeOptions, Method, Parent
from modhub.decompose.concern import Concern
from modhub.decompose.relevance import Relevance
from modhub.decompose.workbench import Workbench
from modhub.errors import DataError
from modhub.modules import Decomposition
from modhub.reporter import SILENT, Reporter

__all__ = ["METHODS", "DecomposeOptions", "Method", "Parent", "Workbench", "decompose"]

METHODS: dict[str, Method] = {method.name: method for method in (Relevance(), Concern())}


@torch.inference_mode(False)
@torch.enable_grad()
def decompose(
    parent: Parent,
    images: ImageSet,
    *,
    method: str = "relevance",
    options: DecomposeOptions | None = None,
    reporter: Reporter = SILENT,
) -> Decomposition:
    """One draft per class of `parent` from training `images`. Raises `DataError`.

    The same parent, images, method and options give the same drafts.
    """
    if method not in METHODS:
        raise DataError(f"There is no method '{method}'.", hint=f"There are: {', '.join(sorted(METHODS))}.")
    return METHODS[method].decompose(parent, images, options or DecomposeOptions(), reporter)
