"""Labelled images from wherever they are."""

from modhub.data.imageset import ImageSet, alike, as_batch, evenly_spaced, split_indices
from modhub.data.sources import DATA_GRAMMAR, SPLITS, open_data
from modhub.images import PIXEL_LIMIT, read_image

__all__ = [
    "DATA_GRAMMAR",
    "PIXEL_LIMIT",
    "SPLITS",
    "ImageSet",
    "alike",
    "as_batch",
    "evenly_spaced",
    "open_data",
    "read_image",
    "split_indices",
]
