"""The paper's method: dead positions, tangling, channelling, back-tracking, and what it must not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modhub.artifact import read_artifact, write_artifact
from modhub.artifact.modules import Decomposition
from modhub.artifact.tensors import unite_positions
from modhub.composition import compose, parts_of
from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import DecomposeOptions, Parent
from modhub.decomposition.assembly import assemble
from modhub.decomposition.backtracking import serving_positions
from modhub.decomposition.dead_positions import (
    concern_positions,
    judged_values,
    kept_channels,
    observe_fired,
)
from modhub.decomposition.methods.concern import VARIANTS, Concern
from modhub.decomposition.methods.relevance import Relevance
from modhub.decomposition.standalone import standalone
from modhub.errors import DataError, ParentError
from modhub.importing import import_module
from modhub.manifest import InputSpec
from modhub.nets import Network, Runner, channel_space, mask_positions, slice_network
from modhub.reporter import SILENT
from tests.support.pico import INPUT, LABELS, pico_network

OPTIONS = DecomposeOptions(images_per_class=8, calibration_images=6)


def pictures(per_class: int = 14, seed: int = 0) -> ImageSet:
    """Noise, bright in another channel for each class."""
    dice = np.random.default_rng(seed)
    pixels = dice.integers(0, 120, (per_class * 3, 8, 8, 3), dtype=np.uint8)
    targets = np.arange(len(pixels)) % 3
    for number, target in enumerate(targets):
        pixels[number, :, :, target] += 130
    return ImageSet("pets", "train", LABELS, targets, lambda i: pixels[i])


def pico_parent() -> Parent:
    return Parent.of(pico_network(), name="pico", architecture="pico", labels=LABELS, input=INPUT)


@pytest.fixture(scope="module")
def parent() -> Parent:
    return pico_parent()


@pytest.fixture(scope="module")
def decomposition(parent: Parent) -> Decomposition:
    return Concern().decompose(parent, pictures(), OPTIONS, SILENT)


def run(network: Network, images: ImageSet) -> Tensor:
    preprocess = Preprocess(INPUT)
    with torch.inference_mode():
        return torch.cat([Runner(network)(preprocess(pixels)) for pixels, _ in images.batches(100)])


# -- concern and tangling identification ------------------------------------------------------------------


@pytest.mark.parametrize("negatives", [None, 0, 2, 100])
@pytest.mark.parametrize("published", [False, True])
def test_alive_is_what_fired_image_by_image(parent: Parent, negatives: int | None, published: bool) -> None:
    images = pictures(5)
    values = judged_values(parent.trunk.graph, published=published)
    fired = observe_fired(parent, images, values, range(3), negatives, Preprocess(INPUT), 2, SILENT)
    runner = Runner(parent.trunk)
    share = {None: 3, 0: 0, 2: 2, 100: 5}[negatives]
    for row in range(3):
        own = [i for i in range(len(images)) if images.targets[i] == row]
        others = [
            i for other in range(3) if other != row for i in np.flatnonzero(images.targets == other)[:share]
        ]
        for value in values:
            expected = torch.zeros(parent.trunk.graph.shapes[value], dtype=torch.bool)
            for index in [*own, *others]:
                pixels = torch.from_numpy(images.images([index])[0]).permute(2, 0, 1)[None]
                expected |= runner.observe(Preprocess(INPUT)(pixels), [value])[value][0] > 0
            assert torch.equal(fired.alive(row)[value], expected)


def test_every_class_is_observed_in_one_pass(parent: Parent) -> None:
    seen: list[int] = []
    images = pictures(6)
    counted = ImageSet("n", "", LABELS, images.targets, lambda i: (seen.append(i), images.images([i])[0])[1])
    observe_fired(parent, counted, ["relu"], range(3), None, Preprocess(INPUT), 4, SILENT)
    assert sorted(seen) == list(range(18))


def test_of_an_unwanted_class_only_the_negatives_are_looked_at(parent: Parent) -> None:
    seen: list[int] = []
    images = pictures(6)
    counted = ImageSet("n", "", LABELS, images.targets, lambda i: (seen.append(i), images.images([i])[0])[1])
    observe_fired(parent, counted, ["relu"], [1], None, Preprocess(INPUT), 4, SILENT)
    assert np.bincount(images.targets[sorted(seen)]).tolist() == [3, 6, 3]


@pytest.mark.parametrize("row", range(3))
def test_masking_changes_no_answer_on_observed_images(parent: Parent, row: int) -> None:
    images = pictures(8).only(LABELS)
    values = judged_values(parent.trunk.graph)
    fired = observe_fired(parent, images, values, [row], 100, Preprocess(INPUT), 10, SILENT)
    masks = concern_positions(parent.trunk, fired.alive(row))
    assert not all(bool(mask.all()) for mask in masks.values())
    space = channel_space(parent.trunk)
    masked = mask_positions(parent.trunk, masks)
    sliced = slice_network(masked, kept_channels(space, masks))
    torch.testing.assert_close(run(masked, images), run(parent.trunk, images))
    torch.testing.assert_close(
        run(sliced, images), run(parent.trunk, images)[:, kept_channels(space, masks)[space.of("mean")]]
    )


def test_what_is_judged(parent: Parent) -> None:
    assert judged_values(parent.trunk.graph) == ("relu", "relu_2", "relu_3")
    assert judged_values(parent.trunk.graph, published=True) == ("stem", "conv1", "conv2", "add")


def test_the_published_rule_writes_an_add_into_both_branches(parent: Parent) -> None:
    shapes = parent.trunk.graph.shapes
    alive = {value: torch.ones(shapes[value]).bool() for value in ("stem", "conv1", "conv2", "add")}
    alive["add"][2, 1, 0] = False
    masks = concern_positions(parent.trunk, alive, published=True)
    assert set(masks) == {"stem", "conv1", "conv2", "relu"}
    for value in ("conv2", "relu"):
        assert (~masks[value]).nonzero().tolist() == [[2, 1, 0]]
    assert bool(masks["stem"].all())


# -- channels ---------------------------------------------------------------------------------------------


def test_a_channel_without_a_live_position_is_cut(parent: Parent) -> None:
    space = channel_space(parent.trunk)
    shapes = parent.trunk.graph.shapes
    masks = {value: torch.ones(shapes[value]).bool() for value in judged_values(parent.trunk.graph)}
    masks["relu_2"][3] = False
    masks["relu"][2] = False
    masks["relu_3"][1] = False
    kept = kept_channels(space, masks)
    assert np.flatnonzero(~kept).tolist() == [space.of("relu_2")[3]]
    masks["relu_3"][2] = False
    kept = kept_channels(space, masks)
    # Channel 2 of the residual stream is dead before and after the block; channel 1 only after it.
    assert sorted(np.flatnonzero(~kept)) == sorted([space.of("relu_2")[3], space.of("relu")[2]])
    masks["relu_2"][3, 0, 0] = True
    assert np.flatnonzero(~kept_channels(space, masks)).tolist() == [space.of("relu")[2]]


# -- back-tracking ----------------------------------------------------------------------------------------


def dense_network() -> Network:
    """3 → 4 → 3, with weights that link as the comments say."""
    first, second = nn.Linear(3, 4), nn.Linear(4, 3)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0.4], [0, 0, -1]]))
        second.weight.copy_(torch.tensor([[1.0, 1, 0, 0], [0, -1, 0.4, 0], [0, 0, 0, 1]]))
    model = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), nn.Linear(3, 2)).eval()
    return import_module(model, (3, 1, 1))


def test_nodes_that_serve_only_the_others_are_removed() -> None:
    network = dense_network()
    parent = Parent.of(
        network, name="d", architecture="d", labels=("a", "b"), input=_spec(3), license=None, dataset=None
    )
    # Feature 0 is linked to the others only, 1 to both, 2 to the class only.
    first, second = judged_values(parent.trunk.graph)
    head = torch.tensor([[0.4, 0.5, 0.9], [-0.7, 0.5, 0.4]])
    serving = serving_positions(parent.trunk, head, {}, threshold=0.5, to_input=False)
    # Hidden 0 feeds feature 0 only; 1 feeds 0 and 1; 2 feeds nothing strongly enough; 3 feeds 2.
    assert serving[second].tolist() == [False, True, True]
    assert serving[first].tolist() == [False, True, True, True]
    assert serving[parent.trunk.graph.node[first].inputs[0]].tolist() == [False, True, True, True]


def test_a_dead_node_serves_nobody() -> None:
    parent = Parent.of(dense_network(), name="d", architecture="d", labels=("a", "b"), input=_spec(3))
    first, second = judged_values(parent.trunk.graph)
    head = torch.tensor([[0.9, 0.9, 0.9], [0.0, 0.0, 0.0]])
    alive = {second: torch.tensor([True, False, True])}
    serving = serving_positions(parent.trunk, head, alive, threshold=0.5, to_input=False)
    assert serving[first].tolist() == [True, True, True, True]
    alive = {second: torch.tensor([False, True, True])}
    serving = serving_positions(parent.trunk, head, alive, threshold=0.5, to_input=False)
    assert serving[first].tolist() == [False, True, True, True]


@pytest.mark.parametrize("to_input", [False, True])
def test_positions_are_followed_through_pooling_and_convolutions(to_input: bool) -> None:
    conv, last = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, (1, 2))
    with torch.no_grad():
        conv.weight.fill_(1.0)
        last.weight.copy_(torch.tensor([[[[1.0, 0]], [[0, 0]]], [[[0, 0]], [[0, 1.0]]]]))
    model = nn.Sequential(
        conv, nn.ReLU(), last, nn.ReLU(), nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(4, 2)
    )
    network = import_module(model.eval(), (1, 1, 5))
    parent = Parent.of(network, name="c", architecture="c", labels=("a", "b"), input=_spec(1, 1, 5))
    # Features: channel 0 at pooled columns 0 and 1, then channel 1. Column 0 of channel 0 serves the others.
    first, second = judged_values(parent.trunk.graph)
    head = torch.tensor([[0.0, 1, 1, 1], [1, 0, 0, 0]])
    serving = serving_positions(parent.trunk, head, {}, threshold=0.5, to_input=to_input)
    assert serving[second].tolist() == [[[False, False, True, True]], [[True] * 4]]
    # Column k of the last layer reads column k of channel 0 and k + 1 of channel 1; channel 0's fifth column
    # and channel 1's first are read by nothing.
    followed = [[[False, False, True, True, True]], [[True] * 5]]
    assert serving[first].tolist() == (followed if to_input else [[[True] * 5], [[True] * 5]])


def _spec(channels: int, height: int = 1, width: int = 1) -> InputSpec:
    return InputSpec(
        channels=channels, height=height, width=width, mean=(0.0,) * channels, std=(1.0,) * channels
    )


# -- modules ----------------------------------------------------------------------------------------------


def test_the_head_is_channelled(parent: Parent, decomposition: Decomposition) -> None:
    for row, module in enumerate(decomposition.modules):
        others = [other for other in range(3) if other != row]
        torch.testing.assert_close(module.tensors["head.weight"][0], parent.head.weight[row])
        torch.testing.assert_close(module.tensors["head.weight"][1], parent.head.weight[others].mean(0))
        torch.testing.assert_close(module.tensors["head.bias"][1], parent.head.bias[others].mean())


def test_position_masks_unite_where_any_module_lives() -> None:
    one, other = torch.tensor([1, 0, 0]).bool(), torch.tensor([0, 1, 0]).bool()
    assert unite_positions([{"a": one, "b": one}, {"a": other}])["a"].tolist() == [True, True, False]
    assert set(unite_positions([{"a": one, "b": one}, {"a": other}])) == {"a"}
    assert unite_positions([{"a": one}, {"a": ~one}]) == {}
    assert unite_positions([]) == {}


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_composes(parent: Parent, tmp_path: Path, variant: str, published: bool) -> None:
    made = Concern(variant=variant, published=published).decompose(parent, pictures(), OPTIONS, SILENT)
    write_artifact(tmp_path / "out", assemble(parent, made))
    found = read_artifact(tmp_path / "out")
    assert found.manifest.method.parameters["variant"] == variant
    classifier = compose(parts_of(found))
    images = pictures(3, seed=1)
    with torch.inference_mode():
        scores = torch.cat([classifier(pixels) for pixels, _ in images.batches(100)])
    trunk = mask_positions(parent.trunk, unite_positions([m.parsed.position_masks for m in found.modules]))
    space = channel_space(parent.trunk)
    united = space.union([m.tensors["mask"].bool().numpy() for m in found.modules])
    features = run(slice_network(trunk, united), images)
    weight = parent.head.weight[:, torch.from_numpy(united[space.of(parent.trunk.graph.output)])]
    expected = features @ weight.T + parent.head.bias
    assert scores.argmax(1).tolist() == expected.argmax(1).tolist()


def test_the_same_inputs_give_the_same_modules(parent: Parent, decomposition: Decomposition) -> None:
    again = Concern().decompose(parent, pictures(), OPTIONS, SILENT)
    assert assemble(parent, again).manifest == assemble(parent, decomposition).manifest


def test_a_measurement_says_what_the_parent_would_have_said(decomposition: Decomposition) -> None:
    for module in decomposition.modules:
        assert module.measurement is not None
        values = module.measurement.values
        assert values["recall"] == values["parent_recall"]
        assert (module.measurement.positives, module.measurement.negatives) == (3, 6)


@pytest.mark.parametrize("method", [Concern(), Relevance()], ids=lambda method: str(method.name))
@pytest.mark.parametrize("name", LABELS)
def test_a_standalone_module_scores_as_the_delta_one(
    parent: Parent, tmp_path: Path, name: str, method: Concern | Relevance
) -> None:
    options = DecomposeOptions(images_per_class=8, calibration_images=6, max_loss=0.3)
    delta = assemble(parent, method.decompose(parent, pictures(), options, SILENT))
    write_artifact(tmp_path / "one", standalone(delta, name))
    alone = read_artifact(tmp_path / "one")
    assert (alone.manifest.trunk, alone.modules[0].manifest.form) == (None, "standalone")
    if method.name == "relevance":
        assert sum(tensor.numel() for tensor in alone.trunk.parameters()) < sum(
            tensor.numel() for tensor in delta.trunk.parameters()
        )
    with torch.inference_mode():
        for pixels, _ in pictures(3, seed=2).batches(100):
            torch.testing.assert_close(
                compose(parts_of(alone))(pixels), compose(parts_of(delta, [name]))(pixels)
            )


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("variant", "BLX", "one of none, BLN, BI"),
        ("published", "yes", "true or false"),
        ("negatives", -1, "a whole number from 0 on"),
        ("negatives", "many", "a whole number from 0 on"),
        ("threshold", "high", "a number from 0 on"),
    ],
)
def test_bad_options(option: str, value: str | int, wanted: str) -> None:
    with pytest.raises(DataError) as caught:
        Concern(**{option: value})  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"The option '{option}' of the method 'concern' is '{value}'. It should be {wanted}."
    )


def test_parents_and_classes_it_cannot_take() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    silu = Parent.of(
        import_module(model.eval(), (3, 8, 8)), name="silu", architecture="s", labels=LABELS, input=INPUT
    )
    with pytest.raises(ParentError) as refused:
        Concern().decompose(silu, pictures(), OPTIONS, SILENT)
    assert str(refused.value) == (
        "'silu' has no ReLU, so no position of it is ever dead. Use the method 'relevance'."
    )
    with pytest.raises(DataError, match="'pico' has no class 'whale'"):
        Concern().decompose(pico_parent(), pictures(), DecomposeOptions(only=("whale",)), SILENT)
