"""From modules to one runnable classifier."""

from modhub.composition.budget import KINDS, Budget
from modhub.composition.build import load_build, save_build
from modhub.composition.classifier import ComposedClassifier, Prediction, TrunkPass, TrunkReport
from modhub.composition.compiler import compose
from modhub.composition.parts import Part, parts_of

__all__ = [
    "KINDS",
    "Budget",
    "ComposedClassifier",
    "Part",
    "Prediction",
    "TrunkPass",
    "TrunkReport",
    "compose",
    "load_build",
    "parts_of",
    "save_build",
]
