"""Labelled images from wherever they are."""

from modhub.data.imageset import (
    BatchReader,
    ImageSet,
    alike,
    as_batch,
    evenly_spaced,
    split_indices,
    without_unreadable,
)
from modhub.data.sources import (
    DATA_GRAMMAR,
    SPLITS,
    class_folders,
    folder_of_images,
    open_data,
    open_unlabelled,
    plain_folder,
)
from modhub.images import PIXEL_LIMIT, read_image

__all__ = [
    "DATA_GRAMMAR",
    "PIXEL_LIMIT",
    "SPLITS",
    "BatchReader",
    "ImageSet",
    "alike",
    "as_batch",
    "class_folders",
    "evenly_spaced",
    "folder_of_images",
    "open_data",
    "open_unlabelled",
    "plain_folder",
    "read_image",
    "split_indices",
    "without_unreadable",
]
