"""Pictures of any shape come to the network alike, in PyTorch and before a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modhub.data.preprocessing import Preprocess
from modhub.errors import DataError, ExportError
from modhub.manifest import InputSpec
from modhub.runtimes.export import as_raw_batch, export_classifier
from modhub.runtimes.exported import SUFFIXES, open_exported
from modhub.runtimes.geometry import Geometry

STRETCH = InputSpec(channels=3, height=12, width=16, mean=(0.0,) * 3, std=(1.0,) * 3)
SHORTER = replace(STRETCH, height=14, width=14, resize=17, crop=True)
SPECS = {
    "stretched": STRETCH,
    "stretched, bicubic": replace(STRETCH, interpolation="bicubic"),
    "stretched, nearest": replace(STRETCH, interpolation="nearest"),
    "stretched, then cut": replace(STRETCH, resize=(16, 20), crop=True),
    "shorter side": SHORTER,
    "shorter side, odd rest": replace(SHORTER, resize=20),
    "shorter side, halves down": replace(SHORTER, crop_floor=True),
    "shorter side, nothing cut": replace(SHORTER, resize=14),
    "cut or padded": replace(STRETCH, crop=True),
}
SHAPES = [(20, 30), (30, 20), (10, 30), (1, 40), (40, 1), (17, 17), (5, 7), (23, 24)]


def photographs(count: int, height: int, width: int) -> list[np.ndarray]:
    """Smooth, as most of a photograph is."""
    draw = torch.Generator().manual_seed(height * 100 + width)
    coarse = torch.rand(count, 3, 3, 4, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return list((255 * smooth).byte().permute(0, 2, 3, 1).contiguous().numpy())


def difference(spec: InputSpec, picture: np.ndarray) -> float:
    """The largest, in grey values, between what a network sees in PyTorch and what it sees in a file."""
    prepare, geometry = Preprocess(spec), Geometry.of([spec])
    expected = prepare(torch.from_numpy(picture).permute(2, 0, 1)[None])
    return float((prepare(as_raw_batch([picture], geometry)) - expected).abs().max()) * 255


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SPECS)
def test_a_picture_is_the_same_before_a_file(name: str, shape: tuple[int, int]) -> None:
    (picture,) = photographs(1, *shape)
    assert difference(SPECS[name], picture) <= 2.01


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(4, 20),
    st.integers(0, 9),
    st.booleans(),
    st.sampled_from(["bilinear", "bicubic"]),
)
@settings(max_examples=60, deadline=None)
def test_so_is_any_picture_whose_shorter_side_is_resized(
    height: int, width: int, side: int, more: int, floor: bool, interpolation: str
) -> None:
    spec = replace(
        SHORTER, height=side, width=side, resize=side + more, crop_floor=floor, interpolation=interpolation
    )
    (picture,) = photographs(1, height, width)
    # Bicubic weights below nothing enlarge what the file's picture was rounded by.
    assert difference(spec, picture) <= (2.01 if interpolation == "bilinear" else 3.01)


def test_trunks_that_agree_share_a_file_and_others_take_their_proportions_only() -> None:
    small = replace(STRETCH, height=6, width=8)
    assert Geometry.of([STRETCH, small]).mode == "stretch"
    mixed = Geometry.of([replace(STRETCH, height=17, width=17), SHORTER])
    assert (mixed.mode, mixed.size) == ("exact", (17, 17))
    assert mixed.fit(photographs(1, 34, 34)[0], 3).shape == (3, 17, 17)
    with pytest.raises(DataError) as caught:
        mixed.fit(photographs(1, 20, 30)[0], 3)
    assert caught.value.message == (
        "The image has 30 × 20 pixels, and the parents of this classifier prepare images of other "
        "proportions than 17 : 17 in different ways, which one file cannot."
    )


@pytest.mark.parametrize("form", SUFFIXES)
def test_a_file_says_how_its_pictures_are_prepared(form: str, tmp_path: Path) -> None:
    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prepare = Preprocess(SHORTER)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.prepare(images).mean((2, 3))

    geometry = Geometry.of([SHORTER])
    path = tmp_path / f"seen{SUFFIXES[form]}"
    images = as_raw_batch(photographs(2, 20, 30), geometry)
    export_classifier(Seen(), list("rgb"), path, format=form, images=images, geometry=geometry)
    pictures = [photographs(1, *shape)[0] for shape in SHAPES]
    with torch.inference_mode():
        expected = [Seen()(torch.from_numpy(picture).permute(2, 0, 1)[None])[0] for picture in pictures]
    np.testing.assert_allclose(open_exported(path).predict(pictures), torch.stack(expected), atol=0.005)


def test_a_way_of_a_later_version_is_refused() -> None:
    with pytest.raises(ExportError, match="prepared by 'warp' and 'bilinear', which this version of modhub"):
        Geometry.from_dict((8, 8), {"mode": "warp"})
