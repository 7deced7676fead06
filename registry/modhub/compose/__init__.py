"""From modules to one runnable classifier."""

from modhub.compose.budget import KINDS, Budget
from modhub.compose.classifier import ComposedClassifier, Prediction, TrunkPass, TrunkReport
from modhub.compose.compiler import compose
from modhub.compose.parts import Part, parts_of
from modhub.compose.storage import load_build, save_build

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
