"""What holds of every network and every mask."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modhub.nets import Network, Runner, channel_space, cost, fuse_batch_norm, slice_network
from modhub.nets.simplify import simplify
from tests.support.random_nets import networks, transformers
from tests.support.small_nets import slice_difference, stored

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
IMAGES = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
NETWORKS = st.one_of(networks(), transformers())
SEEDS = st.integers(0, 1 << 16)
SHARES = st.sampled_from((0.0, 0.3, 0.6, 1.0))


@QUICK
@given(NETWORKS, SEEDS, SHARES)
def test_a_sliced_network_is_the_masked_dense_one(network: Network, seed: int, share: float) -> None:
    space = channel_space(network)
    mask = np.random.default_rng(seed).random(space.slots) < share
    assert slice_difference(network, mask, space, IMAGES) < 1e-4


@QUICK
@given(NETWORKS)
def test_a_full_mask_changes_nothing(network: Network) -> None:
    space = channel_space(network)
    sliced = slice_network(network, space.full_mask(), space=space)
    assert torch.allclose(Runner(sliced)(IMAGES), Runner(network)(IMAGES), atol=1e-5)
    before, after = cost(network), cost(sliced)
    assert (after.flops, after.parameters) == (before.flops, before.parameters)
    # An operator that does nothing, such as a padding of nothing, is left out.
    assert after.operators <= before.operators


@QUICK
@given(NETWORKS)
def test_written_and_read_is_the_same(network: Network) -> None:
    again = stored(network)
    assert again.graph == network.graph
    assert again.sha256 == network.sha256
    assert torch.equal(Runner(again)(IMAGES), Runner(network)(IMAGES))


@QUICK
@given(NETWORKS)
def test_simplified_and_fused_compute_the_same(network: Network) -> None:
    wanted = Runner(network)(IMAGES)
    scale = 1 + float(wanted.abs().max())
    simplified = simplify(network)
    assert simplify(simplified).graph == simplified.graph
    assert float((Runner(simplified)(IMAGES) - wanted).abs().max()) < 1e-5 * scale
    assert float((Runner(fuse_batch_norm(network))(IMAGES) - wanted).abs().max()) < 1e-5 * scale


@QUICK
@given(NETWORKS, st.tuples(SEEDS, SEEDS, SEEDS), SHARES)
def test_union_is_commutative_associative_idempotent_and_closed(
    network: Network, seeds: tuple[int, int, int], share: float
) -> None:
    space = channel_space(network)
    one, two, three = (space.close(np.random.default_rng(s).random(space.slots) < share) for s in seeds)
    assert np.array_equal(space.union([one, two]), space.union([two, one]))
    assert np.array_equal(space.union([space.union([one, two]), three]), space.union([one, two, three]))
    assert np.array_equal(space.union([one, one]), one)
    # No repair is needed: a union of masks that can be cut can be cut.
    assert np.array_equal(space.union([one, two]), one | two)
    assert np.array_equal(space.close(one), one)
    assert np.array_equal(space.join(space.split(one)), one)
    assert space.union([one, space.full_mask()]).all()
