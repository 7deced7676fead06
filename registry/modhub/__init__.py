"""modhub: the package registry for parts of neural networks.

    modules = modhub.decompose(parent, data)            class modules of a trained CNN classifier
    modhub.push(modules, "me/pets", version="1.0.0")    a release on a hub
    modhub.pull(["me/pets/cat>=1,<2"])                  fetched and verified
    classifier = modhub.compose({"cat": "me/pets/cat"}) one runnable `torch.nn.Module`

Importing modhub imports none of what it does: each name is loaded when it is first used, so what needs no
torch runs without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modhub.api.composing import compose, replace
    from modhub.api.frontier import frontier
    from modhub.api.making import decompose
    from modhub.api.sharing import info, pull, push, search, versions, yank
    from modhub.api.teaching import teach
    from modhub.api.using import evaluate, export, load
    from modhub.composition import Budget, ComposedClassifier
    from modhub.reporter import Reporter, progress

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "ComposedClassifier",
    "Reporter",
    "__version__",
    "compose",
    "decompose",
    "evaluate",
    "export",
    "frontier",
    "info",
    "load",
    "progress",
    "pull",
    "push",
    "replace",
    "search",
    "teach",
    "versions",
    "yank",
]

_HOMES = {
    "Budget": "modhub.composition",
    "ComposedClassifier": "modhub.composition",
    "Reporter": "modhub.reporter",
    "compose": "modhub.api.composing",
    "decompose": "modhub.api.making",
    "evaluate": "modhub.api.using",
    "export": "modhub.api.using",
    "frontier": "modhub.api.frontier",
    "info": "modhub.api.sharing",
    "load": "modhub.api.using",
    "progress": "modhub.reporter",
    "pull": "modhub.api.sharing",
    "push": "modhub.api.sharing",
    "replace": "modhub.api.composing",
    "search": "modhub.api.sharing",
    "teach": "modhub.api.teaching",
    "versions": "modhub.api.sharing",
    "yank": "modhub.api.sharing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'modhub' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
