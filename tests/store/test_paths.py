import pytest
from hypothesis import given
from hypothesis import strategies as st

from modhub.errors import IntegrityError, ModhubError, RefError
from modhub.store.paths import check_path, check_ref_name
from modhub.store.records import RepositoryKey


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        ".gitattributes",
        "a/b/c.bin",
        "modules/größe/module.json",
        "猫/x",
        "a b/c",
        "x" * 240,
        "v1..2",
    ],
)
def test_paths_that_every_system_can_store(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "it is empty"),
        ("/etc/passwd", "it is absolute"),
        ("C:/x", "it is absolute"),
        ("a\\b", "it has a backslash"),
        ("..", "it has an empty, '.' or '..' part"),
        ("a/../../b", "it has an empty, '.' or '..' part"),
        ("a//b", "it has an empty, '.' or '..' part"),
        ("a/", "it has an empty, '.' or '..' part"),
        ("./a", "it has an empty, '.' or '..' part"),
        ("a\0b", "it has the character U+0000"),
        ("a\nb", "it has the character U+000A"),
        ("a\u202eb", "it has the character U+202E"),
        ("a\u200bb", "it has the character U+200B"),
        ("a\ud800b", "it has the character U+D800"),
        ("u\u0308", "its Unicode is not in normal form C"),
        (".git/config", "'.git' is reserved"),
        ("a/.GIT/hooks/x", "'.git' is reserved"),
        ("a/.git. ", "'.git' is reserved"),
        ("a /b", "a part begins or ends with a space or ends with a dot"),
        ("a./b", "a part begins or ends with a space or ends with a dot"),
        ("é" * 121, "a part has more than 240 bytes"),
        ("a/" * 300 + "a", "it has 601 characters, 500 are allowed"),
    ],
)
def test_paths_that_are_refused(path: str, why: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        check_path(path)
    shown = path if len(path) <= 80 else path[:77] + "…"
    assert caught.value.message == f"Invalid path {shown!r}: {why}."


@given(st.text(max_size=600))
def test_an_allowed_path_stays_inside_and_a_refused_one_says_so(path: str) -> None:
    try:
        check_path(path)
    except IntegrityError:
        return
    path.encode()
    assert not path.startswith("/")
    assert {".", "..", ""}.isdisjoint(path.split("/"))


@pytest.mark.parametrize("name", ["main", "v1.0.0", "feature/x", "v1.0.0+cpu", "a"])
def test_branch_names(name: str) -> None:
    assert check_ref_name(name, "branch") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "HEAD",
        "refs/heads/x",
        "a..b",
        "/a",
        "a/",
        "a//b",
        "-a",
        "a.lock",
        ".a",
        "a b",
        "é",
        "0" * 40,
        "a" * 300,
    ],
)
def test_branch_names_that_are_refused(name: str) -> None:
    with pytest.raises(RefError, match="Invalid branch name"):
        check_ref_name(name, "branch")


def test_names_that_differ_only_in_case_are_one_repository() -> None:
    assert RepositoryKey.model("Lab/Net") == RepositoryKey.model("lab/nET")
    assert len({RepositoryKey.model("Lab/Net"), RepositoryKey.model("lab/nET")}) == 1
    with pytest.raises(ModhubError, match="'space' is not a kind of repository"):
        RepositoryKey("space", RepositoryKey.model("a/b").id)
