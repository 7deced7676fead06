"""A method of somebody's own package, as docs/writing-a-method.md describes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import modhub
from modhub.compose import compose, parts_of
from modhub.data import ImageSet, split_indices
from modhub.decompose import METHODS, DecomposeOptions, Parent
from modhub.decompose.base import aligned
from modhub.decompose.calibration import Calibrator
from modhub.decompose.channelling import head_tensors
from modhub.decompose.held_out import HeldOut
from modhub.errors import DataError
from modhub.manifest import MethodInfo, Sizes
from modhub.modules import Decomposition, ModuleDraft, ModuleSet
from modhub.nets import Runner, channel_space, cost, slice_network
from modhub.preprocessing import Preprocess
from modhub.reporter import Reporter
from tests.digit_parents import INPUT, digit_parent, digits, pixels_of


class FirstChannels:
    """Keeps the first `share` of every group's channels."""

    name = "first-channels"
    paper = None

    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        images = aligned(parent, images)
        _, rest = split_indices(
            images.targets, (options.fit_images, options.calibration_images), options.seed
        )
        held = HeldOut.read(images.subset(rest), parent, options)
        runner = Runner(parent.head.join(parent.trunk))
        with torch.inference_mode():
            logits = torch.cat([runner(batch) for batch in held.images.split(100)]).double().numpy()
        choosing = held.choosing
        calibrator = Calibrator(
            logits[choosing], held.targets[choosing], held.weights[choosing], held.sure[choosing]
        )
        space, whole = channel_space(parent.trunk), cost(parent.trunk)
        mask = np.ones(space.slots, np.bool_)
        for group in space.groups:
            if group.cuttable:
                slots = np.arange(space.slots)[group.slots]
                mask[slots[max(1, round(self.share * len(slots))) :]] = False
        mask = space.close(mask)
        part = cost(slice_network(parent.trunk, mask))
        return Decomposition(
            method=MethodInfo(name=self.name, parameters={"share": self.share}, paper=self.paper),
            modules=tuple(
                ModuleDraft(
                    label=label,
                    tensors={
                        "mask": torch.from_numpy(mask.astype(np.uint8)),
                        **head_tensors(parent.head, row),
                    },
                    calibration=calibrator.calibration(row),
                    measurement=None,
                    sizes=Sizes(
                        kept_channels=int(mask.sum()),
                        channels=space.slots,
                        kept_parameters=part.parameters,
                        parameters=whole.parameters,
                        flops=part.flops,
                        parent_flops=whole.flops,
                    ),
                )
                for row, label in enumerate(parent.labels)
            ),
            statistics={"parent.weight": parent.head.weight, "parent.bias": parent.head.bias},
        )


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, FirstChannels.name, FirstChannels())


def made(**options: str) -> ModuleSet:
    parent = digit_parent()
    return modhub.decompose(
        Runner(parent.head.join(parent.trunk)),
        digits("012345"),
        method=FirstChannels.name,
        method_options=options,
        mean=INPUT.mean,
        std=INPUT.std,
        images_per_class=50,
    )


@pytest.mark.usefixtures("registered")
def test_a_method_of_ones_own_makes_modules_that_compose() -> None:
    modules, pixels = made(), pixels_of(digits("012345", "test"))[0]
    assert modules.manifest.method == MethodInfo(name="first-channels", parameters={"share": 1.0}, paper=None)
    parent = digit_parent()
    with torch.inference_mode():
        logits = Runner(parent.head.join(parent.trunk))(Preprocess(INPUT)(pixels))
    # Nothing is cut: the modules rank as the parent does.
    assert torch.equal(compose(parts_of(modules), reject=True)(pixels).argmax(1), logits.argmax(1))


@pytest.mark.usefixtures("registered")
def test_its_options_are_arguments_of_its_constructor() -> None:
    modules = made(share="0.5")
    assert modules.manifest.method.parameters == {"share": 0.5}
    assert modules.modules[0].manifest.sizes.kept_channels < modules.modules[0].manifest.sizes.channels
    with pytest.raises(DataError) as caught:
        made(shares="0.5")
    assert str(caught.value) == "The method 'first-channels' has no option 'shares'. It has: share."
