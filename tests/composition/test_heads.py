"""Heads on one trunk tell their images apart; labelled images tell those of several trunks apart."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modhub.api.add import add
from modhub.api.compose import compose_to
from modhub.api.init import init
from modhub.api.lock import lock_to
from modhub.api.locked_modules import parts_of_lock
from modhub.api.push import push
from modhub.artifact.modules import ModuleSet
from modhub.calibration.one_against_rest import one_against_rest_head
from modhub.catalog.catalog import Catalog
from modhub.composition import Budget, ComposedClassifier, Part, compose, parts_of
from modhub.composition.head_density import fit_densities
from modhub.composition.heads import CALIBRATION_FIELDS, HeadTensors, JoinedHead
from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import Parent, decompose
from modhub.decomposition.assembly import assemble
from modhub.errors import IntegrityError
from modhub.evaluation.evaluate import evaluate
from modhub.hub import open_hub
from modhub.hub.directory import DirectoryHub
from modhub.nets import Runner, head_logits
from modhub.pruning.statistics import Moments
from modhub.refs import RepositoryId
from tests.support.digit_parents import INPUT, OPTIONS, digit_modules, digit_parent, digits, pixels_of

LOW, HIGH = "01234", "56789"


def head_on(labels: str) -> Parent:
    """A head trained on `labels` alone, on the frozen trunk of a parent of 0 to 5."""
    base = digit_parent()
    pixels, targets = pixels_of(digits(labels))
    with torch.inference_mode():
        features = Runner(base.trunk)(Preprocess(INPUT)(pixels))
    features, wanted = features.clone(), torch.from_numpy(targets)
    weight = torch.zeros(len(labels), features.shape[1], requires_grad=True)
    bias = torch.zeros(len(labels), requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=60)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(features @ weight.T + bias, wanted) + 1e-3 * weight.square().sum()
        torch.autograd.backward([loss])
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return Parent.of(
        base.head.join(base.trunk, weight.detach(), bias.detach()),
        name=f"head-{labels}",
        architecture="digit-net",
        labels=tuple(labels),
        input=INPUT,
    )


@cache
def head_modules(labels: str) -> ModuleSet:
    parent = head_on(labels)
    return assemble(parent, decompose(parent, digits(labels), options=OPTIONS))


def both(low: str = LOW, high: str = HIGH) -> list[Part]:
    return [*parts_of(head_modules(LOW), list(low)), *parts_of(head_modules(HIGH), list(high))]


def ranks(scores: Tensor) -> list[list[int]]:
    return scores.argsort(1).tolist()


def same_order(classifier: ComposedClassifier, images: ImageSet, heads: list[slice]) -> bool:
    pixels, _ = pixels_of(images)
    scores, margins = classifier(pixels).double(), classifier.margins(pixels).double()
    return all(ranks(scores[:, own]) == ranks(margins[:, own]) for own in heads)


def test_two_heads_on_one_trunk_share_a_pass_and_lose_little() -> None:
    classifier = compose(both())
    assert classifier.report()["passes"] == 1
    test = digits(LOW + HIGH, "test")
    pixels, targets = pixels_of(test)
    joint = head_on(LOW + HIGH)
    with torch.inference_mode():
        features = Runner(joint.trunk)(Preprocess(INPUT)(pixels))
        expected = float(
            ((features @ joint.head.weight.T + joint.head.bias).argmax(1).numpy() == targets).mean()
        )
    found = evaluate(classifier, test).top1
    by_margins = float((classifier.margins(pixels).argmax(1).numpy() == targets).mean())
    assert found > by_margins + 0.01
    assert found > expected - 0.02


def test_heads_that_prepare_images_otherwise_share_no_pass() -> None:
    """The trunk is the same; what it is shown is not."""
    darker = []
    for part in parts_of(head_modules(HIGH), list(HIGH)):
        manifest = dataclasses.replace(
            part.module.manifest, input=dataclasses.replace(INPUT, mean=(0.2,), std=(0.5,))
        )
        darker.append(dataclasses.replace(part, module=dataclasses.replace(part.module, manifest=manifest)))
    low = parts_of(head_modules(LOW), list(LOW))
    together = compose([*low, *darker])
    assert together.report()["passes"] == 2
    pixels, _ = pixels_of(digits(LOW + HIGH, "test"))
    alone = torch.cat([compose(parts).margins(pixels) for parts in (low, darker)], 1)
    assert torch.allclose(together.margins(pixels), alone, atol=1e-5)


def test_heads_from_two_repositories_are_locked_and_share_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODHUB_CACHE", str(tmp_path / "cache"))
    hub, project, build = str(tmp_path / "hub"), tmp_path / "work", tmp_path / "build"
    push(head_modules(LOW), "me/low", version="1.0.0", hub=hub)
    push(head_modules(HIGH), "you/high", version="1.0.0", hub=hub)
    refs = [f"{digit}=me/low/{digit}" for digit in LOW] + [f"{digit}=you/high/{digit}" for digit in HIGH]
    init(project)
    add(project, refs)
    fetched: list[str] = []
    download = DirectoryHub.download

    def watched(
        hub: DirectoryHub, repository: RepositoryId, commit: str, path: str, *rest: Any, **more: Any
    ) -> None:
        fetched.append(path)
        download(hub, repository, commit, path, *rest, **more)

    monkeypatch.setattr(DirectoryHub, "download", watched)
    lock = lock_to(project, hub=hub).lock
    assert (len(lock.passes), [str(trunk.repository) for trunk in lock.trunks]) == (1, ["me/low", "you/high"])
    parts_of_lock(lock, Catalog(open_hub(hub)))
    trunk, statistics = f"trunk/{lock.trunks[0].sha256}.safetensors", ".statistics.safetensors"
    assert (fetched.count("trunk/graph.json"), fetched.count(trunk)) == (1, 1)
    assert sum(path.endswith(statistics) for path in fetched) == 2
    assert compose_to(build, project, locked=True, hub=hub).passes == 1
    pixels, _ = pixels_of(digits(LOW + HIGH, "test"))
    assert torch.equal(ComposedClassifier.load(build)(pixels), compose(both())(pixels))


def test_what_tells_heads_apart_keeps_the_order_inside_each() -> None:
    classifier = compose(both())
    assert same_order(classifier, digits(LOW + HIGH, "test"), [slice(0, 5), slice(5, 10)])


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(6)))
def test_the_order_of_modules_does_not_matter(order: list[int]) -> None:
    parts = both("024", "579")
    pixels, _ = pixels_of(digits("024579", "test"))
    one, other = compose(parts), compose([parts[place] for place in order])
    assert torch.equal(one(pixels)[:, order], other(pixels))


def test_one_head_has_nothing_to_be_told_from() -> None:
    (each,) = compose(parts_of(head_modules(LOW))).trunk_passes
    assert each.heads[0].density is None
    (output,) = each.outputs(pixels_of(digits("0", "test"))[0])
    assert not output.shift.any()


def test_heads_of_single_classes_and_budgets_are_told_apart_too() -> None:
    test = digits("19", "test")
    assert evaluate(compose(both("1", "9")), test).top1 > 0.85
    classifier = compose(both("1", "9"), budget=Budget(flops=0.5))
    (each,) = classifier.trunk_passes
    assert [head.features for head in each.heads] == [each.heads[0].density.means.shape[1]] * 2  # type: ignore[union-attr]
    assert evaluate(classifier, test).top1 > 0.8


def test_densities_and_gates_come_back_from_a_build(tmp_path: Path) -> None:
    classifier = compose(both("01", "89"), calibrate=digits("0189").sample(20, 1))
    pixels, _ = pixels_of(digits("0189", "test"))
    back = ComposedClassifier.load(classifier.save(tmp_path / "build"))
    assert torch.equal(back(pixels), classifier(pixels))


def test_a_density_of_another_shape_is_refused(tmp_path: Path) -> None:
    classifier = compose(both("01", "89"))
    head = classifier.trunk_passes[0].heads[0]
    wrong = {name: tensor.clone() for name, tensor in head.tensors.to_dict().items()}
    wrong["whitening"] = wrong["whitening"][:, :-1].contiguous()
    head.tensors = type(head.tensors).from_dict(wrong)
    classifier.save(tmp_path / "build")
    with pytest.raises(IntegrityError) as caught:
        ComposedClassifier.load(tmp_path / "build")
    features = head.features
    assert f"is missing or not [2, {features}, {features}]." in caught.value.message


def test_labelled_images_tell_two_parents_apart_and_keep_the_order_inside_each() -> None:
    parts = [
        *parts_of(digit_modules(), list("012345")),
        *parts_of(digit_modules("456789", 10, 1), list("6789")),
    ]
    test = digits("0123456789", "test")
    errors = 1 - evaluate(compose(parts), test).top1
    calibrated = [compose(parts, calibrate=digits("0123456789").sample(50, seed)) for seed in (3, 4)]
    assert np.mean([1 - evaluate(classifier, test).top1 for classifier in calibrated]) < 0.75 * errors
    classifier = calibrated[0]
    assert any(head.gate.any() for each in classifier.trunk_passes for head in each.heads)
    assert same_order(classifier, test, [slice(0, 6), slice(6, 10)])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_densities_are_normal(seed: int, classes: int, features: int, per_class: bool) -> None:
    draw = np.random.default_rng(seed)
    roots = draw.normal(size=(classes, features, features))
    moments = [
        Moments(mean, root @ root.T + np.eye(features))
        for mean, root in zip(draw.normal(size=(classes, features)), roots, strict=True)
    ]
    (found,) = fit_densities([moments], np.ones(features, np.bool_), per_class=per_class)
    values = torch.from_numpy(draw.normal(size=(5, features)))
    pooled = np.mean([each.covariance for each in moments], axis=0)
    for place, each in enumerate(moments):
        matrix = 0.5 * pooled + 0.5 * each.covariance if per_class else pooled
        spread = np.diagonal(matrix)
        matrix = 0.95 * matrix + np.diag(0.05 * spread + 1e-3 * spread.mean())
        normal = torch.distributions.MultivariateNormal(torch.from_numpy(each.mean), torch.from_numpy(matrix))
        expected = normal.log_prob(values) + 0.5 * features * np.log(2 * np.pi)
        assert torch.allclose(
            found.class_log_densities(values.float())[:, place].double(), expected, atol=1e-3, rtol=1e-3
        )


@pytest.mark.parametrize("tail", [(), ("relu", "average", "flatten")])
@settings(max_examples=20)
@given(seed=st.integers(0, 999), labels=st.integers(3, 8), composed=st.integers(2, 8))
def test_classes_of_one_parent_keep_its_order_behind_any_tail(
    tail: tuple[str, ...], seed: int, labels: int, composed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(labels, 6, generator=draw), torch.randn(labels, generator=draw)
    features = torch.randn((20, 6, 3, 3) if tail else (20, 6), generator=draw)
    rows = list(range(min(composed, labels)))
    pairs = [one_against_rest_head(weight, bias, row) for row in rows]
    head = JoinedHead(
        HeadTensors(
            rows=torch.stack([weights[0] for weights, _ in pairs]),
            row_bias=torch.stack([biases[0] for _, biases in pairs]),
            rest=torch.stack([weights[1] for weights, _ in pairs]),
            rest_bias=torch.stack([biases[1] for _, biases in pairs]),
            calibration=torch.ones(len(CALIBRATION_FIELDS), len(rows)),
            adjustment=torch.tensor([1.0, 0.0]),
        ),
        tail,
    )
    logits, found = head_logits(features, weight, bias, tail)[:, rows], head.margins(features)
    scale = labels / (labels - 1) if not tail else 1.0
    expected = scale * (logits - logits[:, :1])
    assert torch.allclose(found - found[:, :1], expected, atol=1e-4)
