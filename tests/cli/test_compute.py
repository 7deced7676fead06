"""The commands that compute, on two small networks trained in a second: from weights to predictions."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from modhub.api.builds import BuildOptions
from modhub.api.load import load
from modhub.composition import Budget
from modhub.data import as_batch, open_data
from modhub.nets.architectures import ARCHITECTURES
from modhub.parents import write_parent
from modhub_cli.main import run
from tests.support.console import ROOT, Console
from tests.support.determined import determined_files
from tests.support.digit_parents import digit_parent
from tests.support.hub_server import serving

LABELS = {"plain": ["0", "1", "2", "3"], "residual": ["2", "3", "4"]}


def train(name, labels, path):
    torch.manual_seed(0)
    images = open_data("digits", "train").only(labels)
    pixels = as_batch(images.images(range(len(images)))).float() / 255
    targets = torch.from_numpy(images.targets)
    network = ARCHITECTURES[name].build(len(labels))
    optimiser = torch.optim.AdamW(network.parameters(), 4e-3)
    for _ in range(3):
        for chosen in torch.randperm(len(pixels)).split(32):
            loss = torch.nn.functional.cross_entropy(network(pixels[chosen]), targets[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    save_file(network.eval().state_dict(), path)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two decomposed parents, published; and a project on both of them, built.

    Beside them the golden files' parent of 1,200 weights, whose networks are fitted in a second, and a
    project on it.
    """
    home = tmp_path_factory.mktemp("compute")
    shutil.copytree(ROOT / "tests" / "golden" / "0.1.0" / "hub", home / "hub")
    with pytest.MonkeyPatch.context() as patch:
        console = Console(home, patch)
        for name, labels in LABELS.items():
            train(f"digits-{name}", labels, home / f"{name}.safetensors")
            done = console.good(*decompose_arguments(name), "-o", name, "--json")
            (home / f"{name}.json").write_text(done.out)
            console.good("push", name, f"lab/{name}", "--version", "1.0.0")
        console.go(home / "work")
        for arguments in (
            ("init",),
            ("add", "0=lab/plain/0", "two=lab/plain/2", "4=lab/residual/4"),
            ("compose", "-o", "build", "--json"),
        ):
            done = console.good(*arguments)
        (home / "build.json").write_text(done.out)
        console.go(home / "single")
        for arguments in (("init",), ("add", "1=lab/digits/1", "2=lab/digits/2")):
            console.good(*arguments)
    (home / "some").mkdir()
    for number, pixels in enumerate(open_data("digits").only(["1", "2"]).sample(10, 0).images(range(20))):
        Image.fromarray(pixels[:, :, 0]).save(home / "some" / f"{number}.png")
    return home


def decompose_arguments(name):
    return (
        "decompose",
        f"modhub:digits-{name}",
        "--weights",
        f"{name}.safetensors",
        "--data",
        "digits",
        "--labels",
        ",".join(LABELS[name]),
        "--license",
        "mit",
        "--images-per-class",
        "40",
    )


@pytest.fixture
def modhub(home, monkeypatch, capsys):
    console = Console(home, monkeypatch, capsys)
    console.go(home / "work")
    return console


def test_decompose_reports(home):
    report = json.loads((home / "plain.json").read_text())
    assert {"modules", "seconds", "images"} <= set(report)
    assert [module["label"] for module in report["modules"]] == LABELS["plain"]
    for module in report["modules"]:
        assert 0 < module["kept_channels_fraction"] <= 1
        assert 0 < module["bytes"] < 100_000
    assert report["images"] > 100
    assert 0 < report["energy"]["kwh"] < 0.01
    assert json.loads((home / "plain/modhub.json").read_text())["energy"] == report["energy"]


def test_decompose_without_images(home, modhub):
    arguments = [each for each in decompose_arguments("plain") if each not in ("--data", "digits")]
    arguments = arguments[: arguments.index("--images-per-class")]
    arguments[arguments.index("--weights") + 1] = str(home / "plain.safetensors")
    result = modhub.good(*arguments, "--no-data", "-o", "blind")
    assert "of digits-plain without images in" in result.out
    report = json.loads(modhub.good(*arguments, "--no-data", "-o", "again", "--json").out)
    assert [module["label"] for module in report["modules"]] == LABELS["plain"]
    assert {(each["recall"], each["precision"], each["sample"]) for each in report["modules"]} == {
        (None, None, None)
    }
    for wrong in ((), ("--no-data", "--data", "digits")):
        failed = modhub(*arguments, *wrong, "-o", "x")
        assert failed.code == 2
        assert "Give either --data DATA or --no-data." in failed.err


def test_a_parent_that_knows_little_is_pointed_out(home, modhub):
    arguments = list(decompose_arguments("plain"))
    arguments[arguments.index("--weights") + 1] = str(home / "plain.safetensors")
    assert "knows" not in modhub.good(*arguments, "-o", "good").err
    turned = arguments[:]
    turned[turned.index("--labels") + 1] = "3,0,1,2"
    told = modhub(*turned, "-o", "turned")
    assert told.code == 1
    assert "Check --mean, --std, --input-size and the order of --labels" in told.err
    assert "next:" not in told.err
    assert "should not be pushed" in modhub.good(*turned, "-o", "turned", "--force").err


def test_compose_reports(home):
    report = json.loads((home / "build.json").read_text())
    assert set(report) >= {"labels", "passes", "trunks", "bytes"}
    assert report["labels"] == ["0", "two", "4"]
    assert report["passes"] == 2
    assert 0 < report["energy"]["kwh"] < 0.01
    assert json.loads((home / "work/build/build.json").read_text())["energy"] == report["energy"]
    for trunk in report["trunks"]:
        assert set(trunk) >= {
            "parent",
            "kept_channels_fraction",
            "kept_params_fraction",
            "flops",
            "parent_flops",
        }
        assert 0 < trunk["flops"] <= trunk["parent_flops"]
    assert report["bytes"] == sum(
        path.stat().st_size for path in (home / "work/build").rglob("*") if path.is_file()
    )


def test_every_file_of_a_build_follows_its_schema(home):
    build, schemas = home / "work/build", ROOT / "schemas"
    for name, schema in (
        ("build.json", "build"),
        ("options.json", "options"),
        ("modhub.lock", "lock"),
        ("modules/0.json", "module"),
        ("trunks/0/graph.json", "graph"),
    ):
        rules = json.loads((schemas / f"{schema}.schema.json").read_text())
        jsonschema.validate(json.loads((build / name).read_text()), rules)


def test_same_inputs_same_bytes(home, modhub):
    modhub.go(home)
    modhub.good(*decompose_arguments("plain"), "-o", "again", "-q")
    assert determined_files(home / "again") == determined_files(home / "plain")


@pytest.mark.parametrize("target", ["plain", "residual", "lab/plain", "lab/residual/4"])
def test_verify_counts_what_networks_cost(home, modhub, target):
    modhub.go(home)
    counted = modhub.good("verify", target, "--networks", "--json").json
    assert counted == modhub.good("verify", target, "--json").json


def test_verify_reads_every_file_of_a_build(home, modhub, tmp_path):
    modhub.go(home)
    build = tmp_path / "build"
    shutil.copytree(home / "work" / "build", build)
    assert modhub.good("verify", build, "--json").json == {"target": str(build), "files": 12, "modules": 3}
    weights = next(build.glob("trunks/*/weights.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    result = modhub("verify", build, "-q")
    assert result.code == 1
    assert result.err.startswith(f"Error: '{weights}' has the sha256 ")
    weights.unlink()
    assert modhub("verify", build, "-q").err.startswith(f"Error: '{weights}' is missing.\n")


NOT_THE_LOCK = "'{}/modhub.lock' is not the lock of the modhub.toml beside it."


def replaced(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda build: (build / "modhub.lock").write_text("x"), "{}/modhub.lock is not valid JSON ("),
        (lambda build: (build / "options.json").write_text("x"), "{}/options.json is not valid JSON ("),
        (lambda build: (build / "modhub.toml").write_text("x"), "{}/modhub.toml is not valid TOML ("),
        (
            lambda build: (build / "modules/0.json").write_text("x"),
            "'{}/modules/0.json' has 1 bytes, expected ",
        ),
        (lambda build: (build / "modhub.lock").unlink(), "'{}/modhub.lock' is missing."),
        (lambda build: (build / "options.json").unlink(), "'{}/options.json' is missing."),
        (lambda build: (build / "modhub.toml").unlink(), "'{}/modhub.toml' is missing."),
        (lambda build: (build / "modules/2.json").unlink(), "'{}/modules/2.json' is missing."),
        (
            lambda build: (build / "modules/3.json").write_text("{}"),
            "'{}/modules/3.json' is of none of the build's modules.",
        ),
        (lambda build: replaced(build / "modhub.toml", "two", "three"), NOT_THE_LOCK),
        (
            lambda build: [replaced(build / name, "two", "three") for name in ("modhub.toml", "modhub.lock")],
            "'{}/modhub.lock' has other labels than build.json.",
        ),
        (
            lambda build: replaced(build / "options.json", '"reject": false', '"reject": true'),
            "'{}/options.json' does not say the same as build.json: 'reject' differs.",
        ),
        (
            lambda build: replaced(build / "modhub.lock", '"module": "0"', '"module": "1"'),
            "'{}/modules/0.json' does not say what modhub.lock says.",
        ),
        (
            lambda build: replaced(build / "build.json", '"two"', '"0"'),
            "'labels' in {}/build.json lists '0' twice.",
        ),
    ],
)
def test_a_build_that_contradicts_what_it_was_made_of(home, modhub, tmp_path, damage, message):
    build = tmp_path / "build"
    shutil.copytree(home / "work" / "build", build)
    damage(build)
    result = modhub("verify", build, "-q")
    assert result.code == 1
    assert result.err.startswith("Error: " + message.format(build)), result.err


def test_a_build_saved_by_python_is_whole_and_a_readme_may_be_edited(home, modhub, tmp_path):
    load(home / "work" / "build").save(tmp_path / "build")
    (tmp_path / "build" / "README.md").write_text("My own.")
    assert modhub.good("verify", tmp_path / "build", "--json").json["files"] == 6


FRONTIER = ("frontier", "--seconds", "0.02")


def test_frontier_shows_the_trade(home, modhub, tmp_path):
    modhub.go(home / "single")
    target = tmp_path / "trade"
    arguments = (
        *FRONTIER,
        "--data",
        "digits",
        "--budgets",
        "0.9,0.6",
        "--no-random",
        "--tune",
        home / "some",
    )
    found = modhub.good(*arguments, "-o", target, "--json").json
    assert [point["budget"] for point in found["points"]] == [0.9, 0.6]
    assert json.loads((target / "frontier.json").read_text()) == found
    told = modhub.good(*FRONTIER, "--budgets", "0.9").out
    assert "agreement" in told
    assert "top-1" not in told, "nobody knows without labelled images"
    again = modhub(*arguments, "-o", target)
    assert (again.code, again.err.splitlines()[-2]) == (1, f"Error: '{target}' exists already.")
    assert modhub("frontier", "--budgets", "0.9,none").code == 2


def test_the_next_command_after_a_frontier_makes_what_was_measured(home, modhub, tmp_path):
    modhub.go(tmp_path / "elsewhere")
    project, tune = home / "single", home / "some"
    row = (*FRONTIER, project, "--budgets", "0.9", "--kind", "params", "--tune", tune, "--seed", 3)
    made = f"next: modhub compose {project} -o build --budget params=0.9 --tune {tune} --seed 3\n"
    assert modhub.good(*row).err.endswith(made)
    (tmp_path / "elsewhere" / "build").mkdir()
    told = modhub.good(*FRONTIER, project, "--budgets", "0.9", "--multiple", 2, "--tune", tune).err
    made = f"next: modhub compose {project} -o build2 --budget flops=0.9 --multiple 2 --tune {tune}\n"
    assert told.endswith(made)


def test_without_torch_the_commands_that_need_it_say_so(home, modhub):
    python = ("-c", "import sys; sys.modules['torch'] = None; from modhub_cli.main import main; main()")
    done = modhub.process("compose", "-o", "new", python=python)
    assert (done.code, done.out, done.err) == (
        1,
        "",
        "Error: This command requires the Python package 'torch', which is not installed.\n"
        "Install it, or install modhub with all its dependencies.\n",
    )


def test_a_budget_of_time(home, modhub, tmp_path):
    modhub.go(home / "single")
    build = tmp_path / "quick"
    modhub.good(
        "compose",
        "-o",
        build,
        "--budget",
        "time=0.95",
        "--budget",
        "flops=0.9",
        "--tune",
        home / "some",
        "-q",
    )
    options = json.loads((build / "options.json").read_text())
    assert (options["time"], options["flops"], options["params"]) == (0.95, 0.9, None)
    # Replacing a class composes with the same budgets; builds of before know nothing of time.
    del options["time"]
    (build / "options.json").write_text(json.dumps(options))
    assert BuildOptions.read(build / "options.json").budget == Budget(flops=0.9, multiple=1)
    row = (*FRONTIER, "--data", "digits", "--budgets", "0.95", "--kind", "time", "--no-random", "--json")
    row = (*row, "--tune", home / "some")
    (point,) = modhub.good(*row).json["points"]
    assert point["time"] <= 0.95
    refused = modhub("compose", "-o", tmp_path / "none", "--budget", "seconds=0.5")
    assert refused.code == 2
    assert refused.err.endswith(
        "Error: Invalid value for '--budget': expected flops, params or time and a fraction, such as "
        "flops=0.4, got 'seconds=0.5'.\n"
    )
    assert not (tmp_path / "none").exists()


def test_locked_builds_are_equal_and_need_no_hub(home, modhub):
    modhub.monkeypatch.setenv("MODHUB_HUB", "http://127.0.0.1:9")
    result = modhub("compose", "--locked", "-o", "offline", "-q")
    # The cache knows every byte by its digest, whichever hub it came from.
    assert result.code == 0, result.err
    assert determined_files(home / "work/offline") == determined_files(home / "work/build")


def test_a_lock_is_fetched_as_it_stands_when_the_cache_is_empty(home, modhub, tmp_path):
    shutil.copytree(home / "hub", tmp_path / "hub")
    modhub.monkeypatch.setenv("MODHUB_CACHE", str(tmp_path / "cache"))
    with serving(tmp_path / "hub") as server:
        refused = modhub(
            "compose", "--locked", "--offline", "-o", tmp_path / "none", "--hub", server.address, "-q"
        )
        assert refused.code == 1
        assert "is not in the cache, and the hub is not contacted when offline." in refused.err
        modhub.good("compose", "--locked", "-o", tmp_path / "build", "--hub", server.address, "-q")
    build = tmp_path / "build"
    assert determined_files(build) == determined_files(home / "work/build")
    # Nobody listens there any more: what is in the cache is asked of nobody.
    modhub.good("compose", "--locked", "-o", build, "--force", "--hub", server.address, "-q")


def test_evaluate_counts_what_it_knows(modhub):
    report = modhub.good("evaluate", "build", "--data", "digits", "--json").json
    assert {"top1", "top5", "count", "per_class"} <= set(report)
    assert report["top5"] is None
    # 'two' answers to '2', its name in its repository.
    assert (report["count"], report["left_out"]) == (3 * 34, 7 * 34)
    assert set(report["per_class"]) == {"0", "two", "4"}
    assert report["top1"] > 0.8
    assert "(238 of other classes skipped)" in modhub.good("evaluate", "build", "--data", "digits").out


def test_a_build_of_one_class_says_yes_or_no(modhub):
    Path("alone").mkdir()
    Path("alone/modhub.toml").write_text('[composition]\nname = "alone"\n\n[modules]\n0 = "lab/plain/0"\n')
    assert modhub.good("compose", "alone", "-o", "zero").out.endswith(": zero\n")
    report = modhub.good("evaluate", "zero", "--data", "digits", "--json").json
    said = report["yes_no"]
    assert (report["count"], report["left_out"], said["others"]) == (340, 0, 306)
    assert report["top1"] == pytest.approx((said["recall"] + 1 - said["false_yes"]) / 2)
    assert report["top1"] > 0.8
    told = modhub.good("evaluate", "zero", "--data", "digits", "--before", "zero").out
    assert re.search(
        r"^balanced accuracy .+ %, recall .+ %, false positives .+ % of 306 images, calibration error .+ %$",
        told,
        re.MULTILINE,
    )
    assert "balanced accuracy +0.00 pp" in told


def test_evaluate_takes_a_folder_with_one_class(home, modhub):
    folder = home / "zeros" / "0"
    folder.mkdir(parents=True)
    for number, image in enumerate(open_data("digits", "test").only(["0"]).images(range(5))):
        Image.fromarray(image[:, :, 0]).save(folder / f"{number}.png")
    report = modhub.good("evaluate", "build", "--data", f"imagefolder:{folder.parent}", "--json").json
    assert (report["count"], report["left_out"], report["per_class"]["0"]["count"]) == (5, 0, 5)
    assert report["top1"] == report["per_class"]["0"]["recall"] >= 0.6
    assert report["per_class"]["4"]["recall"] is None
    assert "0" in modhub.good("evaluate", "build", "--data", f"imagefolder:{folder.parent}").out


def test_replace_says_who_got_worse(modhub):
    modhub.good("replace", "build", "two=lab/residual/2", "-o", "mended", "--force", "-q")
    lock = json.loads(Path("mended/modhub.lock").read_text())
    assert [(module["label"], module["repository"]) for module in lock["modules"]] == [
        ("0", "lab/plain"),
        ("two", "lab/residual"),
        ("4", "lab/residual"),
    ]
    difference = modhub.good("diff", "build", "mended", "--json").json
    assert set(difference["changed"]) == {"two"}
    report = modhub.good("evaluate", "mended", "--data", "digits", "--before", "build", "--json").json
    assert set(report["change"]["recall"]) == {"0", "two", "4"}


def test_replace_says_what_a_build_costs_more(modhub):
    report = json.loads(Path("build/build.json").read_text())
    assert len(report["passes"]) == 2
    modhub.good("replace", "build", "4=lab/plain/3", "-o", "single", "-q")
    assert "costs more" not in modhub.good("replace", "build", "4=lab/plain/3", "-o", "single", "--force").err
    told = modhub.good("replace", "single", "4=lab/residual/4", "-o", "double").err
    assert "The new build costs more: 1 → 2 passes per image, " in told
    assert " multiply-adds, " in told


def test_predict_goes_on_past_bad_files(home, modhub):
    folder = home / "pictures"
    folder.mkdir(exist_ok=True)
    test = open_data("digits", "test").only(["0"])
    for number, image in enumerate(test.images(range(3))):
        Image.fromarray(image[:, :, 0]).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n junk")
    result = modhub("predict", "build", folder, "--json")
    assert result.code == 1
    report = result.json["images"]
    assert [Path(entry["path"]).name for entry in report] == ["0.png", "1.png", "2.png", "broken.png"]
    assert "is not a readable image" in report[3]["error"]
    for entry in report[:3]:
        assert set(entry["probabilities"]) <= {"0", "two", "4"}
        assert entry["label"] == max(entry["probabilities"], key=entry["probabilities"].get)
    assert sum(entry["label"] == "0" for entry in report[:3]) >= 2
    alone = modhub("predict", "build", folder / "broken.png", "-q")
    assert alone.code == 1
    assert alone.out == ""


def test_predict_knows_devices(home, modhub):
    picture = home / "one.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    assert modhub("predict", "build", picture, "--device", "cpu").code == 0
    assert "'tpu' is not a device." in modhub("predict", "build", picture, "--device", "tpu").err


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it fails
from modhub_cli.main import main
sys.argv = ["modhub", *sys.argv[1:]]
main()
"""


def test_exported_file_runs_without_torch(home, modhub):
    report = modhub.good("export", "build", "--data", "digits", "-o", "build.onnx", "--json").json
    assert report["largest_difference"] < 1e-3
    test = open_data("digits", "test").only(["4"])
    Image.fromarray(test.images([0])[0][:, :, 0]).save(home / "four.png")
    answer = modhub.good("predict", "build", home / "four.png", "--json").json
    alone = modhub.process("predict", "build.onnx", home / "four.png", "--json", python=("-c", WITHOUT_TORCH))
    assert alone.code == 0, alone.err
    (one,), (other,) = answer["images"], json.loads(alone.out)["images"]
    assert one["label"] == other["label"]
    assert np.allclose(list(one["probabilities"].values()), list(other["probabilities"].values()), atol=1e-3)


def test_an_export_onto_a_full_disk_is_one_sentence(home, modhub):
    """torch's own writer aborts the process there."""
    program = (
        "import resource, sys\n"
        "from modhub_cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "sys.argv = ['modhub', *sys.argv[1:]]\n"
        "main()\n"
    )
    full = modhub.process("export", "build", "-o", "full.pt2", "--format", "pt2", python=("-c", program))
    assert (full.code, full.err.splitlines()[-2]) == (
        1,
        "Error: 'full.pt2' cannot be written: File too large.",
    )
    assert not list(home.glob("*full*"))


def test_an_exported_file_is_evaluated_as_its_build_is(modhub):
    modhub.good("export", "build", "--data", "digits", "-o", "build.onnx", "--force")
    build = modhub.good("evaluate", "build", "--data", "digits", "--json").json
    # 'two' answers to '2' here as well: the file carries the lock.
    report = modhub.good("evaluate", "build.onnx", "--data", "digits", "--before", "build", "--json").json
    assert report.pop("change")["top1"] == 0
    assert report["ece"] == pytest.approx(build["ece"], abs=1e-3)
    # What it took is measured each time.
    assert {**report, "ece": build["ece"], "energy": build["energy"]} == build
    assert report["energy"].keys() == build["energy"].keys()
    assert min(build["energy"]["kwh"], report["energy"]["kwh"]) > 0
    table = modhub.good("evaluate", "build", "--data", "digits", "--before", "build.onnx").out
    assert table.endswith(
        "top-1 +0.00 pp (noise ± 0.00) compared with build.onnx; no class better or worse\n"
    )


def spoiled(home, change):
    tensors = load_file(home / "plain.safetensors")
    change(tensors)
    save_file(tensors, home / "spoiled.safetensors")


BASE = ("decompose", "modhub:digits-plain", "--data", "digits", "-o", "out", "-q")


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (
            lambda tensors: tensors["conv2.weight"].fill_(float("nan")),
            (*BASE, "--labels", "0,1,2,3"),
            "not finite",
        ),
        (
            lambda tensors: None,
            (*BASE, "--labels", "0,1,2"),
            "answers with 4 classes, but 3 labels were given.",
        ),
        (lambda tensors: None, (*BASE, "--labels", "0,1,2,2"), "Duplicate label '2'."),
        (lambda tensors: None, (*BASE, "--labels", "0,1,2,cat"), "has no images of 'cat'"),
        (lambda tensors: tensors.pop("conv2.weight"), (*BASE, "--labels", "0,1,2,3"), "conv2.weight"),
        (
            lambda tensors: None,
            (*BASE, "--labels", "0,1,2,3", "--method", "magic"),
            "There is no method 'magic'.",
        ),
        (
            lambda tensors: None,
            (*BASE, "--labels", "0,1,2,3", "--method-option", "colour=red"),
            "The method 'relevance' has no option 'colour'.",
        ),
    ],
)
def test_parents_that_make_no_sense(home, modhub, change, arguments, message):
    modhub.go(home)
    spoiled(home, change)
    result = modhub(*arguments, "--weights", "spoiled.safetensors")
    assert result.code == 1
    assert result.out == ""
    assert result.err.startswith("Error: ")
    assert message in result.err
    assert len(result.err.strip().splitlines()) <= 2
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("imagefolder:nowhere", "The data folder 'nowhere' does not exist."),
        ("imagefolder:empty", "empty"),
        ("imagefolder:single", "The data set 'single' has images of one class only, 'cat'."),
        ("shapes", "'shapes' is not a data set."),
    ],
)
def test_data_that_cannot_be_used(home, modhub, data, message):
    modhub.go(home)
    (home / "empty").mkdir(exist_ok=True)
    (home / "single" / "cat").mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(home / "single" / "cat" / "1.png")
    result = modhub(
        "decompose",
        "modhub:digits-plain",
        "--weights",
        "plain.safetensors",
        "--data",
        data,
        "-o",
        "out",
        "-q",
    )
    assert result.code == 1
    assert result.err.startswith("Error: ")
    assert message in result.err
    assert len(result.err.strip().splitlines()) <= 2
    assert not Path("out").exists()


def test_an_operator_outside_the_list_is_named(home, modhub):
    modhub.go(home)
    Path("odd.py").write_text(
        "import torch\n"
        "class Odd(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.first = torch.nn.Conv2d(1, 4, 3)\n"
        "        self.odd = Sorting()\n"
        "        self.last = torch.nn.Linear(144, 4)\n"
        "    def forward(self, x):\n"
        "        return self.last(self.odd(self.first(x)).flatten(1))\n"
        "class Sorting(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x.sort(dim=1).values\n"
    )
    result = modhub("decompose", "odd.py:Odd", "--data", "digits", "-o", "out", "-q")
    assert result.code == 1
    assert "'odd'" in result.err
    assert "sort" in result.err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "nowhere", "--data", "digits"), "Error: 'nowhere' is not a build.\n"),
        (
            ("evaluate", "nowhere.onnx", "--data", "digits"),
            "Error: The file 'nowhere.onnx' does not exist.\n",
        ),
        (("predict", "nowhere", "x.png"), "Error: 'nowhere' is not a build.\n"),
        (("replace", "build", "cow=lab/plain/0", "-o", "x"), "Error: 'build' has no class 'cow'.\n"),
        (("replace", "nowhere", "0=lab/plain/1", "-o", "x"), "Error: 'nowhere' holds no modhub.toml"),
        (("compose", "-o", "build"), "Error: 'build' exists already.\n"),
        (("compose", "nowhere.toml", "-o", "x"), "Error: There is no nowhere.toml in '.'.\n"),
    ],
)
def test_builds_that_are_none(modhub, arguments, message):
    result = modhub(*arguments, "-q")
    assert result.code == 1
    assert result.err.startswith(message)
    assert not Path("x").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("compose", "-o", "x", "--budget", "flops=2"),
        ("compose", "-o", "x", "--max-loss", "lots"),
        ("compose",),
        ("decompose", "modhub:digits-plain", "--data", "digits", "-o", "x", "--mean", "red"),
        ("decompose", "modhub:digits-plain", "--data", "digits", "-o", "x", "--seed", "-1"),
        ("compose", "-o", "x", "--seed", str(2**32)),
        ("frobnicate",),
    ],
)
def test_wrong_usage_exits_with_2(modhub, arguments):
    result = modhub(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert "Usage: modhub" in result.err


def test_ctrl_c_waits_for_the_import_of_torch(tmp_path):
    """Half-way through, torch's own code would abort the process."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        "import os, signal, time\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(0.2)\n"
        "print('imported', flush=True)\n"
    )
    path = os.pathsep.join(str(each) for each in (tmp_path, ROOT / "registry", ROOT / "cli"))
    arguments = ["decompose", "modhub:conv3", "--data", "digits", "-o", "x"]
    done = subprocess.run(
        [sys.executable, "-m", "modhub_cli", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (130, "imported\n"), done.stderr


def test_what_an_interruption_breaks_is_told_as_one(monkeypatch, capsys):
    """An import that swallows Ctrl-C leaves half a module behind, and something else fails over it."""
    monkeypatch.setattr(sys, "argv", ["modhub", "info", "not a ref"])
    assert (run(), run(lambda: True)) == (1, 130)
    assert capsys.readouterr().err.endswith("Error: Interrupted. No partial output was left.\n")


@pytest.mark.parametrize(
    ("arguments", "target", "number"),
    [
        ((*decompose_arguments("residual"), "-o", "stopped"), "stopped", signal.SIGINT),
        (("push", "plain", "lab/stopped", "--version", "1.0.0"), "hub/nothing", signal.SIGINT),
        (("compose", "work", "-o", "stopped"), "stopped", signal.SIGINT),
        (("compose", "work", "-o", "stopped", "--budget", "flops=0.5"), "stopped", signal.SIGTERM),
        (("compose", "work", "-o", "stopped", "--budget", "flops=0.5"), "stopped", signal.SIGHUP),
    ],
    ids=["decompose", "push", "compose", "compose-term", "compose-hup"],
)
def test_stopping_leaves_nothing(home, modhub, arguments, target, number):
    """Stopped at several moments: either all is there, or nothing."""
    modhub.go(home)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "registry"), str(ROOT / "cli")]),
    }
    for delay in (0.3, 1.2, 2.4):
        before = set(home.iterdir())
        process = subprocess.Popen(
            [sys.executable, "-m", "modhub_cli", *arguments, "--quiet"],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        time.sleep(delay)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode in ((0, 130, -number) if number == signal.SIGINT else (0, -number)), err
        assert "Traceback" not in err or delay < 1, err
        if process.returncode != 0 and (home / target).exists():
            # Stopped between the last rename and the end of the process: then all of it is there.
            assert modhub("verify", target, "-q").code == 0
        # A decomposition keeps what it found so far, and says so.
        leftovers = {path.name for path in set(home.iterdir()) - before} - {target, f".{target}.resume"}
        assert not leftovers
        if target == "stopped":
            shutil.rmtree(home / target, ignore_errors=True)
    assert modhub("fsck", "--root", "hub", "-q").code == 0


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--max-loss", "nan", "A module cannot lose nan of its accuracy."),
        ("--max-loss", "7", "A module cannot lose 7 of its accuracy."),
        ("--input-size", "5000000x5000000", "at most 8192 per side, got '5000000x5000000'."),
        ("--date", "gestern", "expected a date such as 2026-11-26 or 2026-11-26T12:00:00Z, got 'gestern'."),
    ],
)
def test_decompose_refuses_what_makes_no_sense(modhub, home, option, value, message):
    modhub.go(home)
    result = modhub(*decompose_arguments("plain"), "-o", "nonsense", option, value)
    assert result.code in (1, 2)
    assert message in result.err
    assert not Path("nonsense").exists()


def test_modules_of_a_parent_that_is_described_wrongly_are_not_for_a_push(tmp_path, monkeypatch, capsys):
    modhub = Console(tmp_path, monkeypatch, capsys)
    parent = digit_parent()
    write_parent(
        tmp_path / "wrong",
        parent.head.join(parent.trunk),
        name="wrong",
        architecture="digit-net",
        labels=parent.labels[1:] + parent.labels[:1],
        input=parent.input,
    )
    command = ("decompose", "wrong", "--data", "digits", "--images-per-class", "5")
    command = (*command, "-o", "knowing-nothing")
    said = modhub(*command)
    assert said.code == 1
    assert "Warning: 'wrong' is sure of its answers and classifies only" in said.err
    assert said.err.rstrip().endswith("The modules in 'knowing-nothing' should not be pushed.")
    forced = modhub.good(*command, "--force")
    assert "modhub push" not in forced.err
