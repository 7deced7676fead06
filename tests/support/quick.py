"""Fitting that takes a second, for tests of what does not hang on how well a network is fitted."""

from modhub.composition.fitting.settings import FitSettings

__all__ = ["QUICK"]

QUICK = FitSettings(synthesis_steps=15, synthetic_images=100, synthetic_epochs=4, distill_steps=(20, 60))
