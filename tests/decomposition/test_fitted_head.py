"""Classes from a folder of images: heads in closed form on a public backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import modhub
from modhub.artifact import write_artifact
from modhub.artifact.modules import ModuleSet
from modhub.composition import Budget, compose, parts_of
from modhub.composition.fitting.settings import FitSettings
from modhub.decomposition.discriminant import fit_discriminant
from modhub.errors import DataError, ParentError
from modhub.evaluation.evaluate import evaluate
from tests.support.digit_parents import digits


class Backbone(nn.Module):
    """A random convolutional network; with `classes` it has a head of its own."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.norm = nn.Conv2d(1, 12, 3, 1, 1), nn.BatchNorm2d(12)
            self.second = nn.Conv2d(12, 24, 3, 2, 1)
            self.head = nn.Linear(96, classes) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.norm(self.first(x)).relu()).relu()
        out: Tensor = self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))
        return out


INPUT = {"input_size": (1, 8, 8), "mean": (0.3,), "std": (0.35,), "name": "random"}


def _published(labels: str, classes: int = 0, **options: object) -> ModuleSet:
    return modhub.decompose(Backbone(classes).eval(), digits(labels), fit_head=True, **INPUT, **options)


def test_two_who_never_met_publish_heads_and_a_third_composes_both_in_one_pass() -> None:
    mine, yours = _published("0123"), _published("4567", classes=5)
    assert mine.trunk.sha256 == yours.trunk.sha256
    classifier = compose([*parts_of(mine, ["1", "3"]), *parts_of(yours, ["4", "6"])])
    assert len(classifier.trunk_passes) == 1
    assert [head.classes for head in classifier.heads] == [2, 2]
    assert all(head.density is not None for head in classifier.heads)
    joint = compose(parts_of(_published("1346")))
    test = digits("1346", "test")
    assert evaluate(classifier, test).top1 > evaluate(joint, test).top1 - 0.06 > 0.8


def test_figures_are_of_images_that_the_head_has_not_seen() -> None:
    modules = _published("012345")
    top1 = evaluate(compose(parts_of(modules)), digits("012345", "test")).top1
    recalls = [entry.metrics["recall"] for entry in modules.manifest.modules]
    assert np.mean(recalls) == pytest.approx(top1, abs=0.05)
    parameters = modules.modules[0].manifest.calibration.parameters
    assert {"threshold", "false_accept", "margin_mean"} <= set(parameters)
    assert modules.manifest.method.name == "fit-head"
    assert modules.manifest.parent.dataset == "digits"


def test_one_class_of_them_is_enough_and_a_budget_chooses_channels() -> None:
    modules = _published("0123", only=["2", "3"])
    assert [module.label for module in modules.modules] == ["2", "3"]
    assert modules.manifest.parent.labels == tuple("0123")
    quick = FitSettings(synthesis_steps=10, synthetic_images=60, synthetic_epochs=3)
    slim = compose(parts_of(modules), budget=Budget(flops=0.7), settings=quick)
    assert slim.trunk_passes[0].report.flops <= 0.7 * slim.trunk_passes[0].report.parent_flops
    assert evaluate(slim, digits("23", "test")).top1 > 0.9


def test_a_trunk_that_was_published_takes_further_heads(tmp_path) -> None:
    first = _published("012")
    write_artifact(tmp_path / "first", first)
    second = modhub.decompose(str(tmp_path / "first"), digits("789"), fit_head=True)
    assert second.trunk.sha256 == first.trunk.sha256
    assert second.manifest.parent.sha256 != first.manifest.parent.sha256
    assert second.manifest.parent.labels == tuple("789")


def test_a_head_in_a_file_has_rows_by_label_or_a_matrix(tmp_path) -> None:
    rows = {"zebra": torch.randn(96), "ape": torch.randn(96)}
    save_file(rows, tmp_path / "rows.safetensors")
    save_file({"weight": torch.stack([rows["ape"], rows["zebra"]])}, tmp_path / "matrix.safetensors")
    model = Backbone().eval()
    by_name = modhub.decompose(model, None, head=tmp_path / "rows.safetensors", **INPUT)
    matrix = modhub.decompose(
        model, None, head=tmp_path / "matrix.safetensors", labels=["ape", "zebra"], **INPUT
    )
    assert by_name.manifest == matrix.manifest
    assert [module.label for module in by_name.modules] == ["ape", "zebra"]
    with pytest.raises(ParentError, match=r"should hold one tensor \(features,\) for each label"):
        modhub.decompose(model, None, head=tmp_path / "matrix.safetensors", **INPUT)
    with pytest.raises(ParentError, match=r"should hold 'weight' \(3, features\) for 3 labels"):
        modhub.decompose(model, None, head=tmp_path / "matrix.safetensors", labels=list("abc"), **INPUT)


def test_what_cannot_be_fitted_is_said() -> None:
    with pytest.raises(DataError, match=r"the trunk is kept whole: labels cannot be given"):
        modhub.decompose(Backbone().eval(), digits("01"), fit_head=True, labels=["a", "b"])
    few = digits("01")
    once = [int(np.flatnonzero(few.targets == 1)[0]), *np.flatnonzero(few.targets == 0)[:5].tolist()]
    with pytest.raises(DataError, match=r"has 1 images of '1'; at least 2 are needed"):
        modhub.decompose(Backbone().eval(), few.subset(once), fit_head=True, **INPUT)

    class Map(Backbone):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.second(self.first(x)).relu()
            return out

    with pytest.raises(ParentError, match=r"gives features of the shape \[24, 4, 4\] per image"):
        modhub.decompose(Map().eval(), digits("01"), fit_head=True, **INPUT)


@pytest.mark.parametrize(("images", "features"), [(40, 6), (12, 50), (6, 3)])
def test_a_discriminant_goes_with_its_features(images: int, features: int) -> None:
    draw = np.random.default_rng(images)
    targets = np.arange(images) % 3
    values = draw.normal(size=(images, features)) + 2 * targets[:, None] * draw.normal(size=features)
    fitted = fit_discriminant(values, targets, values)
    assert np.allclose(fitted.left_out, fitted.left_out_copies)
    moved = fit_discriminant(3 * values + 5, targets)
    ours, theirs = values @ fitted.weight.T + fitted.bias, (3 * values + 5) @ moved.weight.T + moved.bias
    assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    shuffled = draw.permutation(3)[targets]
    assert np.isfinite(fit_discriminant(values, shuffled).weight).all()
    assert (ours.argmax(1) == targets).mean() > 0.6
