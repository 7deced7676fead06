import pytest

from modhub.decomposition import DecomposeOptions
from modhub.errors import ParentError
from modhub.licences import USUAL, licence_expression


@pytest.mark.parametrize(
    "text",
    ["mit", "MIT", "Apache-2.0 OR MIT", "gpl-3.0", "cc-by-nc-4.0", "LicenseRef-my-own", "cc0-1.0", *USUAL],
)
def test_an_spdx_expression_is_taken_as_written(text: str) -> None:
    assert licence_expression(text) == text


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("Apache 2", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("MITT", "MIT"),
        ("The MIT License", "Nearest: MIT,"),
        ("gpl 3", "GPL-3"),
        ("GPLv3", "GPL-3"),
        ("bsd 3 clause", "BSD-3-Clause"),
    ],
)
def test_another_is_refused_with_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(ValueError, match="is not an SPDX licence expression") as caught:
        licence_expression(text)
    assert nearest in str(caught.value)
    assert str(caught.value).endswith("Of any other licence: LicenseRef-NAME.")


def test_python_is_told_the_same() -> None:
    with pytest.raises(ParentError) as caught:
        DecomposeOptions(license="MITT")
    assert caught.value.message.startswith("'MITT' is not an SPDX licence expression. Nearest: MIT")
