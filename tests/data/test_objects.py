"""What Python programs have for images and labels is taken where it is plain, else told in a sentence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

import modhub
from modhub.data import open_data
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import DecomposeOptions
from modhub.decomposition.parent import Parent
from modhub.errors import DataError, ParentError
from modhub.importing import import_module
from modhub.manifest import InputSpec
from modhub.nets import Head, Runner

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
TARGETS = [0, 1, 0, 1, 1, 0]


class Pairs(Dataset[Any]):
    classes = ("cat", "dog")

    def __init__(self, images: Any) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(TARGETS)

    def __getitem__(self, index: int) -> Any:
        return self.images[index], TARGETS[index]


class Items(Dataset[Any]):
    """Images with items, and with whatever attributes data sets have."""

    def __init__(self, items: Any, **attributes: Any) -> None:
        self.items = items
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def items(labels: Any = TARGETS, **attributes: Any) -> Items:
    return Items(list(zip(PIXELS, labels, strict=True)), **attributes)


CLASSES = {"classes": ["cat", "dog"]}
TENSORS = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
FORMS: dict[str, Any] = {
    "arrays": (PIXELS, np.array(TARGETS), {"dog": 1, "cat": 0}),
    "tensors": (torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.tensor(TARGETS), ["cat", "dog"]),
    "fractions": (PIXELS / 255, TARGETS, ["cat", "dog"]),
    "PIL images": Pairs([Image.fromarray(image) for image in PIXELS]),
    "transformed": Pairs(TENSORS / 255),
    "a column of labels": (PIXELS, np.array(TARGETS)[:, None], ["cat", "dog"]),
    "names by number": (PIXELS, TARGETS, {0: "cat", 1: "dog"}),
    "tensors with gradients": ((TENSORS / 255).requires_grad_(), TARGETS, ["cat", "dog"]),
    "lists": ((PIXELS / 255).tolist(), TARGETS, ["cat", "dog"]),
    "labels in arrays": items([np.array([target]) for target in TARGETS], **CLASSES),
    "dictionaries": Items(
        [{"image": image, "label": target} for image, target in zip(PIXELS, TARGETS, strict=True)],
        features={"label": SimpleNamespace(names=["cat", "dog"])},
    ),
    "targets that items contradict": items(targets=[1 - target for target in TARGETS], **CLASSES),
    "named targets": items(targets=["cat"] * 6, **CLASSES),
    "a subset": Subset(items([0, *TARGETS[1:]], targets=TARGETS, **CLASSES), range(6)),
    "a union": ConcatDataset([Subset(items(**CLASSES), [0, 1]), Subset(items(**CLASSES), [2, 3, 4, 5])]),
    "several words for a class": items(classes=["cat", "dog"], class_to_idx={"cat": 0, "moggy": 0, "dog": 1}),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    images = open_data(FORMS[form])
    assert images.labels == ("cat", "dog")
    assert images.targets.tolist() == TARGETS
    assert np.array_equal(np.stack(images.images(range(6))), PIXELS)


def test_the_layout_and_type_of_pixels() -> None:
    black_or_white = PIXELS > 100
    assert np.array_equal(open_data((black_or_white, TARGETS)).images([0])[0], black_or_white[0] * 255)
    # Three rows or columns may be channels: a tensor has them first, an array last.
    narrow = torch.randint(256, (2, 3, 7, 3), dtype=torch.uint8)
    for data in ((narrow, [0, 1]), TensorDataset(narrow, torch.tensor([0, 1]))):
        assert np.array_equal(open_data(data).images([0])[0], narrow[0].permute(1, 2, 0))
    assert np.array_equal(open_data((narrow.numpy(), [0, 1])).images([0])[0], narrow[0])
    sizes = [Image.new("RGB", (4, 5)), Image.new("RGB", (6, 5))]
    assert [image.shape for image in open_data((sizes, [0, 1])).images([0, 1])] == [(5, 4, 3), (5, 6, 3)]
    brain_floats = (TENSORS / 255).bfloat16()
    assert np.array_equal(
        open_data((brain_floats, TARGETS)).images([0])[0][:, :, 0] > 100, PIXELS[0, :, :, 0] > 100
    )


def test_a_path_and_a_data_set_without_names(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        Image.fromarray(PIXELS[0]).save(tmp_path / label / "0.png")
    assert open_data(tmp_path).labels == ("cat", "dog")
    assert open_data(TensorDataset(torch.from_numpy(PIXELS), torch.tensor(TARGETS))).labels == ("0", "1")


WRONG: dict[str, tuple[Any, str]] = {
    "a dictionary": ({"a": 1}, "A dict is no data set."),
    "nothing": (None, "A NoneType is no data set."),
    "fewer labels": ((PIXELS, [0, 1]), "There are 6 images, but 2 labels."),
    "names as labels": (
        (PIXELS, ["a"] * 6),
        "The labels of the images are not whole numbers from 0 on, one per image.",
    ),
    "no pairs": (PIXELS, "The items of the ndarray are no pairs of an image and a whole number."),
    "too few names": ((PIXELS, TARGETS, ["cat"]), "There are 1 names, but label 1."),
    "another range": (
        (PIXELS.astype(np.float32), TARGETS),
        "An image holds floats from 4 to 248; pixels are uint8 in 0…255 or floats in [0, 1].",
    ),
    "labels that are no numbers": (
        items([0.7, 0.2, 0.7, 0.1, 0.2, 0.3]),
        "The items of the Items are no pairs of an image and a whole number.",
    ),
    "rows of labels": (
        items([*np.eye(2, dtype=int)[TARGETS]]),
        "The items of the Items are no pairs of an image and a whole number.",
    ),
    "parts of other classes": (
        ConcatDataset([items(**CLASSES), items(classes=["dog", "fox"])]),
        "The parts of the ConcatDataset do not have the same classes in the same order.",
    ),
    "parts without names": (
        ConcatDataset([items(**CLASSES), items()]),
        "The parts of the ConcatDataset do not have the same classes in the same order.",
    ),
    "names that begin at 1": (
        items(class_to_idx={"cat": 1, "dog": 2}),
        "The numbers of the classes are not those from 0 on, each once: 'cat': 1, 'dog': 2.",
    ),
    "one name twice": (items(classes=["cat", "cat"]), "Two classes have the name 'cat'."),
    "complex numbers": (
        (PIXELS * 1j, TARGETS),
        "An image is of type complex128; pixels are uint8 in 0…255 or floats in [0, 1].",
    ),
    "another shape": (
        (PIXELS[:, :, :, :2], TARGETS),
        "An image has the shape (5, 4, 2); it should be (height, width, 1 or 3) or (1 or 3, height, width).",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_plain(case: str) -> None:
    data, message = WRONG[case]
    with pytest.raises(DataError) as caught:
        open_data(data).images(range(6))
    assert caught.value.message == message


SPEC = InputSpec(channels=3, height=4, width=4, mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.full((1, 3, 4, 4), 255.0),
            "The images are floats from 255 to 255; pixels are uint8 in 0…255 or",
        ),
        (torch.full((1, 3, 4, 4), -2.0), "The images are floats from -2 to -2; pixels are uint8 in 0…255 or"),
        (
            torch.zeros(1, 5, 4, 3),
            "The images have the shape (1, 5, 4, 3), with the channels last; a batch is",
        ),
        (torch.full((1, 3, 4, 4), torch.nan), "The images are floats from nan to nan; pixels are"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), "The images are int64; pixels are"),
    ],
)
def test_pixels_that_are_none(images: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError) as caught:
        Preprocess(SPEC)(images)
    assert caught.value.message.startswith(message)


def test_options_are_taken_for_what_they_mean() -> None:
    options = DecomposeOptions(
        labels={"dog": 1, "cat": 0},  # type: ignore[arg-type]
        only=1,  # type: ignore[arg-type]
        input_size=32,  # type: ignore[arg-type]
        mean=np.array([0.5, 0.5, 0.5]),  # type: ignore[arg-type]
        std=0.5,  # type: ignore[arg-type]
    )
    assert (options.labels, options.only, options.input_size) == (("cat", "dog"), ("1",), (32, 32))
    assert (options.mean, options.std) == ((0.5,) * 3, (0.5,))
    assert DecomposeOptions(labels=[0, 1], only="cat").labels == ("0", "1")  # type: ignore[list-item]


def test_a_parent_that_is_none() -> None:
    with pytest.raises(ParentError) as caught:
        modhub.decompose({"fc.weight": torch.ones(2, 2)}, "digits")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "A dict is no parent. Give a torch.nn.Module, or a string such as torchvision:resnet18 or "
        "FILE.py:CALLABLE."
    )


def test_one_logit_is_two_classes() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 1))
    network = import_module(net, (3, 8, 8))
    spec = InputSpec(channels=3, height=8, width=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    parent = Parent.of(network, name="net", architecture="Net", labels=("cats", "dogs"), input=spec)
    assert isinstance(parent.head, Head)
    images = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        two = Runner(parent.head.join(parent.trunk))(images)
        torch.testing.assert_close(two.softmax(1)[:, 1], net(images).sigmoid()[:, 0])
    with pytest.raises(ParentError) as caught:
        Parent.of(network, name="net", architecture="Net", labels=("dogs",), input=spec)
    assert str(caught.value) == (
        "'net' gives one logit, which tells two classes apart, but 1 labels were given. Name the class of a "
        "logit below 0, then that of one above: --labels NEGATIVE,POSITIVE"
    )
