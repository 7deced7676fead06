"""A method of somebody's own, as docs/writing-a-method.md describes it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import modhub
from modhub.artifact.modules import Decomposition, ModuleSet
from modhub.composition import Budget, compose, parts_of
from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import METHODS, DecomposeOptions, Method, Parent, Workbench, method_of
from modhub.decomposition.parent import aligned
from modhub.errors import AmbiguousClassError, DataError, MethodError, ModhubError
from modhub.manifest import MethodInfo
from modhub.nets import Runner
from modhub.reporter import Reporter
from tests.cli.test_compute import train
from tests.support.console import Console
from tests.support.digit_parents import INPUT, digit_parent, digits, pixels_of
from tests.support.packages import ACTIVITY


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
            "The method '{path}:Mine' has no decompose(). What a method needs is in "
            "docs/writing-a-method.md.",
        ),
        (
            "class Mine:\n def __init__(self, share): ...",
            "Mine",
            "The method '{path}:Mine' has no default for its option 'share'. Give it: "
            "--method-option share=…",
        ),
        (
            "class Mine:\n def __init__(self): 1 / 0",
            "Mine",
            "The method '{path}:Mine' cannot be made: ZeroDivisionError: division by zero. Run it again with "
            "MODHUB_DEBUG=1 to see where.",
        ),
        (
            "class Mine:\n name = paper = None\n def decompose(self): ...",
            "Mine",
            "The method '{path}:Mine' has None as its name, where a line of text is expected. What a "
            "method needs is in docs/writing-a-method.md.",
        ),
        (
            "class Mine:\n name = 'mine'\n def decompose(self): ...",
            "Mine",
            "The method '{path}:Mine' does not name its paper, or None. What a method needs is in "
            "docs/writing-a-method.md.",
        ),
        (
            "class Mine:\n name, paper = 'concern', None\n def decompose(self): ...",
            "Mine",
            "The method '{path}:Mine' bears the name of modhub's own 'concern'. What a method needs is in "
            "docs/writing-a-method.md.",
        ),
        (
            "exit(4)",
            "Mine",
            "'{path}' does not run: SystemExit: 4. Try it with: python {path}",
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

    def __init__(self, key: str, tensor: object) -> None:
        super().__init__()
        self.key, self.tensor = key, tensor

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        done = super().decompose(parent, images, options, reporter)
        first, *others = done.modules
        spoilt = replace(first, tensors={**first.tensors, self.key: self.tensor})  # type: ignore[dict-item]
        return replace(done, modules=(spoilt, *others))


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        (
            "mask",
            torch.ones(3, dtype=torch.uint8),
            "made '0' with uint8 [3] as 'mask'; its parent asks for uint8 [49].",
        ),
        (
            "head.bias",
            torch.full((2,), torch.nan),
            "made '0' with numbers in 'head.bias' that are not finite.",
        ),
        (
            "mask",
            torch.ones(49, dtype=torch.bool),
            "made '0' with bool [49] as 'mask'; its parent asks for uint8 [49].",
        ),
        (
            "mask",
            torch.full((49,), 2, dtype=torch.uint8),
            "made '0' with values in 'mask' that are neither 0 nor 1.",
        ),
        ("head.bias", None, "made '0' with nothing as 'head.bias'; its parent asks for float32 [2]."),
        (
            "position_mask.nope",
            torch.ones(1, dtype=torch.uint8),
            "made '0' with a tensor 'position_mask.nope', but its parent has no value 'nope'.",
        ),
        ("more", np.ones(1), "made '0' with a ndarray as 'more'; it should be a tensor."),
    ],
)
def test_modules_that_no_composer_could_use_are_not_made(key: str, tensor: object, message: str) -> None:
    with pytest.raises(MethodError) as caught:
        made(Spoiling(key, tensor))
    assert str(caught.value) == (
        f"The method 'spoiling' {message} What a module needs is in docs/writing-a-method.md."
    )


class Answering(FirstChannels):
    """Gives what `change` makes of a good decomposition."""

    name = "answering"

    def __init__(self, change: Callable[[Decomposition], object]) -> None:
        super().__init__()
        self.change = change

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        return self.change(super().decompose(parent, images, options, reporter))  # type: ignore[return-value]


def first_changed(done: Decomposition, **values: object) -> Decomposition:
    first, *others = done.modules
    return replace(done, modules=(replace(first, **values), *others))  # type: ignore[arg-type]


def saying(done: Decomposition, value: object) -> Decomposition:
    return replace(done, method=replace(done.method, parameters={"share": value}))  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda done: None, "returned None, not a Decomposition."),
        (lambda done: list(done.modules), "returned a list, not a Decomposition."),
        (lambda done: replace(done, modules=(None,)), "made None where a ModuleDraft is expected."),
        (
            lambda done: replace(done, modules=done.modules[:1]),
            "made modules of '0'; asked for, in this order, were '0', '1', '2', '3', '4' and 1 more.",
        ),
        (
            lambda done: replace(done, method=replace(done.method, name="other")),
            "does not say in what it returns that its name is 'answering'.",
        ),
        (
            lambda done: saying(done, np.float32(1)),
            "made '0' with values that cannot be written: Object of type float32 is not JSON serializable.",
        ),
        (
            lambda done: saying(done, [1]),
            "made '0' with a manifest that is none: 'parameters.share' in 'method' in modules/0/module.json "
            "should be a plain value, not [1].",
        ),
        (
            lambda done: first_changed(done, calibration=None),
            "made '0' with 'nothing' as its calibration, which no composer knows.",
        ),
        (
            lambda done: replace(done, statistics={}),
            "made '0' with the calibration 'odds', but not with [6, 24] as the statistic 'parent.weight'.",
        ),
        (
            lambda done: first_changed(done, sizes=replace(done.modules[0].sizes, kept_channels=500)),
            "made modules that cannot be listed: 'kept_channels_fraction' in 'modules[0]' in modhub.json is "
            "10.2041; it should be 0 to 1.",
        ),
        (lambda done: 1 / 0, "failed: ZeroDivisionError: division by zero."),
        (lambda done: sys.exit(3), "failed: SystemExit: 3."),
    ],
)
def test_what_a_method_does_wrong_names_it(change: Callable[[Decomposition], object], message: str) -> None:
    with pytest.raises(MethodError) as caught:
        made(Answering(change))
    assert caught.value.message == f"The method 'answering' {message}"
    assert caught.value.hint


def test_a_file_may_import_what_lies_beside_it_and_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside_the_method.py").write_text(ACTIVITY.read_text(encoding="utf-8"))
    (tmp_path / "own.py").write_text("print('loud')\nfrom beside_the_method import Activity as Mine\n")
    train("digits-plain", ["0", "1", "2", "3"], tmp_path / "plain.safetensors")
    told = Console(tmp_path, monkeypatch, capsys).good(
        *("decompose", "modhub:digits-plain", "--weights", "plain.safetensors", "--data", "digits"),
        *(
            "--labels",
            "0,1,2,3",
            "--images-per-class",
            "20",
            "--method",
            "own.py:Mine",
            "-o",
            "out",
            "--json",
        ),
    )
    assert told.json["method"] == "activity"
    assert "loud" in told.err


def test_a_mask_is_made_of_yes_and_no() -> None:
    sentence = "The method 'first-channels' failed: The mask of '0' holds values that are not numbers"
    with pytest.raises(MethodError, match=sentence):
        made(Unsure())


class Unsure(FirstChannels):
    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        bench = Workbench(parent, images, options)
        mask = np.full(bench.space.slots, np.nan)
        return bench.finished(self, [bench.draft(row, mask) for row in bench.rows], {})  # type: ignore[arg-type]


def test_the_page_shows_the_method_that_is_tested() -> None:
    page = (ACTIVITY.parents[2] / "writing-a-method.md").read_text(encoding="utf-8")
    text = ACTIVITY.read_text(encoding="utf-8")
    assert text[text.index("@dataclass") :].strip() in page


@pytest.mark.usefixtures("registered")
def test_one_of_ones_own_may_be_written_anew_under_its_name() -> None:
    class Again(FirstChannels):
        """As a cell of a notebook that runs twice makes it."""

    assert method_of(Again()).name == FirstChannels.name


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
    with pytest.raises(AmbiguousClassError, match="'0' is ambiguous in the data set"):
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
