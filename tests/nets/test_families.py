"""One small member of each family: imported, stored, sliced, fused, and run by other runtimes."""

from __future__ import annotations

import pytest
import torch

from modhub.importing import import_module
from modhub.nets import Runner, channel_space, cost, fuse_batch_norm, slice_network, split_head, weightless
from tests.support.small_nets import CLASSES, FAMILIES, random_masks, settle, slice_difference, stored

SHAPE = (3, 64, 64)


@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str) -> None:
    module = settle(FAMILIES[name](), SHAPE)
    images = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    network = stored(import_module(module, SHAPE))
    with torch.no_grad():
        logits = module(images)
    # The answer depends on the image, or what follows could not fail.
    assert float((logits[0] - logits[1]).abs().max()) > 1e-3
    assert float((Runner(network)(images) - logits).abs().max()) < 1e-5 * max(1, float(logits.abs().max()))
    assert cost(network).parameters == sum(parameter.numel() for parameter in module.parameters())

    trunk, head = split_head(network)
    assert head.weight.shape[0] == CLASSES
    assert torch.allclose(Runner(head.join(trunk))(images), logits, atol=1e-5, rtol=1e-4)

    space = channel_space(trunk)
    # A gate for positions is one channel.
    refused = {group.reason for group in space.groups if not group.cuttable} - {"has one channel"}
    assert refused == {"is the image"}
    for mask in random_masks(space):
        assert slice_difference(trunk, mask, space, images) < 1e-4
        sliced = slice_network(trunk, mask, space=space)
        assert cost(sliced).flops < cost(trunk).flops
        assert cost(slice_network(weightless(trunk), mask, space=space)) == cost(sliced)
        fused = Runner(fuse_batch_norm(sliced))(images)
        assert torch.allclose(fused, Runner(sliced)(images), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.parametrize("name", ["shufflenet_v2", "convnext"])
def test_other_runtimes(name: str) -> None:
    """A sliced network compiles (without code generation), exports with a free batch size, and traces."""
    trunk, _ = split_head(import_module(settle(FAMILIES[name](), SHAPE), SHAPE))
    space = channel_space(trunk)
    runner = Runner(slice_network(trunk, random_masks(space)[1], space=space))
    images = torch.randn(3, *SHAPE)
    wanted = runner(images)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(runner, (images[:2],), dynamic_shapes=({0: batch},)).module()
    compiled = torch.compile(runner, backend="eager", fullgraph=True)
    traced = torch.jit.trace(runner, (images[:2],))
    for run in (exported, compiled, traced):
        assert torch.allclose(run(images), wanted, atol=1e-5)
