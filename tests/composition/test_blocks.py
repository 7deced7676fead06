"""Channel counts of a build without a budget, in the blocks that inference engines compute in."""

from __future__ import annotations

import numpy as np

from modhub.composition import compose, parts_of
from modhub.composition.budget import RUNTIME_BLOCK, Budget
from modhub.composition.choose_channels import ChannelChooser
from modhub.composition.part_tensors import mask_of
from modhub.composition.parts import distinct_parts
from modhub.composition.trunk_plan import trunk_plans
from tests.support.digit_parents import digit_modules


def test_every_group_fills_its_blocks_and_loses_nothing_that_a_module_keeps() -> None:
    parts = distinct_parts(parts_of(digit_modules(), ["1", "4"]))
    (plan,) = trunk_plans(parts)
    kept = ChannelChooser(plan).mask(None)
    wanted = np.any([mask_of(part) for part in parts], 0)
    assert not wanted.all()
    assert (kept | ~wanted).all()
    for group in plan.space.groups:
        count = int(kept[group.slots].sum())
        assert count in (0, group.size) or count % RUNTIME_BLOCK == 0
        assert count - int(wanted[group.slots].sum()) < RUNTIME_BLOCK


def test_one_is_as_many_as_the_modules_keep() -> None:
    (plan,) = trunk_plans(distinct_parts(parts_of(digit_modules(), ["1", "4"])))
    kept = ChannelChooser(plan).mask(Budget(multiple=1))
    assert (kept == plan.space.union(mask_of(part) for part in plan.parts)).all()


def test_the_network_has_these_channels() -> None:
    (trunk_pass,) = compose(parts_of(digit_modules(), ["1", "4"])).trunk_passes
    shapes = [shape[0] for shape in trunk_pass.trunk.network.graph.shapes.values() if len(shape) == 3]
    assert all(channels % RUNTIME_BLOCK == 0 for channels in shapes if channels > 1)
