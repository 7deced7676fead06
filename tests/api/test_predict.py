"""Predicting over a folder as a user has it: right where a file can be read, one sentence where it cannot."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import modhub
from modhub.api.export import export
from modhub.api.predict import Picture, predict
from modhub.composition import compose, parts_of
from modhub.errors import DataError
from modhub.runtimes.onnx import OnnxClassifier
from tests.support.console import Console, Result
from tests.support.digit_parents import digit_modules, digits
from tests.support.pico import pico_set

SIDE = 8
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it fails
from modhub_cli.main import main
sys.argv = ["modhub", *sys.argv[1:]]
main()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build, the same as ONNX, and a folder of good and bad files."""
    home = tmp_path_factory.mktemp("predict")
    compose(parts_of(pico_set())).save(home / "build")
    export(home / "build", home / "build.onnx")
    (home / "pictures" / "below").mkdir(parents=True)
    for name, write in {**GOOD, **BAD}.items():
        write(home / "pictures" / name)
    for name in ("below/folder.png", ".thumbnails"):
        (home / "pictures" / name).mkdir()
    (home / "pictures" / ".hidden.png").write_bytes(b"")
    (home / "pictures" / "notes.txt").write_text("no image")
    return home


def picture(mode: str = "RGB") -> Image.Image:
    dice = np.random.default_rng(0)
    return Image.fromarray(dice.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).convert(mode)


def transparent(path: Path) -> None:
    image = picture("RGBA")
    image.putalpha(7)
    image.save(path)


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.asarray(picture("L")).astype(np.uint16) * 257).save(path)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().rotate(90).save(path, exif=exif)


def truncated(path: Path) -> None:
    picture().save(path)
    path.write_bytes(path.read_bytes()[:120])


Write = Callable[[Path], object]
GOOD: dict[str, Write] = {
    "animated.gif": lambda path: picture().save(
        path, save_all=True, append_images=[picture().rotate(180), picture().rotate(90)]
    ),
    "below/plain.PNG": lambda path: picture().save(path),
    "cmyk.jpg": lambda path: picture("CMYK").save(path, quality=100, subsampling=0),
    "grey.png": lambda path: picture("L").save(path),
    "one pixel.png": lambda path: picture().resize((1, 1)).save(path),
    "rgba.png": transparent,
    "sixteen bits.png": sixteen_bits,
    "turned.png": turned,
}
BAD: dict[str, Write] = {
    "huge.pgm": lambda path: path.write_bytes(b"P5 20000 20000 255\n"),
    "no image.jpg": lambda path: path.write_text("hello"),
    "truncated.png": truncated,
}
SAYS = {
    "huge.pgm": "The image '{}' has more than 100,000,000 pixels; at most 100,000,000 are read. "
    "Scale it down first.",
    "no image.jpg": "'{}' is not a readable image. Remove it, or save it as PNG or JPEG.",
    "truncated.png": "The image '{}' is truncated or damaged (image file is truncated). "
    "Remove it or fetch it again.",
}
SAME_AS = {
    "animated.gif": ("RGB", 0.03),
    "below/plain.PNG": ("RGB", 1e-6),
    "cmyk.jpg": ("RGB", 0.03),
    "grey.png": ("L", 1e-6),
    "rgba.png": ("RGB", 1e-6),
    "sixteen bits.png": ("L", 1e-6),
    "turned.png": ("RGB", 1e-6),
}


@pytest.mark.parametrize("build", ["build", "build.onnx"])
def test_a_folder_of_good_and_bad_files(home: Path, build: str) -> None:
    answers = {
        str(Path(str(entry.path)).relative_to(home / "pictures")): entry
        for entry in predict(home / build, [home / "pictures"], skip_unreadable=True)
    }
    assert list(answers) == sorted({**GOOD, **BAD})
    wanted = {}
    for mode in ("RGB", "L"):
        picture(mode).save(home / f"{mode}.png")
        (wanted[mode],) = predict(home / build, home / f"{mode}.png")
    for name, (mode, tolerance) in SAME_AS.items():
        assert answers[name].probabilities == pytest.approx(wanted[mode].probabilities, abs=tolerance), name
    # What a grey or a turned picture answers must differ, or the above could not fail.
    assert answers["grey.png"].probabilities != pytest.approx(answers["rgba.png"].probabilities, abs=1e-3)
    assert sum(answers["one pixel.png"].probabilities.values()) == pytest.approx(1)
    for name, sentence in SAYS.items():
        place = home / "pictures" / name
        assert answers[name].to_dict() == {"path": str(place), "error": sentence.format(place)}


@pytest.mark.parametrize("build", ["build", "build.onnx"])
def test_the_command_goes_on_and_says_so_at_the_end(
    home: Path, build: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console(home, monkeypatch, capsys)

    def run(*arguments: object) -> Result:
        if build == "build":
            return console("predict", build, *arguments)
        return console.process("predict", build, *arguments, python=("-c", WITHOUT_TORCH))

    plain = run("pictures", "-q")
    assert plain.code == 1
    assert [line.partition("\t")[0] for line in plain.out.splitlines()] == [
        f"pictures/{name}" for name in sorted(GOOD)
    ]
    assert plain.err.splitlines() == [
        f"Warning: {SAYS[name].format(f'pictures/{name}')}" for name in sorted(BAD)
    ]
    whole = run("pictures", "missing.png", "--json")
    assert whole.code == 1
    assert "Warning" not in whole.err
    report = json.loads(whole.out)["images"]
    assert len(report) == len(GOOD) + len(BAD) + 1
    assert report[-1] == {
        "path": "missing.png",
        "error": "The image 'missing.png' does not exist. Check the path.",
    }
    assert run("pictures/below", "pictures/grey.png", "--json").code == 0


def test_none_of_these_is_said_by_a_build_and_by_its_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compose(parts_of(digit_modules(), ["3", "5"]), reject=True).save(tmp_path / "build")
    export(tmp_path / "build", tmp_path / "build.onnx", data="digits")
    (tmp_path / "pictures").mkdir()
    for number, image in enumerate(digits("0123456789", "test").images(range(0, 300, 5))):
        Image.fromarray(image[:, :, 0]).save(tmp_path / "pictures" / f"{number:03}.png")
    console = Console(tmp_path, monkeypatch, capsys)
    reports = [
        json.loads(console("predict", build, "pictures", "--json").out) for build in ("build", "build.onnx")
    ]
    labels, others = ([entry["label"] for entry in report["images"]] for report in reports)
    assert labels == others
    assert 0 < labels.count(None) < len(labels)
    assert reports[0]["false_accept"] == pytest.approx(reports[1]["false_accept"])
    said = console("predict", "build", "pictures").out
    assert said.count("none of these") == labels.count(None)
    assert "False acceptance of the parent's other classes, measured at decomposition: " in said
    counts = [
        json.loads(console("evaluate", build, "--data", "digits", "--json").out)["rejection"]
        for build in ("build", "build.onnx")
    ]
    assert 0 < counts[0]["accepted"] <= 1
    assert counts[0] == counts[1]


def test_evaluating_an_exported_file_says_what_is_missing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    console = Console(home, monkeypatch, capsys)
    result = console("evaluate", "build.onnx", "--data", "digits")
    assert result.code == 1
    assert "Running an ONNX file needs the package 'onnxruntime'" in result.err


def test_photographs_do_not_pile_up(home: Path) -> None:
    classifier = Counting(home / "build.onnx")
    predictions = predict(classifier, [home / "pictures" / "turned.png"] * 3, batch_bytes=SIDE * SIDE * 3 - 1)
    assert classifier.batches == [1, 1, 1]
    assert len({json.dumps(prediction.to_dict()) for prediction in predictions}) == 1


class Counting(OnnxClassifier):
    """Notes how many images it is given at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.batches: list[int] = []

    def assess(
        self, images: Sequence[NDArray[np.uint8]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        self.batches.append(len(images))
        return super().assess(images)


def test_one_image_in_every_form_gets_one_answer(home: Path) -> None:
    path = home / "pictures" / "below" / "plain.PNG"
    image = picture()
    pixels = np.array(image)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for classifier in (modhub.load(home / "build"), home / "build", str(home / "build.onnx")):
        (wanted,) = modhub.predict(classifier, path)
        assert wanted.label in ("cat", "dog", "aquarium fish")
        assert wanted.probability == max(wanted.probabilities.values())
        one: list[Picture] = [str(path), image, pixels, tensor, tensor.float() / 255]
        many: list[list[Picture]] = [[path], [image], [pixels], [tensor], [str(path.parent)]]
        batches: list[Picture] = [pixels[None], tensor[None]]
        for images in (*one, *many, *batches):
            (prediction,) = modhub.predict(classifier, images)
            assert prediction.label == wanted.label
            assert prediction.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)
        mixed = modhub.predict(classifier, [path, tensor, picture("L"), pixels], batch=3)
        assert [prediction.path for prediction in mixed] == [str(path), None, None, None]
        assert mixed[1].probabilities == pytest.approx(mixed[3].probabilities, abs=1e-5)
        assert mixed[1].probabilities != pytest.approx(mixed[2].probabilities, abs=1e-3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((8, 8, 4), np.uint8),
            "An array of uint8 with the shape (8, 8, 4) is not an image. "
            "Give it as uint8 (height, width[, 1 or 3]).",
        ),
        (
            np.zeros((8, 8, 3), np.float32),
            "An array of float32 with the shape (8, 8, 3) is not an image. "
            "Give it as uint8 (height, width[, 1 or 3]).",
        ),
        (
            torch.zeros(8, 8),
            "A tensor of torch.float32 with the shape (8, 8) is not an image. "
            "Give it as ([batch,] channels, height, width) with 1 or 3 channels.",
        ),
        (
            torch.full((3, 8, 8), 200.0),
            "The images are floats from 200 to 200; pixels are uint8 in 0…255 or floats in [0, 1]. "
            "Divide those in 0…255 by 255; leave out a normalisation, which is part of the classifier.",
        ),
        (
            torch.full((3, 8, 8), 200),
            "The images are int64; pixels are uint8 in 0…255 or floats in [0, 1]. "
            "Convert them: images.to(torch.uint8)",
        ),
    ],
)
def test_what_is_no_image_is_refused(home: Path, image: Picture, message: str) -> None:
    for classifier in (home / "build.onnx", home / "build"):
        with pytest.raises(DataError) as caught:
            modhub.predict(classifier, image)
        assert str(caught.value) == message


def test_a_file_that_cannot_be_read_is_an_error_unless_skipped(home: Path) -> None:
    place = home / "pictures" / "no image.jpg"
    with pytest.raises(DataError) as caught:
        modhub.predict(home / "build.onnx", place)
    assert str(caught.value) == SAYS["no image.jpg"].format(place)
    (prediction,) = modhub.predict(home / "build.onnx", place, skip_unreadable=True)
    assert (prediction.label, prediction.probability, prediction.error) == (None, 0.0, str(caught.value))
