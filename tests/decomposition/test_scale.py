"""Streaming, devices, several processes, resuming: none of them changes what a decomposition finds."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from modhub.artifact.modules import Decomposition
from modhub.artifact.tensors import ModuleTensors, TrunkTensors
from modhub.calibration.margins import margin_head
from modhub.calibration.one_against_rest import one_against_rest_head
from modhub.data.augment import augmented, mirrored
from modhub.data.disk_tensor import DiskTensor
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import DecomposeOptions, Parent, Workbench, channel_choice, decompose, observations
from modhub.decomposition.held_out import HeldOut, ParentAnswers
from modhub.devices import peak_memory, pick_device
from modhub.errors import DeviceError
from modhub.importing import import_module
from modhub.nets import Head, Runner, channel_space, fuse_batch_norm
from modhub.pruning import moments as gathering
from modhub.pruning.moments import StreamingMoments, chunks_of, correlation_numbers
from modhub.pruning.order import QuickOrder, order_work, pruning_order, slot_costs
from modhub.pruning.statistics import (
    observe,
    observed_values,
    pooled_statistics,
    read_statistics,
    unpacked,
)
from modhub.workers import Workers
from tests.support.digit_parents import INPUT, digit_parent, digits

OPTIONS = DecomposeOptions(images_per_class=40, calibration_images=20)


def streaming(parent: Parent, *, per_class: bool, batch: int = 50) -> StreamingMoments:
    return StreamingMoments(
        Runner(parent.trunk),
        parent.head,
        channel_space(parent.trunk),
        digits("012345").sample(60, 0),
        Preprocess(INPUT),
        per_class=per_class,
        batch=batch,
        device=torch.device("cpu"),
        workers=Workers(),
    )


@pytest.fixture(scope="module")
def parent() -> Parent:
    return digit_parent()


# -- streaming --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "batch", "chunks"),
    [
        ([3, 3, 3], 10, [[0, 1, 2]]),
        ([3, 3, 3], 6, [[0, 1], [2]]),
        ([30, 3, 3], 10, [[0], [1, 2]]),
        ([3, 30, 3], 10, [[0], [1], [2]]),
        ([10, 10], 10, [[0], [1]]),
    ],
)
def test_small_classes_share_a_batch(counts: list[int], batch: int, chunks: list[list[int]]) -> None:
    assert chunks_of(range(len(counts)), counts, batch) == chunks


@pytest.mark.parametrize("tail", [(), ("relu",)])
@pytest.mark.parametrize("batch", [50, 200])
def test_a_class_observed_among_others_is_as_if_alone(
    parent: Parent, batch: int, tail: tuple[str, ...]
) -> None:
    space = channel_space(parent.trunk)
    together = streaming(parent, per_class=True, batch=batch)
    together.head = Head(parent.head.weight, parent.head.bias, tail)
    for row, found in zip([4, 1, 3], together.observe([4, 1, 3]), strict=True):
        own = together.images.subset(np.flatnonzero(together.images.targets == row))
        alone = observe(
            Runner(parent.trunk),
            (Preprocess(INPUT)(pixels) for pixels, _ in own.batches(20)),
            space,
            margin_head(one_against_rest_head(parent.head.weight, parent.head.bias, row), tail),
        )
        for name, moments in alone.moments.items():
            np.testing.assert_allclose(found.moments[name].mean, moments.mean, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(
                found.moments[name].covariance, moments.covariance, rtol=1e-3, atol=1e-5
            )
            np.testing.assert_allclose(found.sensitivity[name], alone.sensitivity[name], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("limit", [2048, 20])
def test_pooled_while_streaming_is_pooled_afterwards(
    parent: Parent, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "CHANNEL_LIMIT", limit)
    kept, streamed = streaming(parent, per_class=True), streaming(parent, per_class=False)
    whole = pooled_statistics([*kept.observe([0, 1, 2]), *kept.observe([3, 4, 5])])
    found = [*streamed.observe([0, 1, 2]), *streamed.observe([3, 4, 5])]
    assert all(each.covariance.ndim == 1 for one in found for each in one.moments.values())
    pooled = streamed.pooled.moments()
    assert {each.covariance.ndim for each in pooled.values()} == ({2} if limit == 2048 else {1, 2})
    for name, moments in whole.moments.items():
        np.testing.assert_allclose(pooled[name].mean, moments.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(pooled[name].covariance, moments.covariance, rtol=1e-3, atol=1e-5)


def pooled_decomposition(monkeypatch: pytest.MonkeyPatch, **options: object) -> Decomposition:
    """Of the digits, as of a parent too large for correlations of each class's own."""
    monkeypatch.setattr(observations, "CORRELATION_LIMIT", 0)
    chosen = DecomposeOptions(images_per_class=40, calibration_images=20, **options)
    return decompose(digit_parent(), digits("012345"), options=chosen)


def test_classes_choose_with_the_statistics_that_composers_read(
    parent: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = pooled_decomposition(monkeypatch)
    bench = Workbench(parent, digits("012345"), OPTIONS)
    for row, draft in enumerate(done.modules):
        assert not any(re.match(r"statistics\..*\.correlation", key) for key in draft.tensors)
        stored = ModuleTensors.from_dict(draft.tensors).statistics
        pooled = TrunkTensors.from_dict(done.statistics).correlations
        read = read_statistics(stored, pooled, parent.trunk.graph, bench.space)
        chosen_by = bench.statistics(row)
        for name, moments in read.moments.items():
            np.testing.assert_array_equal(chosen_by.moments[name].covariance, moments.covariance)
            np.testing.assert_array_equal(chosen_by.moments[name].mean, moments.mean)
            np.testing.assert_array_equal(chosen_by.sensitivity[name], read.sensitivity[name])


def test_pooled_correlations_serve_nearly_as_well(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    own = decompose(parent, digits("012345"), options=OPTIONS)
    pooled = pooled_decomposition(monkeypatch)
    for one, other in zip(own.modules, pooled.modules, strict=True):
        values = other.measurement.values
        assert values["balanced_accuracy"] > max(0.8, values["parent_balanced_accuracy"] - 0.1)
        assert abs(one.sizes.kept_channels_fraction - other.sizes.kept_channels_fraction) < 0.35


def test_classes_that_are_not_examined_pay_the_same_price(
    parent: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_choice, "ORDER_WORK", 0)
    done = pooled_decomposition(monkeypatch, examine=3)
    measured = [draft.measurement is not None for draft in done.modules]
    assert measured == [True, False, True, False, False, True]
    assert done.method.parameters["examined"] == 3
    for draft in done.modules:
        assert 0 < draft.sizes.kept_channels <= draft.sizes.channels
    sizes = [draft.sizes.kept_channels_fraction for draft in done.modules]
    assert min(sizes) < 1
    assert max(sizes[1], sizes[3], sizes[4]) < 1, "they lose channels too"


def test_quick_orders_are_initial_saliencies(parent: Parent) -> None:
    space = channel_space(parent.trunk)
    (found,) = streaming(parent, per_class=True).observe([2])
    costs = slot_costs(parent.trunk, space)
    deviations = {name: np.sqrt(each.variance) for name, each in found.moments.items()}
    correlations = {
        name: each.covariance / np.outer(deviations[name], deviations[name]).clip(1e-12)
        for name, each in found.moments.items()
    }
    quick = QuickOrder(correlations, space, costs).order(deviations, found.sensitivity)
    exact = pruning_order(found, space, costs)
    assert sorted(quick.slots) == sorted(quick.slots.tolist())
    assert len(quick.slots) == len(exact.slots)
    assert (np.diff(quick.saliency) >= 0).all()
    # What goes first of all is the same channel, whichever way: nothing has been removed before it.
    first = len(exact.slots) // 4
    assert len(set(quick.slots[:first]) & set(exact.slots[:first])) >= first // 2


def test_work_is_counted(parent: Parent) -> None:
    space = channel_space(parent.trunk)
    values = observed_values(parent.trunk.graph, space)
    channels = [len(space.of(name)) for name in values]
    assert correlation_numbers(parent.trunk.graph, space) == sum(c * (c - 1) // 2 for c in channels)
    assert order_work(space, values) == sum(c**3 for c in channels)


def test_triangles_unfold() -> None:
    matrix = unpacked(np.array([0.1, 0.2, 0.3]))
    assert matrix.tolist() == [[1, 0.1, 0.2], [0.1, 1, 0.3], [0.2, 0.3, 1]]
    assert unpacked(np.zeros(0)).tolist() == [[1.0]]


class ChannelsLast(nn.Module):
    """A linear layer over channels that stand last, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 7, 3, 1, 1)
        self.wide, self.back = nn.Linear(7, 9), nn.Linear(9, 7)
        self.head = nn.Linear(7, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x + self.back(self.wide(x).relu())
        return self.head(x.permute(0, 3, 1, 2).mean((2, 3)))


def test_channels_may_stand_last() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = import_module(ChannelsLast().eval(), (1, 8, 8))
    parent = Parent.of(network, name="last", architecture="last", labels=tuple("012345"), input=INPUT)
    (found,) = streaming(parent, per_class=True).observe([1])
    assert {len(each.mean) for each in found.moments.values()} == {7, 9}
    done = decompose(parent, digits("012345"), options=OPTIONS)
    assert len(done.modules) == 6


# -- devices ----------------------------------------------------------------------------------------------


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    for text, message in [
        (
            "cuda",
            "The device 'cuda' was asked for, but this machine has no CUDA device that PyTorch can use.",
        ),
        ("tpu", "'tpu' is not a device."),
    ]:
        with pytest.raises(DeviceError) as caught:
            pick_device(text)
        assert caught.value.message == message
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto") == torch.device("cuda", 0)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(DeviceError, match="'cuda:2' was asked for, but this machine has 2"):
        pick_device("cuda:2")


def test_memory_is_told() -> None:
    peak = peak_memory()
    assert peak is None or 10_000_000 < peak < 1 << 40


# -- held-out images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 4 * 7 * 6 - 1, 4 * 7 * 6])
def test_rows_are_the_same_in_memory_and_on_disk(limit: int) -> None:
    wanted = torch.randn(7, 1, 2, 3)
    rows = DiskTensor(7, (1, 2, 3), limit)
    rows.put(3, wanted[3:])
    rows.put(0, wanted[:3])
    assert len(rows) == 7
    assert torch.equal(rows[1:5], wanted[1:5])
    assert torch.equal(rows[5:12], wanted[5:])
    assert torch.equal(rows[np.array([6, 0, 0])], wanted[[6, 0, 0]])
    assert torch.equal(torch.cat(list(rows.split(4))), wanted)


def test_where_held_out_images_lie_changes_nothing(parent: Parent) -> None:
    few = digits("012345").sample(8, 0)
    kept = HeldOut.read(few, parent, OPTIONS)
    spilled = HeldOut.read(few, parent, OPTIONS, memory=0)
    assert len(spilled.images) == 2 * 12, "two of each class and their copies"
    again = HeldOut.read(few.sample(2, 0), parent, OPTIONS)
    assert torch.equal(spilled.images[0:24], again.images[0:24])
    assert torch.equal(spilled.mirrors[0:12], again.mirrors[0:12])
    assert len(kept.images) == 2 * 48


def test_mirrors_are_of_the_rows_they_say(parent: Parent) -> None:
    held = HeldOut.read(digits("012345").sample(30, 0), parent, OPTIONS)
    assert len(held.mirrors) == len(held.mirrored) == 100
    assert torch.equal(held.mirrors[0:100], held.images[held.mirrored].flip(3))


def test_copies_in_a_mirror_count_where_that_changes_no_class(parent: Parent) -> None:
    held = HeldOut.read(digits("012345").sample(20, 0), parent, OPTIONS)
    straight, every = held.threshold_weights(mirrors=False), held.threshold_weights(mirrors=True)
    assert 0.3 < (straight[held.plain :] == 0).mean() < 0.7
    assert straight.sum() == pytest.approx(held.weights.sum())
    assert (straight[: held.plain] == held.weights[: held.plain]).all()
    assert (every == held.weights).all()


@pytest.mark.parametrize(("labels", "mirrors"), [("012345", False), ("0", True)])
def test_a_mirrored_three_is_none_and_a_mirrored_zero_is_one(
    parent: Parent, labels: str, mirrors: bool
) -> None:
    held = HeldOut.read(digits(labels).sample(20, 0), parent, OPTIONS)
    runner = Runner(fuse_batch_norm(parent.trunk))
    answers = ParentAnswers.ask(runner, parent.head, held, OPTIONS, Workers())
    assert answers.accuracy(held) > 0.9
    assert answers.mirrors_keep_classes(held) == mirrors


@pytest.mark.parametrize("seed", [0, 7])
def test_which_copies_stand_in_a_mirror(seed: int) -> None:
    """A bright left half is on the right in a mirror, whatever else is changed."""
    images = torch.zeros(64, 1, 16, 16, dtype=torch.uint8)
    images[..., :8] = 200
    copies = augmented(images, seed).float().mean((1, 2))
    assert torch.equal(copies[:, 8:].mean(1) > copies[:, :8].mean(1), mirrored(64, seed))
