"""Metrics beside scikit-learn's and SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve
from torch import Tensor

from modhub.data import ImageSet
from modhub.evaluation.evaluate import evaluate
from modhub.manifest import Sample, at_least

LABELS = tuple("abcdefgh")
COUNT = 400


class Table:
    """Answers the image whose number its pixels spell with a row of `scores`."""

    labels = LABELS

    def __init__(self, scores: NDArray[np.float32]) -> None:
        self.scores = torch.from_numpy(scores)

    def __call__(self, images: Tensor) -> Tensor:
        numbers = images[:, 0, 0, :2].long()
        return self.scores[256 * numbers[:, 0] + numbers[:, 1]]


def numbered(index: int) -> NDArray[np.uint8]:
    image = np.zeros((1, 2, 1), dtype=np.uint8)
    image[0, :, 0] = divmod(index, 256)
    return image


@pytest.fixture(params=[0, 1, 2])
def case(request: pytest.FixtureRequest) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and classes; the larger the seed, the surer the scores."""
    random = np.random.default_rng(request.param)
    targets = random.integers(0, len(LABELS), COUNT)
    scores = random.normal(size=(COUNT, len(LABELS)))
    scores[np.arange(COUNT), targets] += 1.0
    return ((1 + request.param) * scores).astype(np.float32), targets


def test_accuracy_f1_and_confusion_are_scikit_learns(
    case: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    scores, targets = case
    result = evaluate(Table(scores), ImageSet("table", "test", LABELS, targets, numbered))
    answers, rows = scores.argmax(1), np.arange(len(LABELS))
    assert result.top1 == pytest.approx(sklearn_metrics.accuracy_score(targets, answers))
    top5 = sklearn_metrics.top_k_accuracy_score(targets, scores, k=5, labels=rows)
    assert result.top5 == pytest.approx(top5)
    assert result.confusion == tuple(
        map(tuple, sklearn_metrics.confusion_matrix(targets, answers, labels=rows))
    )
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        targets, answers, labels=rows, zero_division=np.nan
    )
    for row, label in enumerate(LABELS):
        score = result.per_class[label]
        assert score.count == support[row]
        assert (score.precision, score.recall, score.f1) == pytest.approx(
            (precision[row], recall[row], f1[row])
        )


def test_calibration_error_is_that_of_scikit_learns_curve(
    case: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    scores, targets = case
    result = evaluate(Table(scores), ImageSet("table", "test", LABELS, targets, numbered))
    confidence = softmax(scores.astype(np.float64), axis=1).max(1)
    right = scores.argmax(1) == targets
    bins = 15
    shares, means = calibration_curve(right, confidence, n_bins=bins, strategy="uniform")
    counts, _ = np.histogram(confidence, bins=bins, range=(0.0, 1.0))
    expected = float((np.abs(shares - means) * counts[counts > 0]).sum() / COUNT)
    assert result.ece == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("right", "count"), [(0, 10), (1, 10), (5, 10), (10, 10), (93, 100), (999, 1000)])
def test_the_lower_bound_is_scipys_wilson_interval(right: int, count: int) -> None:
    sample = Sample(dataset="pets", split="test", positives=count // 2, negatives=count)
    bound = at_least({"balanced_accuracy": right / count}, sample)
    interval = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert bound == pytest.approx(interval.low, abs=1e-4)
