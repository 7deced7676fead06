"""From a trained classifier to one module per class; one file per method in `methods`.

Each name is loaded when it is first used: what is said of methods needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modhub.decomposition.method import Method
    from modhub.decomposition.methods import METHODS
    from modhub.decomposition.options import DecomposeOptions
    from modhub.decomposition.parent import Parent
    from modhub.decomposition.registry import decompose, drafted, method_of
    from modhub.decomposition.workbench import Workbench

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

_HOMES = {
    "METHODS": "methods",
    "DecomposeOptions": "options",
    "Method": "method",
    "Parent": "parent",
    "Workbench": "workbench",
    "decompose": "registry",
    "drafted": "registry",
    "method_of": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
