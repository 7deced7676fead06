"""Which class a name means, and the path component, tag and ref of a label."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modhub.errors import RefError
from modhub.labels import LabelIndex, nearest_labels, slug_of, slugs_of, tag_words_of
from modhub.refs import Ref, RepositoryId, is_text, misleading


def meant(name, labels, aliases=(), slugs=None):
    return [labels[place] for place in LabelIndex(labels, aliases, slugs).find(name)]


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("cat", ["Cat", "cat"], ["cat"]),
        ("CAT", ["cat"], ["cat"]),
        ("CAT", ["cat", "Cat"], ["cat", "Cat"]),
        ("a", ["A"], ["A"]),
        ("A", ["a", "A"], ["A"]),
        ("Aquarium-Fish", ["aquarium_fish"], ["aquarium_fish"]),
        ("aquarium fish", ["aquarium_fish", "Aquarium fish"], ["Aquarium fish"]),
        ("aquarium-fish", ["aquarium_fish", "aquarium fish"], ["aquarium_fish", "aquarium fish"]),
        ("crane bird", ["crane (bird)"], ["crane (bird)"]),
        ("tench-tinca-tinca", ["tench, Tinca tinca"], ["tench, Tinca tinca"]),
        ("cafe\u0301", ["café"], ["café"]),
        # signs tell classes apart
        ("C", ["C++"], []),
        ("c", ["C++", "C#"], []),
        ("C code", ["C++ code"], []),
        ("c-code", ["C++ code"], []),
        ("5", ["+5"], []),
        ("5", ["-5", "−5", "5%", ".5", "#5"], []),
        ("A", ["A-", "A+"], []),
        ("1-2", ["1/2"], []),
        ("15", ["1.5"], []),
        ("at 5", ["at -5"], []),
        # so do places: x² is handwriting, too, as is a number in a circle
        ("2", ["²"], []),
        ("²", ["2"], []),
        ("x 22", ["x 2²"], []),
        ("①", ["1", "①"], ["①"]),
        ("1", ["①", "₁"], []),
        # marks and accents, too
        ("बेल", ["बाल"], []),
        ("สนข", ["สุนัข"], []),
        ("cafe", ["café"], []),
        ("ISTANBUL", ["İstanbul"], []),
        # slugs stand for what a ref of 0.1 could not hold, and for signs
        ("either-or", ["either/or"], ["either/or"]),
        ("a-b", ["a=b"], ["a=b"]),
        ("plus-sign", ["+"], ["+"]),
        ("plus sign", ["+", "plus sign"], ["plus sign"]),
    ],
)
def test_which_class_a_name_means(name, labels, expected):
    assert meant(name, labels) == expected


def test_a_label_wins_over_an_alias_and_both_over_a_counted_slug():
    assert meant("cat", ["tabby", "cat"], [["cat"], []]) == ["cat"]
    assert meant("Cat", ["tabby", "dog"], [["cat"], ["cat"]]) == ["tabby", "dog"]
    labels = ["C", "C++", "C 2"]
    assert slugs_of(labels) == ("c", "c-2", "c-2-2")
    assert meant("c-2", labels, slugs=slugs_of(labels)) == ["C 2"]
    assert meant("c-2", labels[:2], slugs=slugs_of(labels[:2])) == ["C++"]


@pytest.mark.parametrize(
    ("label", "slug"),
    [
        ("Great white shark", "great-white-shark"),
        ("C++", "c"),
        ("5%", "5"),
        ("Straße", "strasse"),
        ("ﬁsh №5", "fish-no5"),
        ("犬", "犬"),
        ("बेल", "बेल"),
        ("สุนัข", "สุนัข"),
        ("நாய்", "நாய்"),
        ("cafe\u0301", "café"),
        ("+", "plus-sign"),
        ("−", "minus-sign"),
        ("=", "equals-sign"),
        ("😀", "grinning-face"),
        ("<3", "3"),
        ("犬" * 150, "犬" * 80),
        ("x" * 150, "x" * 96),
    ],
)
def test_slugs(label, slug):
    assert slug_of(label) == slug


@pytest.mark.parametrize("label", ["", "  ", "\u3000"])
def test_blanks_have_no_slug(label):
    with pytest.raises(RefError) as caught:
        slug_of(label)
    assert str(caught.value) == f"The label {label!r} has no visible character. Give the class another label."


LABELS = st.text(
    st.one_of(
        st.sampled_from("aAbBzZß ñ犬-_'\"[]{}#.,+−=/@<>!~%25 ABİŉǰΐͅबाेุ้️😀①½"),
        st.characters(exclude_categories=("Cs", "Cc")),
    ),
    min_size=1,
    max_size=12,
).filter(lambda text: bool(text.strip()) and is_text(text) and misleading(text) is None)


@given(LABELS)
def test_slugs_fit_a_path_and_stay(label):
    slug = slug_of(label)
    assert slug_of(slug) == slug
    assert unicodedata.is_normalized("NFC", slug)
    assert len(slug.encode()) <= 240
    assert "/" not in slug


def slug_of_0_1(label):
    """As `modhub.refs` of 0.1.0 had it."""
    text = unicodedata.normalize("NFKC", label).casefold()
    return "-".join(re.findall(r"[^\W_]+", text))[:96].strip("-")


@given(LABELS)
def test_published_slugs_stay(label):
    """A slug changes only where 0.1 had none, where it dropped a mark, or where it is too long for a path."""
    before = slug_of_0_1(label)
    folded = unicodedata.normalize("NFKC", label).casefold()
    marked = any(unicodedata.category(sign) in ("Mn", "Mc") for sign in folded)
    if before and not marked and len(before.encode()) <= 240:
        assert slug_of(label) == before
    assert not before or before in tag_words_of(label)


@given(LABELS, LABELS)
def test_what_a_manifest_matches_has_the_tag_that_is_looked_for(name, label):
    for other in (name, name.upper(), name.lower(), label.upper(), unicodedata.normalize("NFD", label)):
        if meant(other, [label]):
            assert slug_of(label) in tag_words_of(other)


@given(LABELS, st.sampled_from(["", "lab/net"]), st.sampled_from(["", ">=1,<2"]))
def test_every_label_fits_a_ref(label, repository, specifier):
    ref = Ref.parse(f"lab/net/x{specifier}")
    ref = Ref(RepositoryId.parse(repository) if repository else None, label, ref.specifier)
    assert Ref.parse(str(ref)) == ref
    assert str(Ref.parse(str(ref))) == str(ref)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("cat", "lab/net/cat"),
        ("a=b", "lab/net/a%3Db"),
        ("user@host", "lab/net/user%40host"),
        ("either/or", "lab/net/either%2For"),
        (" x ", "lab/net/%20x%20"),
        ("100%", "lab/net/100%"),
        ("a%3Db", "lab/net/a%253Db"),
    ],
)
def test_refs_of_labels(label, text):
    assert str(Ref(RepositoryId("lab", "net"), label)) == text
    assert Ref.parse(text).label == label


def test_the_nearest_labels_whatever_separates_their_words():
    labels = ["tench, Tinca tinca", "tabby, tabby cat", "dog"]
    assert nearest_labels("taby tabby cat", labels) == ["tabby, tabby cat"]
    assert nearest_labels("zebra", labels) == []
