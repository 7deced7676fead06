"""Methods of installed packages, and the list of all methods."""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import modhub
from modhub.decomposition import METHODS, method_of
from modhub.decomposition.method_options import CheckedOptions, described, option, url_of
from modhub.errors import DataError, MethodError
from tests.cli.test_compute import train
from tests.support.console import Console
from tests.support.packages import EXAMPLE, install, put_package

CLASS = """
class Mine:
    {text}
    def decompose(self, parent, images, options, reporter): ...
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages on the path; modules that a test imports from it are forgotten."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    yield tmp_path / "packages"
    for name in set(sys.modules) - before:
        if name.startswith(("modhub_activity", "pkg_")):
            del sys.modules[name]


def test_an_installed_package_brings_a_method_by_its_name(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(place, EXAMPLE)
    train("digits-plain", ["0", "1", "2", "3"], tmp_path / "plain.safetensors")
    console = Console(tmp_path, monkeypatch, capsys)
    told = console.good("methods", "activity", "--json").json
    assert told == {
        "methods": [
            {
                "name": "activity",
                "summary": "Keeps of every group of channels those with the largest mean square on images "
                "of the class.",
                "paper": None,
                "url": None,
                "citation": None,
                "needs": ["labels"],
                "cost": "one pass over the images",
                "package": "modhub-activity 0.1.0",
                "options": [
                    {
                        "name": "share",
                        "type": "number",
                        "default": 0.9,
                        "choices": [],
                        "minimum": 0,
                        "maximum": 1,
                        "description": "Share of each group's channels that is kept.",
                    }
                ],
            }
        ],
        "unusable": [],
    }
    decompose = ("decompose", "modhub:digits-plain", "--weights", "plain.safetensors", "--data", "digits")
    decompose += ("--labels", "0,1,2,3", "--images-per-class", "20", "--method", "activity")
    done = console.good(*decompose, "--method-option", "share=0.75", "-o", "out", "--json").json
    assert done["method"] == "activity"
    assert all(module["kept_channels_fraction"] < 0.8 for module in done["modules"])
    bad = console(*decompose, "--method-option", "share=7", "-o", "bad")
    assert bad.code == 1
    said = "The option 'share' of the method 'activity' is '7'. It should be a number from 0 to 1."
    assert said in " ".join(bad.err.split())


def test_the_packages_are_wrong_in_their_own_ways(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = CLASS.format(text="name, paper = 'good', None")
    put_package(place, "a-good", {"good": "pkg_good:Mine"}, {"pkg_good.py": f"print('loud')\n{good}"})
    wrong = {
        "broken": ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero."),
        "leaving": ("exit(4)", "cannot be imported: SystemExit: 4."),
        "lacking": ("", "cannot be imported: AttributeError: module 'pkg_lacking' has no attribute 'Mine'."),
        "idle": ("Mine = 3", "is no class with a decompose()."),
        "other": (CLASS.format(text="name, paper = 'others', None"), "calls itself 'others'."),
        "nameless": (CLASS.format(text="paper = None"), "calls itself None."),
        "relevance": (CLASS.format(text="name, paper = 'relevance', None"), "has the name of modhub's own."),
    }
    text = CLASS.format(text="name, paper, needs = 'silent', None, 5")
    put_package(place, "b-silent", {"silent": "pkg_silent:Mine"}, {"pkg_silent.py": text})
    for name, (text, _) in wrong.items():
        put_package(place, f"b-{name}", {name: f"pkg_{name}:Mine"}, {f"pkg_{name}.py": text})
    for package in ("c-twin", "d-twin"):
        text = CLASS.format(text="name, paper = 'twin', None")
        put_package(place, package, {"twin": "pkg_twin:Mine"}, {"pkg_twin.py": text})
    report = modhub.methods()
    assert [method.name for method in report.methods] == [*METHODS, "good"]
    twins = [
        f"The method 'twin' of the package '{one} 1.0' has the name of one of the package '{other} 1.0'."
        for one, other in (("c-twin", "d-twin"), ("d-twin", "c-twin"))
    ]
    sentences = {
        name: f"The method '{name}' of the package 'b-{name} 1.0' {said}" for name, (_, said) in wrong.items()
    }
    silent = (
        "The method 'silent' of the package 'b-silent 1.0' cannot be described: TypeError: 'int' object is "
        "not iterable"
    )
    assert sorted(report.unusable) == sorted([*sentences.values(), *twins, silent])
    # None of them is in the way of another; each is named where it is asked for.
    assert method_of("good").name == "good"
    assert type(method_of("relevance")) is METHODS["relevance"]
    for name in wrong.keys() - {"relevance"}:
        with pytest.raises(MethodError) as caught:
            method_of(name)
        assert caught.value.message == sentences[name]
        assert caught.value.hint
    with pytest.raises(MethodError, match=r"has the name of one of the package 'd-twin 1\.0'"):
        method_of("twin")
    with pytest.raises(DataError) as unknown:
        method_of("missing")
    names = ", ".join(sorted({*METHODS, *wrong, "good", "silent", "twin"}))
    assert str(unknown.value) == (
        f"There is no method 'missing'. There are: {names}; one of your own is FILE.py:CLASS."
    )
    capsys.readouterr()
    told = Console(tmp_path, monkeypatch, capsys).good("methods", "--quiet")
    assert told.out.split() == [*METHODS, "good"]


def test_every_method_of_modhub_says_what_it_is() -> None:
    report = modhub.methods()
    own = [method for method in report.methods if method.package == f"modhub {modhub.__version__}"]
    assert [method.name for method in own] == list(METHODS)
    for method in own:
        assert method.summary.endswith(".")
        assert set(method.needs) <= {"labels", "gradients", "training"}
        assert method.cost
        assert (method.paper is None) == (method.citation is None) == (method.url is None), method.name
        for each in method.options:
            assert each.description, f"{method.name}: {each.name}"
        made = method_of(method.name)
        assert {each.name: getattr(made, each.name) for each in method.options} == {
            each.name: each.default for each in method.options
        }


def test_the_list_and_one_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console(tmp_path, monkeypatch, capsys)
    listed = console.good("methods")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["method", *METHODS]
    shown = console.good("methods", "concern").out
    assert "https://arxiv.org/abs/2110.07720" in shown
    assert "\nvariant=BLN      How far back-tracking goes" in shown
    missing = console("methods", "magic")
    assert missing.code == 1
    assert missing.err.startswith("Error: There is no method 'magic'.")


@dataclass(frozen=True, kw_only=True)
class Described(CheckedOptions):
    """Does nothing
    in two lines.

    And more.
    """

    name: ClassVar[str] = "described"
    count: int = option(3, "How many.", minimum=1, maximum=9)
    rate: float | None = option(None, "How fast.", kind=float)
    kind: str = option("a", "Which.", choices=("a", "b"))
    text: str = option("x", "Any.")
    sure: bool = option(False, "Whether.")


@pytest.mark.parametrize(
    ("option_name", "right", "wrong", "wanted"),
    [
        ("count", (1, 9), (0, 10, 3.0, True, None, "3"), "a whole number from 1 to 9"),
        ("rate", (None, 2, 0.5), ("fast", False), "a number"),
        ("kind", ("a", "b"), ("c", 1, None), "one of a, b"),
        ("text", ("", "y"), (1, None, True), "text"),
        ("sure", (True, False), (1, 0, "yes", None), "true or false"),
    ],
)
def test_options_take_what_they_say(
    option_name: str, right: tuple[object, ...], wrong: tuple[object, ...], wanted: str
) -> None:
    for value in right:
        assert getattr(Described(**{option_name: value}), option_name) == value  # type: ignore[arg-type]
    for value in wrong:
        with pytest.raises(DataError) as caught:
            Described(**{option_name: value})  # type: ignore[arg-type]
        assert str(caught.value) == (
            f"The option '{option_name}' of the method 'described' is '{value}'. It should be {wanted}."
        )


def test_what_a_class_says_of_itself() -> None:
    told = described(Described, "here 1")
    assert told.summary == "Does nothing in two lines."
    assert [(each.name, each.type, each.default) for each in told.options] == [
        ("count", "integer", 3),
        ("rate", "number", None),
        ("kind", "text", "a"),
        ("text", "text", "x"),
        ("sure", "boolean", False),
    ]

    class Plain:
        name, paper = "plain", "https://example.org/paper"

        def __init__(self, share: float = 0.5, *rest: int, odd: object = (), **more: int) -> None: ...

        def decompose(self) -> None: ...

    told = described(Plain, "there 2")
    assert (told.summary, told.needs, told.cost) == ("", (), None)
    assert [(each.name, each.type, each.default) for each in told.options] == [
        ("share", "number", 0.5),
        ("odd", "text", None),
    ]


@pytest.mark.parametrize(
    ("paper", "url"),
    [
        (None, None),
        ("arXiv:2110.07720", "https://arxiv.org/abs/2110.07720"),
        ("https://doi.org/10.1/2", "https://doi.org/10.1/2"),
        ("Proceedings, p. 7", None),
    ],
)
def test_where_a_paper_is_read(paper: str | None, url: str | None) -> None:
    assert url_of(paper) == url


def test_the_example_says_where_its_method_is() -> None:
    place = EXAMPLE / "pyproject.toml"
    assert 'activity = "modhub_activity:Activity"' in place.read_text(encoding="utf-8")
    assert importlib.metadata.entry_points(group="modhub.methods").names.isdisjoint(METHODS)
