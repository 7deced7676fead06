"""The margin of a class, in all the forms that the library asks for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modhub.calibration.margins import (
    logit_temperature,
    margin_head,
    margin_head_beside,
    margin_of,
    margin_rows,
    margin_temperature,
    margins,
    margins_of_targets,
)
from modhub.calibration.one_against_rest import one_against_rest_head
from modhub.nets import Head

seeds = st.integers(0, 2**16)


@given(seeds, st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_a_margin_is_the_logit_minus_the_mean_of_the_others(seed: int, labels: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(9, labels))
    expected = np.array(
        [
            [row[c] - (np.delete(row, c).mean() if labels > 1 else 0.0) for c in range(labels)]
            for row in logits
        ]
    )
    tensor = torch.from_numpy(logits)
    np.testing.assert_allclose(margins(logits), expected, atol=1e-12)
    np.testing.assert_allclose(margins(tensor).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(margin_of(logits, labels - 1), expected[:, -1], atol=1e-12)
    targets = torch.from_numpy(np.random.default_rng(seed).integers(labels, size=9))
    of_targets = margins_of_targets(tensor, targets).numpy()
    np.testing.assert_allclose(of_targets, expected[np.arange(9), targets.numpy()], atol=1e-12)


@given(seeds, st.integers(2, 7))
@settings(max_examples=30, deadline=None)
def test_heads_of_margins_answer_with_margins(seed: int, labels: int) -> None:
    draw = np.random.default_rng(seed)
    weight, bias = (torch.from_numpy(draw.normal(size=shape)) for shape in ((labels, 5), (labels,)))
    features = torch.from_numpy(draw.normal(size=(9, 5)))
    expected = margins(features @ weight.T + bias)
    rows, offsets = margin_rows(weight, bias)
    torch.testing.assert_close(features @ rows.T + offsets, expected)
    for row in range(labels):
        pair = one_against_rest_head(weight, bias, row)
        torch.testing.assert_close(margin_head(pair)(features), expected[:, row])


def test_one_more_class_is_counted_as_the_parents_are() -> None:
    """A logit that is one of the parent's own has its margin."""
    draw = np.random.default_rng(0)
    head = Head(
        torch.from_numpy(draw.normal(size=(4, 5))).float(), torch.from_numpy(draw.normal(size=4)).float()
    )
    features = torch.from_numpy(draw.normal(size=(9, 5))).float()
    pair = margin_head_beside(head, head.weight[2].double().numpy(), float(head.bias[2]))
    expected = margin_of(features @ head.weight.T + head.bias, 2)
    torch.testing.assert_close(margin_head(pair)(features), expected)


@pytest.mark.parametrize("labels", [2, 3, 10])
def test_temperatures_of_margins_and_logits_say_the_same(labels: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(labels).normal(size=(9, labels)))
    of_margins = (margin_temperature(1.7, labels) * margins(logits)).softmax(1)
    torch.testing.assert_close((1.7 * logits).softmax(1), of_margins)
    assert logit_temperature(margin_temperature(1.7, labels), labels) == pytest.approx(1.7)
