import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest

from modhub.api.add import add
from modhub.api.project_files import read_project
from modhub.api.remove import remove
from modhub.project import toml
from modhub.project.lock import Lock
from tests.support.console import Console
from tests.support.paper import write_paper_artifact


@pytest.fixture
def modhub(tmp_path, monkeypatch, capsys):
    console = Console(tmp_path, monkeypatch, capsys)
    write_paper_artifact(tmp_path / "one", {"cat": 0.8, "dog": 0.7})
    write_paper_artifact(tmp_path / "two", {"cat": 0.85}, trunk="new")
    write_paper_artifact(tmp_path / "zoo", {"dog": 0.9, "newt": None}, trunk="zoo", licence="gpl-3.0")
    console.good("push", "one", "lab/pets", "--version", "1.0.0")
    console.good("push", "zoo", "zoo/big", "--version", "2.0")
    console.good("init", "work")
    console.go(tmp_path / "work")
    return console


def test_from_init_to_tree(modhub):
    assert modhub.good("add", "cat=lab/pets/cat", "dog").out == "added cat = lab/pets/cat\nadded dog = *\n"
    report = modhub.good("lock", "--json").json
    assert report["changes"] == [
        {"label": "cat", "before": None, "after": "lab/pets 1.0.0"},
        {"label": "dog", "before": None, "after": "lab/pets 1.0.0"},
    ]
    assert Lock.from_bytes(Path("modhub.lock").read_bytes()).to_bytes() == Path("modhub.lock").read_bytes()
    assert modhub.good("lock").err.endswith("next: modhub compose -o build\n")
    Path("build").mkdir()
    assert modhub.good("lock").err.endswith("next: modhub compose -o build2\n"), "build stands there"
    Path("build").rmdir()
    tree = modhub.good("tree", "--json").json
    assert (tree["name"], tree["passes"]) == ("work", 1)
    assert modhub.good("tree").out == (
        "work\n"
        "└── trunk 01d22092d8ce (lab/pets)\n"
        "    ├── cat = lab/pets/cat 1.0.0\n"
        "    └── dog = lab/pets/dog 1.0.0\n"
    )


def test_what_stands_there_already_may_be_added_again(modhub):
    modhub.good("add", "cat=lab/pets/cat")
    before = Path("modhub.toml").read_bytes()
    again = modhub.good("add", "cat=lab/pets/cat")
    assert (again.out, again.err.splitlines()[0]) == (
        "",
        "Nothing to add: modhub.toml already has these modules.",
    )
    assert modhub.good("add", "cat=lab/pets/cat", "--json").json == {"added": []}
    assert Path("modhub.toml").read_bytes() == before
    assert modhub.good("add", "lab/pets").out == "added dog = lab/pets/dog\n"
    other = modhub("add", "cat=lab/pets/dog")
    assert other.code == 1
    assert "Two modules of this composition are called 'cat': lab/pets/cat and lab/pets/dog." in other.err


def test_lock_is_stable_until_upgraded(modhub):
    modhub.good("add", "lab/pets/cat")
    modhub.good("lock")
    before = Path("modhub.lock").read_bytes()
    modhub.good("push", "../two", "lab/pets", "--version", "2.0.0")
    assert modhub.good("lock").out == ""
    assert Path("modhub.lock").read_bytes() == before
    assert modhub.good("lock", "--upgrade").out == "cat: lab/pets 1.0.0 → lab/pets 2.0.0\n"
    assert modhub.good("diff", "../work", "modhub.lock").out == "No differences.\n"


def test_lock_names_no_place(modhub):
    modhub.good("add", "lab/pets")
    modhub.good("lock")
    text = Path("modhub.lock").read_text()
    assert str(modhub.hub) not in text
    assert [module["label"] for module in json.loads(text)["modules"]] == ["cat", "dog"]


def test_remove(modhub):
    modhub.good("add", "lab/pets", "newt=zoo/big/newt>=1")
    assert modhub.good("remove", "cat", "newt").out == "removed cat\nremoved newt\n"
    modhub.good("lock")
    assert modhub.good("tree", "-q").code == 0
    assert modhub("tree", "--json").json["trunks"][0]["modules"][0]["label"] == "dog"


@pytest.mark.parametrize("edit", ["add_want", "remove_want"])
def test_edits_at_the_same_time_are_all_kept(modhub, monkeypatch, edit):
    here = Path()
    add(here, ["cat=lab/pets/cat", "dog=lab/pets/dog"])
    change, meeting = getattr(toml, edit), Barrier(2)

    def slow(text, what):
        # Two who have read the file meet here; one alone goes on after a while.
        with suppress(BrokenBarrierError):
            meeting.wait(0.5)
        return change(text, what)

    monkeypatch.setattr(f"modhub.api.{edit.partition('_')[0]}.{edit}", slow)
    with ThreadPoolExecutor() as pool:
        if edit == "add_want":
            tasks = [pool.submit(add, here, [f"{name}=a/b/c"]) for name in ("one", "two")]
        else:
            tasks = [pool.submit(remove, here, [name]) for name in ("cat", "dog")]
        assert [task.exception() for task in tasks] == [None, None]
    labels = {want.label for want in read_project(here).wants}
    assert labels == ({"cat", "dog", "one", "two"} if edit == "add_want" else set())
    assert [path.name for path in here.iterdir()] == ["modhub.toml"]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([("lock",)], "Error: The composition 'work' has no modules.\nAdd one with: modhub add LABEL=REF\n"),
        ([("tree",)], "Error: There is no modhub.lock here.\nWrite it with: modhub lock\n"),
        (
            [("add", "cat=a/b/c/d")],
            "Error: 'a/b/c/d' is not a ref: it has 4 parts.\n"
            "A ref is namespace/name[/label][>=1.2,<2 | @revision], or a bare label such as 'cat'.\n",
        ),
        (
            [("add", "cat=lab/pets/cat"), ("add", "cat=zoo/big/newt")],
            "Error: Two modules of this composition are called 'cat': lab/pets/cat and zoo/big/newt.\n"
            "Give one of them another label (label=REF) or leave it out.\n",
        ),
        (
            [("add", "cat=lab/pets/cat"), ("remove", "cow")],
            "Error: There is no module 'cow' in modhub.toml.\nIt has: cat.\n",
        ),
        (
            [("add", "cat=lab/pets/cow"), ("lock",)],
            "Error: There is no class 'cow' in lab/pets 1.0.0.\nNearest: cat, dog.\n",
        ),
        (
            [("add", "cat=lab/pets/cat>=7"), ("lock",)],
            "Error: 'lab/pets' has no release that matches '>=7'.\nReleases: 1.0.0.\n",
        ),
        (
            [("add", "lab/pets/cat==1.0.0"), ("lock",), ("add", "dog"), ("tree",)],
            "Error: modhub.lock does not belong to modhub.toml as it stands: it lacks 'dog'.\n"
            "Bring it up to date with: modhub lock\n",
        ),
        (
            [("add", "lab/pets"), ("lock",), ("remove", "dog"), ("tree",)],
            "Error: modhub.lock does not belong to modhub.toml as it stands: it has 'dog', which is no "
            "longer wanted.\nBring it up to date with: modhub lock\n",
        ),
        (
            [("add", "cat=lab/pets/cat"), ("lock",), ("remove", "cat"), ("add", "cat"), ("tree",)],
            "Error: modhub.lock does not belong to modhub.toml as it stands: it has 'cat = lab/pets/cat' "
            "where 'cat = *' is wanted.\nBring it up to date with: modhub lock\n",
        ),
        (
            [("add", "lab/pets"), ("lock",), ("remove", "cat"), ("add", "lab/pets/cat"), ("tree",)],
            "Error: modhub.lock does not belong to modhub.toml as it stands: the constraints, the hubs or "
            "the order of the modules changed.\nBring it up to date with: modhub lock\n",
        ),
        (
            [("init",)],
            "Error: 'modhub.toml' exists already.\nAdd modules to it with: modhub add LABEL=REF\n",
        ),
    ],
)
def test_one_sentence_and_what_to_do(modhub, steps, message):
    for step in steps[:-1]:
        modhub.good(*step)
    before = Path("modhub.toml").read_bytes()
    result = modhub(*steps[-1], "-q")
    assert (result.code, result.out, result.err) == (1, "", message)
    assert Path("modhub.toml").read_bytes() == before


def test_a_conflict_is_one_paragraph(modhub):
    modhub.good("push", "../two", "lab/pets", "--version", "2.0.0")
    modhub.good("add", "lab/pets/cat>=2", "lab/pets/dog<2")
    result = modhub("lock", "-q")
    assert (result.code, result.err) == (
        1,
        "Error: 'cat = lab/pets/cat>=2' and 'dog = lab/pets/dog<2' cannot be met together, because all "
        "modules of one repository come from one release, so that they share a trunk: "
        "'cat = lab/pets/cat>=2' is met by 2.0.0, while 'dog = lab/pets/dog<2' is met by 1.0.0.\n"
        "Relax one of them, or take one of the classes from another repository.\n",
    )
    assert not Path("modhub.lock").exists()


def test_constraints(modhub):
    modhub.good("add", "dog")
    text = Path("modhub.toml").read_text().replace('# licenses = ["mit"]', 'licenses = ["mit"]')
    Path("modhub.toml").write_text(text.replace("# min-recall = 0.8", "min-recall = 0.8"))
    result = modhub("lock", "-q")
    assert result.err == (
        "Error: No provider of 'dog = *' will do: the recall of 'dog' in lab/pets 1.0.0 is 0.700; "
        "the licence of zoo/big 2.0 is 'gpl-3.0'.\n"
        "Relax [constraints] in modhub.toml, or name a repository.\n"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("version", "one"), ("ref", "a/b/c/d"), ("repository", "pets"), ("files", [{"path": "../x"}])],
)
def test_a_lock_edited_by_hand_is_named_and_written_anew(modhub, key, value):
    modhub.good("add", "lab/pets/cat")
    modhub.good("lock")
    whole = Path("modhub.lock").read_bytes()
    document = json.loads(whole)
    if key == "files":
        value = [{**document["modules"][0]["files"][0], **value[0]}]
    document["modules"][0][key] = value
    Path("modhub.lock").write_text(json.dumps(document))
    told = modhub("tree", "-q")
    assert told.code == 1
    assert told.err.startswith("Error: modhub.lock is damaged: ")
    assert told.err.endswith("\nWrite the lock again with: modhub lock\n")
    modhub.good("lock", "-q")
    assert Path("modhub.lock").read_bytes() == whole


def test_a_damaged_lock_is_written_anew(modhub):
    modhub.good("add", "lab/pets/cat")
    modhub.good("lock")
    whole = Path("modhub.lock").read_bytes()
    Path("modhub.lock").write_bytes(whole[:50])
    result = modhub.good("lock", "-q")
    assert "is not valid JSON" in result.err
    assert result.err.endswith("It is written anew.\n")
    assert Path("modhub.lock").read_bytes() == whole


def test_a_project_file_keeps_its_link_mark_and_line_ends(tmp_path, modhub):
    home = tmp_path / "work"
    modhub.good("add", "cat=a/b/cat")
    text = (home / "modhub.toml").read_text()
    (home / "elsewhere").mkdir()
    place = home / "elsewhere" / "modhub.toml"
    (home / "modhub.toml").rename(place)
    (home / "modhub.toml").symlink_to(place)
    place.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    modhub.good("add", "dog=a/b/dog")
    modhub.good("remove", "cat")
    assert (home / "modhub.toml").is_symlink()
    content = place.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf#")
    assert content.count(b"\n") == content.count(b"\r\n") == text.count("\n")


MARKED = '{\n<<<<<<< HEAD\n  "schema_version": 1\n=======\n  "schema_version": 1\n>>>>>>> other\n}\n'


def test_marks_of_a_merge_conflict_are_named(tmp_path, modhub):
    home = tmp_path / "work"
    modhub.good("add", "cat=a/b/cat")
    (home / "modhub.lock").write_text(MARKED)
    for command in (("compose", "--locked", "-o", "build"), ("tree",)):
        said = modhub(*command)
        assert (said.code, said.err.splitlines()) == (
            1,
            [
                "Error: modhub.lock has the marks of a merge conflict, the first in line 2.",
                "Write the lock again with: modhub lock",
            ],
        )
    toml = (home / "modhub.toml").read_text()
    (home / "modhub.toml").write_text(f"<<<<<<< HEAD\n{toml}=======\n{toml}>>>>>>> other\n")
    said = modhub("add", "dog=a/b/dog")
    assert (said.code, said.err.splitlines()) == (
        1,
        ["Error: modhub.toml has the marks of a merge conflict, the first in line 1.", "Mend it there."],
    )
