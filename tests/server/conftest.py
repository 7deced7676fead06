"""What the tests of several pages share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.chromium import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without JavaScript."""
    with chromium(javascript=False) as browser:
        yield browser
