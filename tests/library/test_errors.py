"""Errors cross process boundaries whole."""

from __future__ import annotations

import copy
import pickle

import pytest

from modhub import errors
from modhub.errors import (
    BudgetError,
    MissingDependencyError,
    ModhubError,
    NotFoundError,
    UnsupportedOperatorError,
)


@pytest.mark.parametrize(
    "error",
    [
        BudgetError("No such budget.", hint="Take another."),
        NotFoundError("No such file.", hint="Look.", missing="file"),
        UnsupportedOperatorError("grid_sample", "warp"),
        MissingDependencyError("onnx", purpose="Exporting", extra="export"),
    ],
)
def test_an_error_that_was_pickled_says_the_same(error: ModhubError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


def test_every_error_is_listed_and_is_a_modhub_error() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == errors.__name__
    ]
    assert len(kinds) > 20
    assert all(issubclass(kind, ModhubError) for kind in kinds)
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in kinds)
