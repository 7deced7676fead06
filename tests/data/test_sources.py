"""Labelled images: sources, samples, and every kind of image file."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modhub.data import ImageSet, open_data, open_unlabelled, split_indices, without_unreadable
from modhub.errors import DataError
from modhub.images import images_below, read_image, read_images
from modhub.reporter import Reporter
from modhub.workers import Workers

GRADIENT = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3


class Said(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


def image_folder(root: Path, counts: dict[str, int]) -> Path:
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (5, 4), (number, 0, 0)).save(root / label / f"{number:03}.png")
    return root


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def deep_grey(path: Path, value: int) -> Path:
    path.write_bytes(b"P5 4 6 65535\n" + struct.pack(">H", value) * 24)
    return path


WAYS: list[tuple[str, Callable[[Path], Path], tuple[int, ...], tuple[int, ...]]] = [
    ("grey", lambda d: save(d / "i.png", Image.new("L", (4, 6), 7)), (6, 4, 1), (7,)),
    ("one bit", lambda d: save(d / "i.png", Image.new("1", (4, 6), 1)), (6, 4, 1), (255,)),
    ("grey and alpha", lambda d: save(d / "i.png", Image.new("LA", (4, 6), (9, 0))), (6, 4, 1), (9,)),
    ("rgb", lambda d: save(d / "i.png", Image.new("RGB", (4, 6), (1, 2, 3))), (6, 4, 3), (1, 2, 3)),
    ("rgba", lambda d: save(d / "i.png", Image.new("RGBA", (4, 6), (1, 2, 3, 0))), (6, 4, 3), (1, 2, 3)),
    ("palette", lambda d: save(d / "i.gif", Image.new("P", (4, 6), 0)), (6, 4, 3), (0, 0, 0)),
    (
        "cmyk",
        lambda d: save(d / "i.tif", Image.new("CMYK", (4, 6), (255, 0, 0, 0))),
        (6, 4, 3),
        (0, 255, 255),
    ),
    ("16 bit", lambda d: save(d / "i.png", Image.new("I;16", (4, 6), 0x8001)), (6, 4, 1), (0x80,)),
    ("float", lambda d: save(d / "i.tif", Image.new("F", (4, 6), 0.5)), (6, 4, 1), (128,)),
    ("32 bit", lambda d: save(d / "i.tif", Image.new("I", (4, 6), 0x8001)), (6, 4, 1), (0x80,)),
    ("bytes in 32 bit", lambda d: save(d / "i.tif", Image.new("I", (4, 6), 99)), (6, 4, 1), (99,)),
    ("dark 16 bit", lambda d: deep_grey(d / "i.pgm", 99), (6, 4, 1), (0,)),
    ("one pixel", lambda d: save(d / "i.png", Image.new("RGB", (1, 1), (5, 6, 7))), (1, 1, 3), (5, 6, 7)),
]


@pytest.mark.parametrize(("write", "shape", "first"), [w[1:] for w in WAYS], ids=[w[0] for w in WAYS])
def test_every_mode_becomes_grey_or_rgb(
    tmp_path: Path, write: Callable[[Path], Path], shape: tuple[int, ...], first: tuple[int, ...]
) -> None:
    pixels = read_image(write(tmp_path))
    assert (pixels.dtype, pixels.shape, tuple(pixels[0, 0])) == (np.uint8, shape, first)


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert tuple(read_image(tmp_path / "a.gif")[0, 0]) == (255, 0, 0)


def test_exif_turns_the_image_upright(tmp_path: Path) -> None:
    image = Image.fromarray(GRADIENT)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(GRADIENT, -1))


def test_what_pillow_warns_of_is_no_talk_of_ours(tmp_path: Path) -> None:
    palette = Image.fromarray(GRADIENT).quantize(16)
    palette.save(tmp_path / "clear.png", transparency=bytes(range(16)))
    broken = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03\0\0\0\x01\0\x06\0\0junk"
    Image.fromarray(GRADIENT).save(tmp_path / "exif.jpg", exif=broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("clear.png", "exif.jpg"):
            assert read_image(tmp_path / name).size == GRADIENT.size


def test_a_damaged_avif_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "i.avif"
    Image.fromarray(GRADIENT).save(path)
    path.write_bytes(path.read_bytes().replace(b"iloc", b"ilox"))
    with pytest.raises(DataError, match=r"i\.avif"):
        read_image(path)


def test_an_image_comes_through_a_pipe(tmp_path: Path) -> None:
    content = save(tmp_path / "i.png", Image.new("RGB", (4, 6), (1, 2, 3))).read_bytes()
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[content], daemon=True).start()
    assert read_image(tmp_path / "pipe").shape == (6, 4, 3)


def claiming(width: int, height: int) -> bytes:
    """The head of a PGM image, without its pixels."""
    return f"P5 {width} {height} 255\n".encode()


LIMIT = "at most 100,000,000 are read. Scale it down first."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "'{}' is not a readable image. Remove it, or save it as PNG or JPEG."),
        (b"", "'{}' is not a readable image. Remove it, or save it as PNG or JPEG."),
        (
            claiming(20_000, 20_000),
            f"The image '{{}}' has more than 100,000,000 pixels; {LIMIT}",
        ),
        (
            claiming(12_000, 10_000),
            f"The image '{{}}' has 12,000 × 10,000 pixels; {LIMIT}",
        ),
    ],
    ids=["text", "empty", "bomb", "large"],
)
def test_an_unusable_file_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value) == message.format(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tif"])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=f"cut.{suffix}"):
        read_image(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "The image '{}' does not exist. Check the path."),
        (lambda p: p.mkdir(), "'{}' is a folder, not an image. Name an image file."),
        (
            lambda p: p.symlink_to("gone.png"),
            "The image '{}' is a link to 'gone.png', which does not exist. Remove the link, or bring back "
            "what it leads to.",
        ),
        (
            lambda p: p.symlink_to(p.name),
            "The image '{}' is a link that leads in a circle. Remove the link.",
        ),
    ],
    ids=["missing", "folder", "broken link", "circle"],
)
def test_no_file_at_all(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "x.png"
    make(path)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value) == message.format(path)


def test_what_is_taken_for_an_image_below_a_folder(tmp_path: Path) -> None:
    taken = ["a.JPG", "b/c.png", "phone.heic", "web.jfif"]
    passed = [
        "__MACOSX/b/c.png",
        "b/@eaDir/c.png/SYNOPHOTO_THUMB_M.png",
        "lost+found/1.jpg",
        ".hidden.png",
        ".ipynb_checkpoints/a-checkpoint.png",
        "b/._c.png",
        "b/notes.txt",
        "b/Thumbs.db",
    ]
    for name in taken + passed:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.png").symlink_to("gone")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    found = [str(path.relative_to(tmp_path)) for path in images_below(tmp_path)]
    assert found == sorted([*taken, "link.png"])


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_many_files_are_read_on_threads_in_order(tmp_path: Path) -> None:
    images = open_data(f"imagefolder:{image_folder(tmp_path, {'cat': 40, 'dog': 30})}")
    order = np.random.default_rng(0).permutation(70)
    started: list[str] = []
    threading.setprofile(lambda *_: started.append(threading.current_thread().name))
    try:
        pixels = [image[0, 0, 0] for image in images.subset(order).images(range(70))]
    finally:
        threading.setprofile(None)
    assert pixels == [(*range(40), *range(30))[index] for index in order]
    assert any(name.startswith("modhub-read") for name in started)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("modhub-read")]
    batches = [(batch[:, 0, 0, 0].tolist(), indices.tolist()) for batch, indices in images.batches(40)]
    assert batches == [([*range(40)], [*range(40)]), ([*range(30)], [*range(40, 70)])]


@pytest.mark.usefixtures("three_threads")
@pytest.mark.filterwarnings("default")
def test_the_first_unreadable_file_is_named_and_no_thread_or_filter_stays(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"cat": 40})
    for number in (37, 11, 23):
        (root / "cat" / f"{number:03}.png").write_bytes(b"broken")
    before = [*warnings.filters]
    batches = open_data(f"imagefolder:{root}").batches(20)
    with pytest.raises(DataError) as caught:
        next(batches)
    assert str(caught.value) == (
        f"'{root}/cat/011.png' is not a readable image. Remove it, or save it as PNG or JPEG."
    )
    assert [*warnings.filters] == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("modhub-read")]


@pytest.mark.usefixtures("three_threads")
def test_a_user_defined_read_is_called_in_order_in_the_callers_thread() -> None:
    calls: list[tuple[int, str]] = []

    def read(index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        calls.append((index, threading.current_thread().name))
        return np.zeros((2, 2, 1), np.uint8)

    list(ImageSet("n", "all", ["a"], np.zeros(50), read).subset(range(49, -1, -1)).batches(20))
    assert calls == [(index, threading.current_thread().name) for index in range(49, -1, -1)]


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_read_images_gives_what_read_image_gives(tmp_path: Path, threads: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 30, 40, 3), dtype=np.uint8)
    paths = [save(tmp_path / f"{number}.jpg", Image.fromarray(each)) for number, each in enumerate(noise)]
    for pixels, path in zip(read_images(paths, threads), paths, strict=True):
        np.testing.assert_array_equal(pixels, read_image(path))
    assert read_images([], threads) == []


# -- sources ----------------------------------------------------------------------------------------------


def test_digits_splits_cover_the_set_without_overlap() -> None:
    parts = [open_data("digits", split) for split in ("train", "calibration", "test")]
    assert [len(part) for part in parts] == [1117, 340, 340]
    assert [set(part.counts().tolist()) == {34} for part in parts] == [False, True, True]
    from sklearn.datasets import load_digits

    seen = sorted(image.tobytes() for part in parts for image in part.images(range(len(part))))
    every = sorted(np.rint(i * 255 / 16).astype(np.uint8).tobytes() for i in load_digits().images)
    assert seen == every
    assert parts[0].images([0])[0].shape == (8, 8, 1)


def test_a_folder_of_classes(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "pets", {"dog": 2, "cat": 3})
    (root / "cat" / "notes.txt").write_text("not an image, and not called one")
    for name in (".hidden", "__MACOSX", "lost+found", "@eaDir"):
        (root / name).mkdir()
    images = open_data(f"imagefolder:{root}")
    assert (images.name, images.split, images.labels) == ("pets", "all", ("cat", "dog"))
    assert images.targets.tolist() == [0, 0, 0, 1, 1]
    assert [image[0, 0, 0] for image in images.images([2, 3])] == [2, 0]


def test_images_are_not_read_before_they_are_looked_at(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"cat": 1, "dog": 1})
    (root / "cat" / "000.png").write_bytes(b"broken")
    images = open_data(f"imagefolder:{root}")
    assert len(images.images([1])) == 1
    with pytest.raises(DataError, match="is not a readable image"):
        images.images([0])


@pytest.mark.parametrize(("split", "count"), [("train", 4), (None, 4), ("test", 2)])
def test_split_folders(tmp_path: Path, split: str | None, count: int) -> None:
    image_folder(tmp_path / "pets" / "train", {"cat": 2, "dog": 2})
    image_folder(tmp_path / "pets" / "val", {"cat": 1, "dog": 1})
    images = open_data(f"imagefolder:{tmp_path / 'pets'}", split)
    assert (images.name, len(images)) == ("pets", count)


def test_split_folders_may_be_capitalised_and_stand_beside_folders_without_images(tmp_path: Path) -> None:
    image_folder(tmp_path / "pets" / "Train", {"cat": 2, "dog": 2})
    image_folder(tmp_path / "pets" / "Test", {"cat": 1, "dog": 1})
    (tmp_path / "pets" / "__MACOSX" / "Train").mkdir(parents=True)
    images = open_data(f"imagefolder:{tmp_path / 'pets'}", "test")
    assert (images.name, images.split, images.labels) == ("pets", "test", ("cat", "dog"))
    assert len(images) == 2


def test_a_split_folder_beside_other_images_is_not_mixed_with_them(tmp_path: Path) -> None:
    for split in ("train", "test", "extra"):
        image_folder(tmp_path / split, {"cat": 1, "dog": 1})
    with pytest.raises(DataError) as caught:
        open_data(f"imagefolder:{tmp_path}")
    assert str(caught.value) == (
        f"The folders 'test', 'train' in '{tmp_path}' beside 'extra' may be splits, or classes. "
        f"For a split, name its folder: imagefolder:{tmp_path}/test. For classes: classes:{tmp_path}"
    )
    with pytest.raises(DataError, match="may be splits, or classes"):
        open_unlabelled(str(tmp_path))
    assert open_data(f"classes:{tmp_path}").labels == ("extra", "test", "train")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    images = open_data(f"imagefolder:{image_folder(tmp_path, {'bus': 1, 'train': 2})}")
    assert (images.labels, images.targets.tolist()) == (("bus", "train"), [0, 1, 1])


def test_unlabelled_images_need_no_class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = image_folder(tmp_path / "holiday", {"monday": 1, "tuesday": 2})
    flat = root / "tuesday"
    assert len(open_unlabelled(str(root))) == 3
    assert [len(open_unlabelled(text)) for text in (str(flat), f"imagefolder:{flat}")] == [2, 2]
    assert open_unlabelled(f"imagefolder:{root}").labels == ("monday", "tuesday")
    monkeypatch.chdir(root)
    (root / "digits").mkdir()
    assert open_unlabelled("digits").name == "digits"
    (root / "none").mkdir()
    for text, sentence in {
        "none": "The folder 'none' holds no image.",
        "gone": "'gone' is not a data set.",
    }.items():
        with pytest.raises(DataError, match=sentence):
            open_unlabelled(text)


SPLITS = [
    (("training_set", "test_set"), "training_set", "test_set"),
    (("Training", "Testing"), "Training", "Testing"),
    (("train", "dev"), "train", "dev"),
    (("train", "valid", "test"), "train", "test"),
    (("train", "eval", "val"), "train", "eval"),
    (("train", "test2"), "train", "test2"),
    (("train2017", "val2017"), "train2017", "val2017"),
    (("TrainImages", "TestImages"), "TrainImages", "TestImages"),
    (("trainset", "testset"), "trainset", "testset"),
    (("seg_train", "seg_test"), "seg_train", "seg_test"),
    (("train", "validation", "holdout"), "train", "validation"),
    (("trainval", "test"), "trainval", "test"),
]


@pytest.mark.parametrize(("names", "train", "test"), SPLITS, ids=[" ".join(row[0]) for row in SPLITS])
def test_split_names_beside_each_other_are_splits(
    tmp_path: Path, names: tuple[str, ...], train: str, test: str
) -> None:
    for name in names:
        image_folder(tmp_path / name, {"cat": 1 if name == train else 2, "dog": 1, f"of {name}": 1})
    for split, folder in (("train", train), ("test", test)):
        images = open_data(f"imagefolder:{tmp_path}", split)
        assert images.labels == ("cat", "dog", f"of {folder}")


@pytest.mark.parametrize(
    "names",
    [
        ("valid", "invalid"),
        ("train", "bus"),
        ("crash_test", "bullet_train"),
        ("development", "deploy"),
        ("seg_train", "cat"),
        ("test", "control"),
        ("testing ground", "market"),
    ],
)
def test_names_that_look_like_splits_may_be_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    image_folder(tmp_path, dict.fromkeys(names, 1))
    assert open_data(f"imagefolder:{tmp_path}").labels == tuple(sorted(names))


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ("train/cat", "train/dog", "cat", "dog"),
            "The folders 'train' in '{}' beside 'cat' may be splits, or classes. For a split, name its "
            "folder: imagefolder:{}/train. For classes: classes:{}",
        ),
        (
            ("test1", "test2"),
            "The folders 'test1', 'test2' in '{}' may be splits, or classes. For a split, name its folder: "
            "imagefolder:{}/test1. For classes: classes:{}",
        ),
        (
            ("train/cat", "train_set/cat", "test/cat"),
            "The folders 'train', 'train_set' in '{}' may both be the split 'train'. Name one of them: "
            "imagefolder:{}/train or imagefolder:{}/train_set",
        ),
        (
            ("train", "test"),
            "The data folder '{}/train' has no class folders. Put the images of each class into a folder "
            "named as the class. If 'train' is a class: classes:{}",
        ),
        (
            ("fold1/Cat", "fold1/dog", "fold2/cat", "fold2/dog"),
            "The folders 'fold1', 'fold2' in '{}' all hold the folders 'Cat', 'dog': either may be the "
            "classes. For one of them alone, name it: imagefolder:{}/fold1. For classes: classes:{}",
        ),
    ],
)
def test_a_folder_that_could_be_either_is_a_question(
    tmp_path: Path, folders: tuple[str, ...], message: str
) -> None:
    image_folder(tmp_path, dict.fromkeys(folders, 1))
    with pytest.raises(DataError) as caught:
        open_data(str(tmp_path))
    assert str(caught.value) == message.replace("{}", str(tmp_path))


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    root, elsewhere = image_folder(tmp_path / "root", {"cat": 2, "dog": 2}), tmp_path / "elsewhere"
    image_folder(elsewhere, {"a": 3, "a/b": 1, ".hidden": 1})
    (root / "cat" / "more").symlink_to(elsewhere)
    (root / "cat" / "again").symlink_to(elsewhere / "a")
    (root / "dog" / "hidden").symlink_to(elsewhere / ".hidden")
    (root / "fox").symlink_to(elsewhere / "a")
    images = open_data(str(root))
    assert images.labels == ("cat", "dog", "fox")
    # Through 'again', of the same images as 'more/a', which then is not read again.
    assert images.counts().tolist() == [2 + 4, 2 + 1, 4]


@pytest.mark.parametrize(
    ("link", "target", "back_to"),
    [
        ("cat/more", "cat", "cat"),
        ("cat/deep/more", "cat", "cat"),
        ("cat/more", ".", "."),
        ("fox", ".", "."),
        ("cat/more", "../elsewhere", "cat"),
    ],
)
def test_a_link_in_a_circle_is_named(tmp_path: Path, link: str, target: str, back_to: str) -> None:
    root = image_folder(tmp_path / "root", {"cat": 1, "dog": 1, "cat/deep": 1})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "back").symlink_to(root / "cat")
    (root / link).symlink_to(root / target)
    named = root / link / "back" if "elsewhere" in target else root / link
    with pytest.raises(DataError) as caught:
        open_data(str(root))
    assert str(caught.value) == (
        f"The link '{named}' leads back to '{(root / back_to).resolve()}', which it is in itself. "
        "Remove the link, or name a folder without it."
    )


def test_a_folder_is_a_data_set_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pets", "a:b", "cifar10"):
        image_folder(tmp_path / name, {"cat": 1, "dog": 2})
        assert open_data(name).counts().tolist() == [1, 2]


def broken(root: Path, *names: str) -> str:
    for name in names:
        (root / name).write_bytes(b"broken")
    return str(root)


def test_unreadable_images_are_passed_over_and_counted(tmp_path: Path) -> None:
    said = Said()
    images = open_data(broken(image_folder(tmp_path, {"cat": 3, "dog": 2}), "cat/001.png"))
    sizes = without_unreadable(lambda part: len(part.images(range(len(part)))), images, said)
    assert sizes == 4
    assert said.warnings == [
        f"'{tmp_path}/cat/001.png' is not a readable image.",
        f"Unreadable images of '{tmp_path.name}' are passed over: 1 of 5.",
    ]


@pytest.mark.parametrize(
    ("counts", "names", "message"),
    [
        (
            {"cat": 100, "dog": 99},
            ("cat/001.png", "cat/002.png"),
            "2 of 199 images of '{}' cannot be read, more than 1%. The first: '{}/cat/001.png' is not a "
            "readable image. Remove them, or fetch them again.",
        ),
        (
            {"cat": 199, "dog": 1},
            ("dog/000.png",),
            "No image of 'dog' can be read. The first: '{}/dog/000.png' is not a readable image. Remove it, "
            "or fetch it again.",
        ),
        ({"cat": 100, "dog": 100}, ("cat/001.png", "dog/002.png"), None),
    ],
)
def test_too_many_unreadable_images_are_an_error(
    tmp_path: Path, counts: dict[str, int], names: tuple[str, ...], message: str | None
) -> None:
    images = open_data(broken(image_folder(tmp_path / "pets", counts), *names))
    if message is None:
        assert len(images.readable()) == len(images) - len(names)
        return
    with pytest.raises(DataError) as caught:
        images.readable()
    wanted = message.replace("'{}'", "'pets'").replace("{}", str(tmp_path / "pets"))
    assert str(caught.value) == wanted


def test_a_pointer_of_git_lfs_is_no_damaged_image(tmp_path: Path) -> None:
    path = tmp_path / "i.png"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"'{path}' is a pointer of Git LFS, not the image itself. Fetch the images with: git lfs pull"
    )


GRAMMAR = (
    "Write digits, a folder of class folders, or one of cifar10, cifar100, mnist, fashion-mnist, kmnist and "
    "svhn with :ROOT."
)


@pytest.mark.parametrize(
    ("text", "split", "message"),
    [
        ("pictures", None, f"'pictures' is not a data set. {GRAMMAR}"),
        ("imagefolder:", None, f"'imagefolder:' is not a data set. {GRAMMAR}"),
        ("digits:8", None, f"'digits:8' is not a data set. {GRAMMAR}"),
        ("digits", "dev", "There is no split 'dev'. Use train or test."),
        (
            "imagefolder:{}/no",
            None,
            "The data folder '{}/no' does not exist. Check the path after the colon.",
        ),
        (
            "mnist:{}/file",
            None,
            "The data folder '{}/file' is a file, not a folder. Check the path after the colon.",
        ),
        ("mnist:{}", "calibration", "'mnist:{}' has no calibration split. Use train or test."),
        (
            "imagefolder:{}/empty",
            None,
            "The data folder '{}/empty' has no images. Put the images of each class into a folder "
            "named as the class.",
        ),
        (
            "imagefolder:{}/one/cat",
            None,
            "The data folder '{}/one/cat' has no class folders. Put the images of each class into a folder "
            "named as the class.",
        ),
        (
            "imagefolder:{}/splits",
            "test",
            "The data folder '{}/splits' has no 'test' split. It has: train.",
        ),
        (
            "mnist:{}",
            None,
            "The folder '{}' does not hold mnist as torchvision lays it out (Dataset not found). "
            "Expected is ROOT/MNIST/raw.",
        ),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, text: str, split: str | None, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    image_folder(tmp_path / "one", {"cat": 1})
    image_folder(tmp_path / "splits" / "train", {"cat": 1, "dog": 1})
    with pytest.raises(DataError) as caught:
        open_data(text.replace("{}", str(tmp_path)), split)
    assert str(caught.value) == message.replace("{}", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "folder", "labels"),
    [("mnist", "MNIST", ("0", "1")), ("fashion-mnist", "FashionMNIST", ("T-shirt/top", "Trouser"))],
)
def test_torchvision_layout(tmp_path: Path, name: str, folder: str, labels: tuple[str, str]) -> None:
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    pixels = np.arange(3 * 28 * 28, dtype=np.uint64).astype(np.uint8).reshape(3, 28, 28)
    for stem in ("train", "t10k"):
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, 3, 28, 28) + pixels.tobytes()
        )
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 3) + bytes([1, 0, 9]))
    images = open_data(f"{name}:{tmp_path}", "test")
    assert (images.name, images.split, images.labels[:2]) == (name, "test", labels)
    assert images.targets.tolist() == [1, 0, 9]
    np.testing.assert_array_equal(images.images([2])[0], pixels[2][:, :, None])


IMAGES = struct.pack(">IIII", 0x803, 3, 28, 28) + bytes(3 * 28 * 28)
LABELS = struct.pack(">II", 0x801, 3) + bytes([1, 0, 9])


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (b"hello, this is text", LABELS, "damaged files"),
        (IMAGES[:100], LABELS, "shape '[3, 28, 28]' is invalid for input of size 84"),
        (struct.pack(">IIII", 0xC03, 3, 28, 28) + bytes(4 * 3 * 28 * 28), LABELS, "x should be of dtype"),
        (IMAGES, struct.pack(">II", 0x801, 2) + bytes([1, 0]), "3 images, but 2 labels"),
        (IMAGES, LABELS[:-1] + bytes([200]), "label 200, but 10 classes"),
    ],
    ids=["text", "truncated", "integers", "fewer labels", "unknown label"],
)
def test_damaged_torchvision_files(tmp_path: Path, images: bytes, labels: bytes, reason: str) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem in ("train", "t10k"):
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(DataError) as caught:
        open_data(f"mnist:{tmp_path}")
    said = str(caught.value)
    assert said.startswith(
        f"The folder '{tmp_path}' does not hold mnist as torchvision lays it out ({reason}"
    )
    assert said.endswith("). Expected is ROOT/MNIST/raw.")


# -- image sets -------------------------------------------------------------------------------------------


def numbered(targets: list[int], labels: tuple[str, ...] = ("a", "b", "c")) -> ImageSet:
    """Image i has the value i in every pixel, and i % 2 + 1 rows."""
    return ImageSet(
        "n", "all", labels, np.array(targets), lambda i: np.full((i % 2 + 1, 2, 1), i, dtype=np.uint8)
    )


def test_only_counts_targets_as_asked() -> None:
    part = numbered([0, 1, 2, 1]).only(["c", "b"])
    assert part.labels == ("c", "b")
    assert part.targets.tolist() == [1, 0, 1]
    assert [int(image.max()) for image in part.images(range(3))] == [1, 2, 3]
    with pytest.raises(DataError) as caught:
        numbered([0]).only(["d"])
    assert str(caught.value) == "The data set 'n' has no class 'd'. It has: a, b, c."


def test_batches_hold_every_image_once_and_one_shape_each() -> None:
    images = numbered([0, 1, 2, 0, 1, 2, 0])
    seen = []
    for pixels, indices in images.batches(4):
        assert pixels.shape == (len(indices), 1, int(indices[0]) % 2 + 1, 2)
        assert pixels[:, 0, 0, 0].tolist() == indices.tolist()
        seen += indices.tolist()
    assert sorted(seen) == list(range(7))


@given(
    targets=st.lists(st.integers(0, 4), max_size=60),
    wanted=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    seed=st.integers(0, 3),
)
def test_samples_are_disjoint_and_as_large_as_they_can_be(
    targets: list[int], wanted: list[int], seed: int
) -> None:
    classes = np.array(targets, dtype=np.int64)
    parts = split_indices(classes, wanted, seed)
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    for label in np.unique(classes):
        own = int((classes == label).sum())
        counts = [int((classes[part] == label).sum()) for part in parts]
        if sum(wanted) <= own:
            assert counts == wanted
        else:
            assert sum(counts) <= own
            assert all(count <= most for count, most in zip(counts, wanted, strict=True))
            if own >= len(wanted):
                assert all(counts[k] for k in range(len(wanted)) if wanted[k])


def test_a_sample_depends_on_the_seed_only() -> None:
    targets = np.repeat(np.arange(3), 50)
    same = [split_indices(targets, (10,), seed)[0].tolist() for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


def test_reading_an_image_needs_no_torch() -> None:
    code = "import sys, modhub.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("data", ["digits", "imagefolder:{}", "mnist:{}"])
def test_a_set_goes_to_a_worker(tmp_path: Path, data: str) -> None:
    if data.startswith("mnist"):
        (tmp_path / "MNIST" / "raw").mkdir(parents=True)
        for name, content in (("train-images-idx3", IMAGES), ("train-labels-idx1", LABELS)):
            (tmp_path / "MNIST" / "raw" / f"{name}-ubyte").write_bytes(content)
        for name, content in (("t10k-images-idx3", IMAGES), ("t10k-labels-idx1", LABELS)):
            (tmp_path / "MNIST" / "raw" / f"{name}-ubyte").write_bytes(content)
    else:
        image_folder(tmp_path, {"cat": 2, "dog": 1})
    images = open_data(data.format(tmp_path)).subset([2, 1])
    again = pickle.loads(pickle.dumps(images))
    assert (again.labels, again.targets.tolist()) == (images.labels, images.targets.tolist())
    np.testing.assert_array_equal(again.images([1])[0], images.images([1])[0])


class OneOfTwo(Workers):
    """A process beside another, which looks at its part when it is asked for it."""

    def gather(self, item: Any) -> list[Any]:
        if self.other is None:
            self.parts.append(item)
            return [item]
        self.images.readable(workers=self.other)
        return [item, *self.other.parts]

    def __init__(self, rank: int, images: ImageSet, other: OneOfTwo | None = None) -> None:
        super().__init__(rank, 2)
        for name, value in (("images", images), ("other", other), ("parts", [])):
            object.__setattr__(self, name, value)


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_share_the_images_pass_over_the_same(rank: int) -> None:
    damaged = {70, 130, 199}

    def read(index: int) -> np.ndarray:
        if index in damaged:
            raise DataError(f"Image {index} is not readable.")
        return np.zeros((2, 2, 1), np.uint8)

    images = ImageSet("pets", "all", ("cat", "dog"), np.arange(400) % 2, read)
    said = Said()
    worker = OneOfTwo(rank, images, OneOfTwo(1 - rank, images))
    assert set(range(400)) - set(images.readable(said, worker).tolist()) == damaged
    assert said.warnings == [
        *(f"Image {index} is not readable." for index in sorted(damaged)),
        "Unreadable images of 'pets' are passed over: 3 of 400.",
    ]
