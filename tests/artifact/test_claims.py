"""What a manifest claims of a network is counted again, and what a network may take has a bound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modhub.api.verify import verify
from modhub.artifact import read_sets, write_artifact
from modhub.artifact.claims import check_costs
from modhub.errors import IntegrityError, ManifestError
from modhub.manifest import InputSpec
from modhub.manifest.fields import Fields
from modhub.nets import Graph, Network, Runner
from tests.support.pico import INPUT, pico_set

GOLDEN = Path(__file__).parents[1] / "golden"


def test_costs_that_are_not_the_networks_are_named(tmp_path: Path) -> None:
    """The modules of this set are cheaper than they say."""
    place = str(write_artifact(tmp_path / "pets", pico_set()))
    assert verify(place).modules == 3
    with pytest.raises(IntegrityError) as caught:
        verify(place, networks=True)
    assert str(caught.value) == (
        "The module 'cat' has 9,504 multiply-adds, and its manifest says 11,231. Pull or decompose it again."
    )


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/**/modhub.json")), ids=str)
def test_costs_of_earlier_versions_are_as_they_say(path: Path) -> None:
    for modules in read_sets(path.parent):
        check_costs(modules)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resize": 8192}, "input asks for images of 8,192 × 8,192 pixels ('resize'); 4,194,304 pixels"),
        ({"resize": [8192, 600]}, "input asks for images of 8,192 × 600 pixels ('resize')"),
        ({"height": 8192, "width": 8192}, "input asks for images of 8,192 × 8,192 pixels ('input')"),
        ({"resize": 2048}, None),
        ({"resize": None, "height": 2048, "width": 2048}, None),
    ],
)
def test_images_have_a_size_that_memory_has(change: dict[str, Any], message: str | None) -> None:
    document = {**INPUT.to_dict(), **change}
    if message is None:
        assert InputSpec.from_dict(Fields(document, "input")).to_dict() == document
        return
    with pytest.raises(ManifestError) as caught:
        InputSpec.from_dict(Fields(document, "input"))
    assert str(caught.value).startswith(message)


def test_a_trunk_takes_the_images_that_its_manifest_says(tmp_path: Path) -> None:
    """Else a small network has the manifest's images made, whatever their size."""
    place = write_artifact(tmp_path / "pets", pico_set())
    document = json.loads((place / "modhub.json").read_bytes())
    document["input"]["height"] = 1024
    (place / "modhub.json").write_text(json.dumps(document))
    with pytest.raises(
        IntegrityError, match=r"takes images of shape \[3, 8, 8\]; the manifest says \[3, 1024, 8\]"
    ):
        read_sets(place)


def wide(channels: int, depth: int, extent: int) -> dict[str, Any]:
    """`depth` values of one image that are all there before they are added up."""
    attributes = {"kernel": [1, 1], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
    nodes: list[dict[str, Any]] = []
    for number in range(depth):
        nodes.append(
            {
                "name": f"conv{number}",
                "op": "conv2d",
                "inputs": ["input"],
                "attributes": {**attributes, "in_channels": 3, "out_channels": channels},
                "tensors": {"weight": "weight"},
            }
        )
    for number in range(1, depth):
        inputs = [f"sum{number - 1}" if number > 1 else "conv0", f"conv{number}"]
        nodes.append({"name": f"sum{number}", "op": "add", "inputs": inputs, "attributes": {}, "tensors": {}})
    return {
        "schema_version": 1,
        "input": "input",
        "input_shape": [3, extent, extent],
        "nodes": nodes,
        "output": f"sum{depth - 1}",
    }


def test_the_sum_of_values_has_a_bound_before_anything_is_allocated() -> None:
    """No value is large, all together are."""
    with pytest.raises(ManifestError, match=r"numbers at a time for one image; 536,870,912 are allowed"):
        Graph.from_dict(wide(32, 20, 1024))


def test_a_batch_takes_no_more_memory_than_one_image_may(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(Network(Graph.from_dict(wide(8, 4, 8)), {"weight": torch.randn(8, 3, 1, 1)}))
    images = torch.randn(10, 3, 8, 8)
    with torch.inference_mode():
        whole = runner(images)
        monkeypatch.setattr("modhub.nets.runner.MAX_LIVE", 3 * runner.network.graph.peak)
        sizes: list[int] = []
        runner.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
        torch.testing.assert_close(runner(images), whole)
    assert sizes == [10, 3, 3, 3, 1]
    assert runner.network.graph.peak == 5 * 8 * 8 * 8
