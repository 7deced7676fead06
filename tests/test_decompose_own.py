"""A method of somebody's own, as docs/writing-a-method.md describes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import modhub
from modhub.compose import Budget, compose, parts_of
from modhub.data import ImageSet
from modhub.decompose import METHODS, DecomposeOptions, Method, Parent, Workbench, method_of
from modhub.decompose.base import aligned
from modhub.errors import CompositionError, DataError, ModhubError
from modhub.manifest import MethodInfo
from modhub.modules import Decomposition, ModuleSet
from modhub.nets import Runner
from modhub.preprocessing import Preprocess
from modhub.reporter import Reporter
from tests.digit_parents import INPUT, digit_parent, digits, pixels_of

ACTIVITY = Path(__file__).parents[1] / "benchmarks" / "activity.py"


class FirstChannels:
    """Keeps the first `share` of every group's channels."""

    name = "first-channels"
    paper: str | None = None

    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        bench = Workbench(parent, images, options)
        mask = bench.space.full_mask()
        for group in bench.space.groups:
            if group.cuttable:
                mask[group.start + max(1, round(self.share * group.size)) : group.start + group.size] = False
        return bench.finished(self, [bench.draft(row, mask) for row in bench.rows], {"share": self.share})


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, FirstChannels.name, FirstChannels)


def made(method: str | Method = FirstChannels.name, **options: str) -> ModuleSet:
    parent = digit_parent()
    return modhub.decompose(
        Runner(parent.head.join(parent.trunk)),
        digits("012345"),
        method=method,
        method_options=options,
        mean=INPUT.mean,
        std=INPUT.std,
        images_per_class=50,
    )


@pytest.mark.usefixtures("registered")
def test_a_method_of_ones_own_makes_modules_that_compose() -> None:
    modules, pixels = made(), pixels_of(digits("012345", "test"))[0]
    said = {"share": 1.0, "fit_images": 50, "calibration_images": 100}
    assert modules.manifest.method == MethodInfo(name="first-channels", parameters=said, paper=None)
    parent = digit_parent()
    with torch.inference_mode():
        logits = Runner(parent.head.join(parent.trunk))(Preprocess(INPUT)(pixels))
    # Nothing is cut: the modules rank as the parent does.
    assert torch.equal(compose(parts_of(modules), reject=True)(pixels).argmax(1), logits.argmax(1))


@pytest.mark.usefixtures("registered")
def test_its_options_are_arguments_of_its_constructor() -> None:
    modules = made(share="0.5")
    assert modules.manifest.method.parameters["share"] == 0.5
    sizes = modules.modules[0].manifest.sizes
    assert sizes.kept_channels < sizes.channels
    assert sizes.flops < 0.6 * sizes.parent_flops
    with pytest.raises(DataError) as caught:
        made(shares="0.5")
    assert str(caught.value) == "The method 'first-channels' has no option 'shares'. It has: share."


def test_a_method_stands_in_a_file_of_ones_own() -> None:
    method = f"{ACTIVITY}:Activity"
    modules = made(method, share="0.75")
    assert modules.manifest.method.name == "activity"
    for module in modules.modules:
        sizes, measured = module.manifest.sizes, module.manifest.measurement
        assert 0.7 < sizes.kept_channels / sizes.channels < 0.8
        assert measured is not None
        assert measured.values["balanced_accuracy"] > 0.6
    # What is gone differs from class to class, and the statistics meet a budget.
    assert len({module.tensors["mask"].numpy().tobytes() for module in modules.modules}) > 1
    (each,) = compose(parts_of(modules, ["1", "3"]), budget=Budget(flops=0.5)).trunk_passes
    assert each.report.flops <= 0.5 * each.report.parent_flops
    again = made(method, share="0.75")
    assert [module.manifest for module in again.modules] == [module.manifest for module in modules.modules]


def test_every_method_bears_the_name_it_is_found_by() -> None:
    for name in METHODS:
        assert method_of(name).name == name
        assert method_of(name) is not method_of(name), "nobody shares what another may change"


def test_a_method_may_be_made_already() -> None:
    assert made(FirstChannels(0.5)).manifest.method.parameters["share"] == 0.5


@pytest.mark.parametrize(
    ("text", "called", "message"),
    [
        (None, "Mine", "The file '{path}' does not exist. A method is FILE.py:CLASS."),
        ("class Mine: ...", "Yours", "'{path}' has no callable 'Yours'. It has Mine."),
        (
            "class Mine: name = 'mine'",
            "Mine",
            "'Mine' in '{path}' is no method. What it needs is in docs/writing-a-method.md.",
        ),
        (
            "1 / 0",
            "Mine",
            "'{path}' does not run: ZeroDivisionError: division by zero. Try it with: python {path}",
        ),
    ],
)
def test_a_file_without_a_method_is_refused(
    tmp_path: Path, text: str | None, called: str, message: str
) -> None:
    path = tmp_path / "own.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ModhubError) as caught:
        made(f"{path}:{called}")
    assert str(caught.value) == message.format(path=path)


class Spoiling(FirstChannels):
    """Makes a good decomposition, and puts another tensor into its first module."""

    name = "spoiling"

    def __init__(self, key: str, tensor: torch.Tensor) -> None:
        super().__init__()
        self.key, self.tensor = key, tensor

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        done = super().decompose(parent, images, options, reporter)
        first, *others = done.modules
        spoilt = replace(first, tensors={**first.tensors, self.key: self.tensor})
        return replace(done, modules=(spoilt, *others))


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        (
            "mask",
            torch.ones(3, dtype=torch.uint8),
            "made '0' with (3,) as 'mask'; its parent asks for (49,).",
        ),
        (
            "head.bias",
            torch.full((2,), torch.nan),
            "made '0' with numbers in 'head.bias' that are not finite.",
        ),
    ],
)
def test_modules_that_no_composer_could_use_are_not_made(
    key: str, tensor: torch.Tensor, message: str
) -> None:
    with pytest.raises(CompositionError) as caught:
        made(Spoiling(key, tensor))
    assert str(caught.value) == (
        f"The method 'spoiling' {message} What a module needs is in docs/writing-a-method.md."
    )


def test_a_mask_is_made_of_yes_and_no() -> None:
    with pytest.raises(CompositionError, match="The mask of '0' holds values that are not numbers"):
        made(Unsure())


class Unsure(FirstChannels):
    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        bench = Workbench(parent, images, options)
        mask = np.full(bench.space.slots, np.nan)
        return bench.finished(self, [bench.draft(row, mask) for row in bench.rows], {})  # type: ignore[arg-type]


def test_the_page_shows_the_method_that_is_tested() -> None:
    page = (ACTIVITY.parents[1] / "docs" / "writing-a-method.md").read_text(encoding="utf-8")
    text = ACTIVITY.read_text(encoding="utf-8")
    assert text[text.index("class Activity") :].strip() in page


@pytest.mark.usefixtures("registered")
def test_labels_of_the_data_may_be_written_otherwise() -> None:
    parent, images = digit_parent(), digits("012345")
    written = ImageSet(
        images.name, images.split, [f" {label} " for label in "012345"], images.targets, images._read
    )
    own = aligned(parent, written)
    assert own.labels == parent.labels
    assert own.targets.tolist() == images.targets.tolist()
    two = ImageSet(images.name, images.split, [" 0", "0 ", *"2345"], images.targets, images._read)
    with pytest.raises(DataError, match="has no images of '0'"):
        aligned(parent, two)


def test_images_to_measure_on_are_missed_before_the_work() -> None:
    parent, images = digit_parent(), digits("012345")
    network = Runner(parent.head.join(parent.trunk))
    for unseen, sentence in (
        ("imagefolder:nowhere", "does not exist"),
        (digits("01234"), "no images of '5'"),
    ):
        with pytest.raises(DataError, match=sentence):
            modhub.decompose(network, images, method=Unable(), measure=unseen)


class Unable(FirstChannels):
    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        raise AssertionError("the work has begun")
