"""The decomposition methods of modhub, one file each: what they are, and the steps they take.

Importing them imports no torch: what computes lies in the rooms around, and is imported when a method works.
`METHODS` is where they are looked up by name; methods of other packages are in
`modhub.decomposition.installed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modhub.decomposition.methods.activation import Activation
from modhub.decomposition.methods.circuit import Circuit
from modhub.decomposition.methods.cnnsplitter import CnnSplitter
from modhub.decomposition.methods.concern import Concern
from modhub.decomposition.methods.firing_rate import FiringRate
from modhub.decomposition.methods.gradsplitter import GradSplitter
from modhub.decomposition.methods.incite import Incite
from modhub.decomposition.methods.random import Random
from modhub.decomposition.methods.relevance import Relevance
from modhub.decomposition.methods.seam import Seam

if TYPE_CHECKING:
    from modhub.decomposition.method import Method

__all__ = ["METHODS"]

METHODS: dict[str, type[Method]] = {
    "relevance": Relevance,
    "concern": Concern,
    "activation": Activation,
    "firing_rate": FiringRate,
    "circuit": Circuit,
    "seam": Seam,
    "gradsplitter": GradSplitter,
    "incite": Incite,
    "cnnsplitter": CnnSplitter,
    "random": Random,
}
