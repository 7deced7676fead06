import shutil
from pathlib import Path

import pytest
from PIL import Image

from modhub.data import open_data
from tests.cli.test_compute import train
from tests.support.console import Console


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A parent that knows 0 to 3, published, and a folder of images of 7."""
    home = tmp_path_factory.mktemp("teach")
    with pytest.MonkeyPatch.context() as patch:
        console = Console(home, patch)
        train("digits-plain", ["0", "1", "2", "3"], home / "plain.safetensors")
        arguments = (
            "--weights",
            "plain.safetensors",
            "--data",
            "digits",
            "--labels",
            "0,1,2,3",
            "--images-per-class",
            "60",
        )
        console.good("decompose", "modhub:digits-plain", *arguments, "-o", "plain", "-q")
        console.good("push", "plain", "lab/plain", "--version", "1.0.0")
    (home / "sevens").mkdir()
    train_set = open_data("digits", "train").only(["7"])
    for number, image in enumerate(train_set.images(range(40))):
        Image.fromarray(image[:, :, 0]).save(home / "sevens" / f"{number}.png")
    (home / "none").mkdir()
    for folder in ("zoo/Seven", "zoo/lion", "known/0", "split/train/dated", "split/test"):
        shutil.copytree(home / "sevens", home / folder)
    return home


@pytest.fixture
def modhub(home, monkeypatch, capsys):
    return Console(home, monkeypatch, capsys)


def test_a_fifth_class(modhub):
    made = modhub.good("teach", "7", "--on", "lab/plain", "--data", "sevens", "-o", "seven", "--json").json
    assert (made["label"], made["images"]) == ("7", 40)
    modhub.good("push", "seven", "lab/seven", "--version", "1.0.0")
    modhub.go(modhub.home / "work")
    modhub.good("init")
    modhub.good("add", "lab/plain", "lab/seven/7")
    report = modhub.good("compose", "-o", "build", "--json").json
    assert report["labels"] == ["0", "1", "2", "3", "7"]
    assert report["passes"] == 1, "the taught class stands on the same trunk"
    found = modhub.good("evaluate", "build", "--data", "digits", "--json").json
    assert found["per_class"]["7"]["recall"] > 0.6
    old = [found["per_class"][label]["recall"] for label in "0123"]
    assert sum(old) / 4 > 0.8


def test_what_it_takes_from_known_classes_is_told(modhub):
    arguments = ("teach", "7", "--on", "lab/plain", "--data", "sevens", "-o", "against")
    guessed = modhub.good(*arguments, "--json")
    assert set(guessed.json["takes"]) == set("0123")
    assert guessed.json["takes_measured"] is None
    told = modhub.good(*arguments, "--force", "--against", "digits")
    assert "interference with all classes composed / with that class alone (measured on " in told.out
    counted = modhub.good(*arguments, "--force", "--against", "digits", "--json").json["takes_measured"]
    assert (counted["dataset"], counted["split"]) == ("digits", "test")
    assert set(counted["classes"]) == set("0123")
    much = [name for name, each in counted["classes"].items() if max(each.values()) > 0.05]
    assert ("'7' would take images of" in told.err) == bool(much)


@pytest.mark.parametrize("data", ["imagefolder:sevens", "imagefolder:zoo", "split"])
def test_the_images_of_one_class_are_found(modhub, data):
    made = modhub.good(
        "teach", "seven", "--on", "lab/plain", "--data", data, "-o", "seven2", "--force", "--json"
    )
    assert made.json["images"] == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("3", "--on", "lab/plain", "--data", "sevens"), "knows the class '3' already."),
        (("7", "--on", "lab/nothing", "--data", "sevens"), "There is no repository 'lab/nothing'."),
        (("7", "--on", "lab/plain", "--data", "none"), "The folder 'none' holds no image."),
        (("7", "--on", "lab/plain", "--data", "nowhere"), "'nowhere' is not a data set."),
        (
            ("seven", "--on", "lab/plain", "--data", "zoo"),
            "Not all images in 'zoo' are of 'seven': it has a folder for each class, such as 'Seven'.\n"
            "Take its own: --data imagefolder:zoo",
        ),
        (
            ("eight", "--on", "lab/plain", "--data", "known"),
            "Not all images in 'known' are of 'eight': it has a folder for each class, such as '0'.\n"
            "Name the folder that holds the images of 'eight' only.",
        ),
    ],
)
def test_one_sentence_and_what_to_do(modhub, arguments, message):
    result = modhub("teach", *arguments, "-o", "out", "-q")
    assert result.code == 1
    assert result.err.startswith("Error: ")
    assert message in result.err
    assert not Path("out").exists()


def test_a_place_that_cannot_be_written_is_found_out_before_the_work(modhub):
    (modhub.home / "file").write_text("")
    result = modhub("teach", "7", "--on", "lab/plain", "--data", "sevens", "-o", "file/seven")
    assert result.code == 1
    assert result.err.startswith("Error: 'file/seven' cannot be written: ")
