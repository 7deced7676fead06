"""The constants of fitting, as one value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How slim networks are fitted, and on how much.

    Work is in multiply-adds, memory in bytes; a minute on two cores is about 4e12 multiply-adds. Defaults
    were chosen on CIFAR-10 and digits (docs/composition.md).
    """

    decoded_memory: int = 256 << 20
    """Decoded images that are kept in memory; beyond it they are kept in a temporary file."""
    batch: int = 50
    """Images in a batch where nothing is trained by gradient steps."""

    refit_images: int = 600
    """Images that layers are refitted on, at most."""
    refit_copies: int = 3
    """Augmented copies of each of them that layers are refitted on as well."""
    refit_memory: int = 400 << 20
    """What one value of the trunk may take for all of these images."""
    refit_work: float = 1.5e10
    """What the normal equations of one layer may take; positions are sampled to meet it."""
    refit_ridge: float = 1e-3
    """Share of an input's mean square that pulls its weight towards the one before (He et al. 2017)."""
    head_ridge: float = 2e-2
    """The same for the rows of the head."""

    parent_images: int = 8
    """Times as many images as layers are refitted on are classified by the parent, to balance both sides."""
    side_images: int = 20
    """Images of the class, or of other classes, below which that side is synthesized."""
    calibration_every: int = 5
    """One image in so many is kept for recalibration, where there are more than layers are refitted on."""
    calibration_images: int = 1000
    """Images to recalibrate on, at most."""
    calibration_work: float = 4e10
    """What one pass of the whole trunk over them may take."""
    calibration_side: int = 10
    """Images of the class, or of other classes, below which nothing is recalibrated."""
    validation_every: int = 5
    """One in so many of the images that layers are refitted on validates distillation."""
    validation_images: int = 100
    """Images that validate distillation, at most."""
    statistics_work: float = 4e11
    """What a pass over images may take that chooses channels for a class composed alone."""

    distill_work: float = 4e12
    """What distillation may take."""
    distill_memory: int = 1 << 30
    """What the parent's values may take for a batch."""
    distill_batch: tuple[int, int] = (4, 32)
    """Images of a step: the fewest and the most."""
    distill_steps: tuple[int, int] = (60, 1500)
    """The fewest and the most."""
    distill_rate: float = 1e-3
    """Learning rate of AdamW, at the top of the one-cycle schedule."""
    distill_decay: float = 1e-3
    """Weight decay of AdamW."""
    hint_weights: tuple[float, ...] = (30.0, 0.0)
    """What is tried for the weight H of the hints."""
    trial_every: int = 10
    """One step in so many is taken to try each of `hint_weights`."""
    plain_every: int = 4
    """One image in so many of a batch is not augmented."""
    image_epochs: int = 80
    """How often each image is worth seeing, at most."""
    synthetic_epochs: int = 30
    """How often each synthetic image is, or each of a set that holds some."""

    synthetic_images: int = 300
    """Synthetic images of a trunk, at least, where `synthesis_work` and `synthesis_memory` allow it."""
    synthetic_per_target: int = 150
    """Synthetic images of one target, at most, where there are several."""
    synthetic_fewest: int = 8
    """Synthetic images of one target, at least."""
    synthesis_steps: int = 30
    """Gradient steps of each image."""
    synthesis_rate: float = 0.08
    """Learning rate of Adam, in standard deviations of the normalised pixels."""
    synthesis_work: float = 6e12
    """What making all synthetic images may take."""
    synthesis_memory: int = 1 << 30
    """What the trunk's values may take for all images of one target."""
    synthesis_classes: int = 10
    """With more classes than this there is one target for all of them."""

    loss_budgets: tuple[float, ...] = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Fractions of the multiply-adds among which the smallest within a loss is searched, rising."""
    test_every: int = 4
    """One image in so many measures the loss; the others are fitted on."""
    depth_steps: int = 9
    """Numbers of residual branches that are tried where time is limited, from all to none."""
    depth_images: int = 200
    """Images on which networks of different depths are refitted and compared, at most."""
    branch_work: float = 1e12
    """What running the trunk without each residual branch may take."""
    branch_images: tuple[int, int] = (20, 200)
    """Images that branches are ordered on: the fewest and the most."""

    few_shot_images: int = 50
    """Labelled images of a class that calibration uses, at most."""
    few_shot_prior: float = 2.0
    """Strength of the pull on factors and offsets, in images."""
    gate_penalties: tuple[float, ...] = (100.0, 30.0, 10.0, 3.0, 1.0)
    """Strengths of the pull on gates that cross-validation tries, in images, on standardised margins."""
    few_shot_folds: int = 5
    """Folds of that cross-validation."""


DEFAULT_SETTINGS = FitSettings()
