import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modhub.errors import CompositionError, ManifestError, ModhubError, RefError
from modhub.project.toml import Constraints, Project, Want, add_want, new_project, remove_want
from modhub.refs import Ref, RepositoryId

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas/composition.schema.json").read_text())

PETS = """\
# our pets
[composition]
name = "pets"

[modules]
cat = "lab/r20/cat>=1,<2"   # the old one
puma = {ref = "zoo/big/mountain lion"}
"great white" = "sea/fish"
dog = "*"
bird = ">=2"

[constraints]
licenses = ["MIT", "bsd-2-clause"]
min-recall = 0.8
max-trunks = 2
"""


def test_reads_every_form():
    project = Project.from_toml(PETS)
    assert project.name == "pets"
    assert [(want.label, str(want.ref)) for want in project.wants] == [
        ("cat", "lab/r20/cat<2,>=1"),
        ("puma", "zoo/big/mountain lion"),
        ("great white", "sea/fish/great white"),
        ("dog", "dog"),
        ("bird", "bird>=2"),
    ]
    assert project.constraints == Constraints(("bsd-2-clause", "mit"), 0.8, 2)
    jsonschema.validate(tomllib.loads(PETS), SCHEMA)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[modules]", ManifestError, "modhub.toml has no 'composition'. Mend it there."),
        (
            '[composition]\nname="a"\n[modules]\ncat="x/y/cat"\ncat="x/y/cat"',
            ManifestError,
            None,
        ),
        (
            '[composition]\nname="a"\n[modules]\ncat="x/y/cat"\nCat="x/z/cat"',
            CompositionError,
            "Two modules of this composition are called 'Cat': x/y/cat and x/z/cat. "
            "Give one of them another label (label=REF) or leave it out.",
        ),
        (
            '[composition]\nname="a"\n[modules]\n[constraints]\nmin_recall=0.5',
            ManifestError,
            "There is an unknown key 'min_recall' in 'constraints' in modhub.toml. "
            "Did you mean 'min-recall'?",
        ),
        (
            '[composition]\nname="a"\n[modules]\n[constraints]\nmin-recall=80',
            ManifestError,
            "'min-recall' in 'constraints' in modhub.toml is 80; it should be 0 to 1. Mend it there.",
        ),
        (
            '[composition]\nname="a"\ntoken="hf_x"\n[modules]',
            ManifestError,
            "There is an unknown key 'token' in 'composition' in modhub.toml. Known are: name.",
        ),
        (
            '[composition]\nname="a"\n[modules]\ncat=1',
            ManifestError,
            "'cat' in 'modules' in modhub.toml should be a ref, not 1. "
            'Write it in quotes, for instance "namespace/name/label>=1", or "*".',
        ),
        (
            '[composition]\nname="a"\n[modules]\ncat="a/b/c/d"',
            ManifestError,
            "'cat' in 'modules' in modhub.toml: 'a/b/c/d' is not a ref: it has 4 parts. "
            "A ref is namespace/name[/label][>=1.2,<2 | @revision], or a bare label such as 'cat'.",
        ),
        (
            '[composition]\nname="a"\n[modules]\n" "="*"',
            ManifestError,
            "' ' in 'modules' in modhub.toml: The label ' ' has 1 characters; a label has 1 to 200 and is "
            "not blank. Give the class another label.",
        ),
    ],
)
def test_mistakes_are_named(text, error, message):
    with pytest.raises(error) as caught:
        Project.from_toml(text)
    if message is None:
        assert "is not valid TOML" in str(caught.value)
        assert caught.value.hint == (
            'Mend it there; a module is a line such as: cat = "namespace/name/cat", one per label'
        )
    else:
        assert str(caught.value) == message


def test_edits_keep_everything_else():
    added = add_want(PETS, Want.parse("newt", "pond/amphibia/newt==1.0"))
    assert set(added.splitlines()) - set(PETS.splitlines()) == {'newt = "pond/amphibia/newt==1.0"'}
    assert "# the old one" in added
    assert remove_want(added, "newt") == PETS
    assert [want.label for want in Project.from_toml(remove_want(PETS, "great white")).wants] == [
        "cat",
        "puma",
        "dog",
        "bird",
    ]


def test_edits_refuse():
    with pytest.raises(CompositionError) as taken:
        add_want(PETS, Want.parse("cat", "*"))
    assert str(taken.value) == (
        "Two modules of this composition are called 'cat': lab/r20/cat<2,>=1 and cat. "
        "Give one of them another label (label=REF) or leave it out."
    )
    with pytest.raises(CompositionError) as missing:
        remove_want(PETS, "dig")
    assert str(missing.value) == "There is no module 'dig' in modhub.toml. It has: dog."
    assert remove_want(PETS, "Great-White") == remove_want(PETS, "great white")
    with pytest.raises(CompositionError) as empty:
        remove_want(new_project("x"), "dig")
    assert str(empty.value) == "There is no module 'dig' in modhub.toml. It has none."


def test_from_python():
    by_label = Project.of({"cat": "lab/r20", "dog": "*"})
    by_ref = Project.of(["lab/r20/cat", "dog"])
    assert by_label.wants == by_ref.wants
    with pytest.raises(RefError, match=r"^'lab/r20' names no class\. Write lab/r20/<label>\.$"):
        Project.of(["lab/r20"])


@given(st.text(min_size=1, max_size=50))
def test_any_name_survives(name):
    assert Project.from_toml(new_project(name)).name == name


@pytest.mark.parametrize(
    ("refs", "accepted"),
    [
        (["lab/emnist/A", "lab/emnist/a"], True),
        (["A", "a"], True),
        (["lab/emnist/a", "lab/other/a"], False),
        (["lab/emnist/A", "lab/emnist/a", "lab/other/a"], False),
    ],
)
def test_labels_that_differ_in_case_may_be_two_classes(refs, accepted):
    if accepted:
        assert [want.label for want in Project.of(refs).wants] == ["A", "a"]
    else:
        with pytest.raises(CompositionError, match=r"^Two modules of this composition are called 'a': "):
            Project.of(refs)


@pytest.mark.parametrize("label", ["a=b", "user@host", "either/or", " x", "100%", "a%3Db", "<=>"])
def test_every_label_may_be_wanted(label):
    for text in ("*", ">=1", "lab/net", str(Ref(RepositoryId("lab", "net"), label))):
        want = Want.parse(label, text)
        assert (want.label, want.ref.label) == (label, label)
        assert Want.parse(label, want.text) == want
        assert Project.from_toml(add_want(new_project("x"), want)).wants == (want,)


def test_a_star_may_have_a_specifier():
    assert Want.parse("cat", "* >=1,<2") == Want.parse("cat", ">=1,<2") == Want.parse("cat", "cat>=1,<2")


LABELS = st.text(st.sampled_from("abz ñ犬-'\"[]{}#.,"), min_size=1, max_size=8).filter(
    lambda text: text == text.strip()
)


@given(
    st.lists(LABELS, unique_by=str.casefold, max_size=4),
    st.sampled_from(["*", "a/b/cat", "a/b", "a/b/cat>=1", ">=1", "*>=1,<2", "a/b/cat@v1.0"]),
)
def test_what_is_added_is_read_back_and_removed(labels, text):
    content = new_project("x")
    wants = []
    for label in labels:
        try:
            want = Want.parse(label, text)
        except ModhubError:
            continue
        content = add_want(content, want)
        wants.append(want)
        assert Want.parse(want.label, want.text) == want
    assert Project.from_toml(content).wants == tuple(wants)
    for want in wants:
        content = remove_want(content, want.label)
    assert Project.from_toml(content).wants == ()
