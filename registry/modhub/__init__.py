"""modhub: the package registry for parts of neural networks.

    modules = modhub.decompose(parent, data)            class modules of a trained CNN classifier
    modhub.push(modules, "me/pets", version="1.0.0")    a release on a hub
    modhub.pull(["me/pets/cat>=1,<2"])                  fetched and verified
    classifier = modhub.compose({"cat": "me/pets/cat"}) one runnable `torch.nn.Module`
    modhub.predict(classifier, "photo.jpg")             labels and probabilities

What `x(...)` gives in memory, `x_to(path, ...)` writes to disk.

Importing modhub imports none of what it does: each name is loaded when it is first used, so what needs no
torch runs without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modhub.api.compose import compose, compose_to
    from modhub.api.convert import convert
    from modhub.api.decompose import decompose, decompose_to
    from modhub.api.diff import diff
    from modhub.api.evaluate import evaluate
    from modhub.api.export import export
    from modhub.api.frontier import frontier, frontier_to
    from modhub.api.info import info
    from modhub.api.load import load
    from modhub.api.lock import lock, lock_to
    from modhub.api.methods import methods
    from modhub.api.predict import predict
    from modhub.api.pull import pull, pull_to
    from modhub.api.push import push
    from modhub.api.replace import replace, replace_to
    from modhub.api.search import search
    from modhub.api.teach import teach, teach_to
    from modhub.api.verify import verify
    from modhub.api.versions import versions
    from modhub.api.yank import yank
    from modhub.composition import Budget, ComposedClassifier
    from modhub.nets.limits import allowing_large
    from modhub.reporter import Reporter, progress

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "ComposedClassifier",
    "Reporter",
    "__version__",
    "allowing_large",
    "compose",
    "compose_to",
    "convert",
    "decompose",
    "decompose_to",
    "diff",
    "evaluate",
    "export",
    "frontier",
    "frontier_to",
    "info",
    "load",
    "lock",
    "lock_to",
    "methods",
    "predict",
    "progress",
    "pull",
    "pull_to",
    "push",
    "replace",
    "replace_to",
    "search",
    "teach",
    "teach_to",
    "verify",
    "versions",
    "yank",
]

_HOMES = {
    "Budget": "modhub.composition",
    "ComposedClassifier": "modhub.composition",
    "Reporter": "modhub.reporter",
    "allowing_large": "modhub.nets.limits",
    "progress": "modhub.reporter",
}
"""Of all but the functions of `modhub.api`: `x` and `x_to` are in `modhub.api.x`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'modhub' has no attribute '{name}'")
    home = _HOMES.get(name, f"modhub.api.{name.removesuffix('_to')}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
