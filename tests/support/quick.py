"""Fitting in fewer steps: for tests of what does not hang on how well a network is fitted one that takes a
second, for the others one that takes a few."""

from modhub.composition.fitting.settings import FitSettings

__all__ = ["QUICK", "SHORT"]

QUICK = FitSettings(synthesis_steps=15, synthetic_images=100, synthetic_epochs=4, distill_steps=(20, 60))
SHORT = FitSettings(synthetic_images=200, synthetic_epochs=15, distill_steps=(60, 250))
