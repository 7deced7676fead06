"""The library as a user imports it; the README's Python runs as it stands."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import modhub
from modhub.api.add import add
from modhub.api.compose import compose_to
from modhub.api.decompose import apart, decompose_to, open_parent
from modhub.api.init import init
from modhub.api.lock import lock_to
from modhub.artifact import write_artifact
from modhub.composition import Budget, compose, parts_of
from modhub.data import as_batch, open_data
from modhub.decomposition import DecomposeOptions
from modhub.decomposition.teaching import teach
from modhub.errors import BudgetError, CompositionError, DataError, IntegrityError, RefError
from modhub.nets import Runner
from modhub.nets.architectures import ARCHITECTURES
from modhub.project.lock import Lock
from modhub.project.toml import Project
from tests.cli.test_compute import train
from tests.support.digit_parents import digit_modules

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    train("digits-plain", [str(digit) for digit in range(10)], path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch, weights):
    monkeypatch.setenv("MODHUB_HUB", str(tmp_path / "hub"))
    monkeypatch.setenv("MODHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.safetensors").write_bytes(weights.read_bytes())
    return tmp_path


def test_the_readme_runs(here, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    test = open_data("digits", "test").only(["3", "8"])
    model = ARCHITECTURES["digits-plain"].build(10)
    model.load_state_dict(load_file("digits.safetensors"))
    names = {"images": as_batch(test.images(range(len(test)))), "model": model.eval()}
    exec(compile(code, "README.md", "exec"), names)
    assert names["scores"].shape == (len(test), 2)
    labels, top1, first = re.fullmatch(r"(\(.*\)) ([\d.]+)\n(.*)\n", capsys.readouterr().out).groups()
    assert labels == "('3', '8')"
    assert first == names["classifier"].predict(names["images"][:1])[0].label
    assert float(top1) > 0.9
    again = names["classifier"](names["images"])
    assert torch.equal(again, names["scores"]), "a build gives the scores it was saved with"


def test_all_modules_together_are_the_parent(here):
    modules = modhub.decompose(
        "modhub:digits-plain", "digits", weights="digits.safetensors", images_per_class=40, max_loss=0.0
    )
    modhub.push(modules, "me/digits", version="1.0.0")
    classifier = modhub.compose([f"me/digits/{digit}" for digit in range(10)])
    found = modhub.evaluate(classifier, "digits")
    settings = DecomposeOptions(weights="digits.safetensors")
    parent = open_parent("modhub:digits-plain", open_data("digits"), settings)
    whole = Runner(parent.head.join(parent.trunk))
    test = open_data("digits", "test")
    with torch.inference_mode():
        answers = whole(as_batch(test.images(range(len(test)))).float() / 255).argmax(1).numpy()
    assert abs(found.top1 - float((answers == test.targets).mean())) <= 0.015


def test_modules_are_shown_in_a_line():
    modules = digit_modules()
    assert re.fullmatch(r"<ModuleSet of '[^']+': \d(, \d)+>", repr(modules))
    assert re.fullmatch(r"<ClassModule '\d' of '[^']+'>", repr(modules.modules[0]))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 6, 3), nn.Linear(6, 10)

    def forward(self, images):
        return self.last(self.first(images).relu().mean((2, 3)))


def test_a_module_of_torch_is_a_parent(here):
    torch.manual_seed(0)
    modules = modhub.decompose(Small(), "digits", images_per_class=20, name="small", only=["3", "7"])
    assert [entry.label for entry in modules.manifest.modules] == ["3", "7"]
    assert modules.manifest.parent.architecture == "Small"
    assert modules.manifest.input.channels == 1
    assert (modules.manifest.input.height, modules.manifest.input.width) == (8, 8)


def test_nothing_minds_that_gradients_are_switched_off():
    modules, images = digit_modules(), open_data("digits").only(["8"]).sample(10, 0)
    with torch.inference_mode():
        modhub.decompose(Small().requires_grad_(False), "digits", images_per_class=4, only=["3"])
        taught = teach(modules, "8", images)
        compose(parts_of(taught), budget=Budget(flops=0.9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda modules: modules[0]["files"].pop(),
            "modhub.lock should list two files of '1', its manifest and its tensors; it lists 1.",
        ),
        (
            lambda modules: modules[0]["files"].append(modules[1]["files"][0]),
            "modhub.lock should list two files of '1', its manifest and its tensors; it lists 3.",
        ),
        (
            lambda modules: modules[1].update(files=modules[0]["files"]),
            "modules/1/module.json of 'me/digits' does not say what modhub.lock says.",
        ),
    ],
)
def test_a_lock_that_its_modules_contradict_is_refused(here, change, message):
    modhub.push(digit_modules(), "me/digits", version="1.0.0")
    init(here / "work")
    add(here / "work", ["1=me/digits/1", "2=me/digits/2"])
    path = lock_to(here / "work").path
    lock = json.loads(path.read_text())
    change(lock["modules"])
    path.write_text(json.dumps(lock))
    with pytest.raises(IntegrityError) as caught:
        compose_to(here / "build", here / "work", locked=True)
    assert str(caught.value) == f"{message} Write the lock again with: modhub lock"
    assert not (here / "build").exists()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"images_per_class": 0},
            DataError,
            "At least 2 images per class are required, not 0. 300 per class are usual.",
        ),
        (
            {"max_loss": 2.0},
            BudgetError,
            "A module cannot lose 2 of its accuracy. Give the loss as a fraction: 0.005 is half a point.",
        ),
    ],
)
def test_settings_that_cannot_be_met_are_refused(here, settings, error, message):
    with pytest.raises(error) as caught:
        modhub.decompose("modhub:digits-plain", "digits", weights="digits.safetensors", **settings)
    assert str(caught.value) == message


def test_a_form_that_there_is_not_is_refused(here):
    with pytest.raises(DataError) as caught:
        decompose_to(here / "out", "modhub:digits-plain", "digits", DecomposeOptions(), form="zzz")
    assert str(caught.value) == "There is no form 'zzz'. There are: delta, standalone."


def test_keywords_of_decompose_are_fields_of_its_options(here):
    fields = {field.name for field in dataclasses.fields(DecomposeOptions)}
    for name in fields:
        assert f"`{name}`" in DecomposeOptions.__doc__
    # What version 0.1.0 took.
    assert fields >= {
        *(
            "split",
            "weights",
            "arguments",
            "method",
            "method_options",
            "labels",
            "only",
            "name",
            "input_size",
        ),
        *("mean", "std", "license", "dataset", "max_loss", "images_per_class", "seed", "date", "measure"),
        *("examine", "device", "resume"),
    }
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        modhub.decompose("modhub:digits-plain", "digits", size=3)
    chosen = DecomposeOptions(weights="digits.safetensors", images_per_class=10, only=["1"])
    assert [m.label for m in modhub.decompose("modhub:digits-plain", "digits", chosen).modules] == ["1"]
    two = modhub.decompose("modhub:digits-plain", "digits", chosen, only=["1", "2"])
    assert [module.label for module in two.modules] == ["1", "2"]


def test_one_ref_is_a_string_and_so_is_a_path(here):
    modhub.push(digit_modules(), "me/digits", version="1.0.0")
    assert [hit.label for hit in modhub.search("1").modules] == ["1"]
    assert modhub.compose("me/digits/1").labels == ("1",)
    with pytest.raises(BudgetError) as caught:
        modhub.frontier("me/digits/1", kind="zz")
    assert str(caught.value) == "'zz' is not a kind of budget. There are: flops, params, time."

    init(here / "work")
    add(here / "work", ["1=me/digits/1", "2=me/digits/2"])
    compose_to(here / "work" / "build", here / "work")
    report = modhub.replace("work/build", "2=me/digits/3", "work/again")
    assert report.labels == ("1", "2")
    replaced = modhub.replace("work/build", "2=me/digits/3")
    images = as_batch(open_data("digits", "test").images(range(20)))
    assert torch.equal(replaced(images), modhub.load("work/again")(images))
    lock = Lock.from_bytes(Path("work/build/modhub.lock").read_bytes())
    place = f"me/digits 1.0.0 ({lock.modules[0].commit[:12]})"
    assert [str(change) for change in report.changes] == [f"2: {place} 2 → {place} 3"]
    modhub.push(digit_modules(), "me/others", version="1.0.0")
    modhub.yank("me/digits==1.0.0", reason="wrong labels")
    report = modhub.replace("work/build", "2=me/others/3", "work/mixed")
    assert [str(change) for change in report.changes] == ["2: me/digits 1.0.0 → me/others 1.0.0"]
    made = modhub.export("work/again", "again.pt2", format="pt2")
    assert (str(made.path), Path("again.pt2").is_file()) == ("again.pt2", True)


def test_a_directory_of_modules_composes(here):
    modules = digit_modules()
    modhub.push(modules, "me/digits", version="1.0.0")
    refs = ["me/digits/3", "me/digits/5"]
    modhub.pull(refs, out="pulled")
    images = as_batch(open_data("digits", "test").images(range(20)))
    found = modhub.compose(Path("pulled"))
    assert found.labels == ("3", "5")
    assert torch.equal(found(images), modhub.compose(refs)(images))
    write_artifact(here / "apart", *apart(modules))
    assert modhub.compose(here / "apart").labels == tuple(entry.label for entry in modules.manifest.modules)


def test_two_of_one_label_are_refused(here):
    with pytest.raises(CompositionError, match=r"^Two modules of this composition are called 'cat': "):
        Project.of(["a/b/cat", "c/d/cat"])
    with pytest.raises(RefError, match=r"^'a/b' names no class\."):
        modhub.compose(["a/b"])
