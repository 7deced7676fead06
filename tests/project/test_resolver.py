import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from modhub.catalog.releases import Release
from modhub.errors import ManifestError, ModhubError, NotFoundError, OfflineError, ResolutionError
from modhub.project.resolver import Preferences, resolve
from modhub.project.toml import Constraints, Project
from modhub.refs import RepositoryId, parse_version
from tests.support.shelf import Shelf, digest


def picks(shelf, modules, prefer=None, **constraints):
    resolution = resolve(
        Project("t", Project.of(modules).wants, Constraints(**constraints)),
        shelf,
        prefer=prefer,
        nearest=shelf.nearest,
    )
    return {module.want.label: f"{module.repository} {module.release}" for module in resolution.modules}


@pytest.fixture
def shelf():
    shelf = Shelf()
    shelf.put("lab/r20", "1.0.0", {"cat": 0.8, "dog": 0.7, "frog": 0.9}, trunk="old")
    shelf.put("lab/r20", "1.1.0", {"cat": 0.85, "dog": 0.75}, trunk="old")
    shelf.put("lab/r20", "2.0.0", {"cat": 0.9, "dog": 0.8}, trunk="new")
    shelf.put("lab/r20", "2.1.0", {"cat": 0.9, "dog": 0.8}, trunk="new", yanked="wrong labels")
    shelf.put("lab/r20", "3.0rc1", {"cat": 0.9}, trunk="new")
    shelf.put("zoo/big", "1.0.0", {"dog": 0.95, "lion": 0.6}, licence="gpl-3.0")
    shelf.put("zoo/small", "1.0.0", {"dog": None, "newt": 0.5}, licence=None)
    return shelf


@pytest.mark.parametrize(
    ("modules", "options", "expected"),
    [
        (["lab/r20/cat"], {}, {"cat": "lab/r20 2.0.0"}),
        (["lab/r20/cat<2"], {}, {"cat": "lab/r20 1.1.0"}),
        (["lab/r20/cat<2", "lab/r20/dog"], {}, {"cat": "lab/r20 1.1.0", "dog": "lab/r20 1.1.0"}),
        (["lab/r20/cat", "lab/r20/frog"], {}, {"cat": "lab/r20 1.0.0", "frog": "lab/r20 1.0.0"}),
        (["lab/r20/cat==2.1.0"], {}, {"cat": "lab/r20 2.1.0"}),
        (["lab/r20/cat==2.1"], {}, {"cat": "lab/r20 2.1.0"}),
        (["lab/r20/cat==v2.1.0"], {}, {"cat": "lab/r20 2.1.0"}),
        (["lab/r20/cat===2.1.0"], {}, {"cat": "lab/r20 2.1.0"}),
        (["lab/r20/cat@v2.1.0"], {}, {"cat": "lab/r20 2.1.0"}),
        (["lab/r20/cat==2.*"], {}, {"cat": "lab/r20 2.0.0"}),
        (["lab/r20/cat>=3.0rc1"], {}, {"cat": "lab/r20 3.0rc1"}),
        # nothing in the composition yet: the best recall wins
        (["dog"], {}, {"dog": "zoo/big 1.0.0"}),
        (["dog"], {"licenses": ("mit",)}, {"dog": "lab/r20 2.0.0"}),
        # the trunk is there already: no second pass for the dog
        (["lab/r20/cat", "dog"], {}, {"cat": "lab/r20 2.0.0", "dog": "lab/r20 2.0.0"}),
        (["lab/r20/cat", "dog"], {"min_recall": 0.9}, {"cat": "lab/r20 2.0.0", "dog": "zoo/big 1.0.0"}),
        (["dog", "newt"], {"max_trunks": 1}, {"dog": "zoo/small 1.0.0", "newt": "zoo/small 1.0.0"}),
        # a bare label may move a named repository to an older release
        (["lab/r20/cat", "frog"], {}, {"cat": "lab/r20 1.0.0", "frog": "lab/r20 1.0.0"}),
    ],
)
def test_rules(shelf, modules, options, expected):
    assert picks(shelf, modules, **options) == expected
    assert picks(shelf, modules[::-1], **options) == expected


def test_a_tag_and_the_commit_it_marks_are_one_pin(shelf):
    stored = shelf.stored[RepositoryId.parse("lab/r20")]
    release, held = stored[2]
    assert str(release) == "2.0.0"
    stored.insert(0, (Release(parse_version("2.0.1"), release.commit), held))
    by_commit = f"lab/r20/cat@{release.commit}"
    assert picks(shelf, [by_commit]) == {"cat": "lab/r20 2.0.1"}
    for modules in ([by_commit, "lab/r20/dog@v2.0.0"], ["lab/r20/dog@v2.0.0", by_commit]):
        assert picks(shelf, modules) == {"cat": "lab/r20 2.0.0", "dog": "lab/r20 2.0.0"}
    with pytest.raises(ResolutionError, match=" cannot be met together, "):
        picks(shelf, [by_commit, "lab/r20/dog@v1.0.0"])


def test_a_repository_is_one_however_its_case_is_written(shelf):
    wants = {"cat": "lab/r20/cat<2", "dog": "Lab/R20/dog", "frog": "*"}
    expected = {"cat": "Lab/R20 1.0.0", "dog": "Lab/R20 1.0.0", "frog": "Lab/R20 1.0.0"}
    assert picks(shelf, wants) == expected
    assert picks(shelf, dict(reversed(wants.items()))) == expected
    old = next(r for r in shelf.releases(RepositoryId.parse("lab/r20")) if str(r) == "1.1.0")
    prefer = Preferences({RepositoryId.parse("LAB/r20"): old.commit})
    assert picks(shelf, ["lab/r20/cat"], prefer) == {"cat": "lab/r20 1.1.0"}
    with pytest.raises(ResolutionError, match="all modules of one repository come from one release"):
        picks(shelf, {"cat": "lab/r20/cat==1.0.0", "dog": "Lab/R20/dog==2.0.0"})


class Spoilt(Shelf):
    """A shelf on which the releases of 'evil/refs' and the manifests of 'evil/files' cannot be read."""

    refs = ManifestError("yanked.json is bad.")
    files: ModhubError = ManifestError("modhub.json is bad.")

    def releases(self, repository):
        if f"{repository}" == "evil/refs":
            raise self.refs
        return super().releases(repository)

    def manifest(self, repository, commit):
        if f"{repository}" == "evil/files":
            raise self.files
        return super().manifest(repository, commit)


def test_a_provider_that_cannot_be_read_is_none_but_a_named_one_fails():
    shelf = Spoilt()
    for name in ("evil/refs", "evil/files"):
        shelf.put(name, "1.0.0", {"cat": 1.0, "dog": 1.0})
    with pytest.raises(ResolutionError) as caught:
        picks(shelf, ["cat"])
    assert caught.value.message == (
        "No provider of 'cat = *' will do: evil/refs cannot be read (yanked.json is bad); "
        "evil/files 1.0.0 cannot be read (modhub.json is bad)."
    )
    shelf.put("good/cats", "1.0.0", {"cat": 0.5})
    assert picks(shelf, ["cat"]) == {"cat": "good/cats 1.0.0"}
    for name, error in (("evil/refs", shelf.refs), ("evil/files", shelf.files)):
        with pytest.raises(ManifestError) as caught:
            picks(shelf, [f"{name}/cat"])
        assert caught.value is error
        with pytest.raises(ManifestError):
            picks(shelf, [f"{name}/dog", "cat"])


def test_a_provider_that_has_lost_a_file_is_none_but_a_named_one_is(shelf):
    shelf.gone[shelf.releases(RepositoryId.parse("zoo/big"))[0].commit] = ["trunk/graph.json"]
    assert picks(shelf, ["dog"]) == {"dog": "lab/r20 2.0.0"}
    assert picks(shelf, ["zoo/big/dog"]) == {"dog": "zoo/big 1.0.0"}
    with pytest.raises(ResolutionError) as caught:
        picks(shelf, ["lion"])
    assert caught.value.message == (
        "No provider of 'lion = *' will do: zoo/big 1.0.0 cannot be read (the hub has lost "
        "'trunk/graph.json' of 'zoo/big')."
    )


def test_a_network_that_fails_is_no_reason_to_choose_another():
    shelf = Spoilt()
    shelf.files = OfflineError("The line is dead.")
    for name in ("good/cats", "evil/files"):
        shelf.put(name, "1.0.0", {"cat": 1.0})
    with pytest.raises(OfflineError):
        picks(shelf, ["cat"])


def test_lock_is_kept_until_it_may_not_be(shelf):
    old = next(r for r in shelf.releases(RepositoryId.parse("lab/r20")) if str(r) == "1.1.0")
    prefer = Preferences({RepositoryId.parse("lab/r20"): old.commit}, {"dog": RepositoryId.parse("lab/r20")})
    assert picks(shelf, ["lab/r20/cat"], prefer) == {"cat": "lab/r20 1.1.0"}
    assert picks(shelf, ["dog"], prefer) == {"dog": "lab/r20 1.1.0"}
    assert picks(shelf, ["lab/r20/cat>=2"], prefer) == {"cat": "lab/r20 2.0.0"}


@pytest.mark.parametrize(
    ("modules", "options", "error", "message"),
    [
        (["no/where/cat"], {}, NotFoundError, "There is no repository 'no/where'."),
        (
            ["lab/r20/cat>=4"],
            {},
            NotFoundError,
            "lab/r20 has no release that matches '>=4'. "
            "It has 3.0rc1, 2.1.0 (yanked), 2.0.0, 1.1.0 and 1.0.0.",
        ),
        (
            ["lab/r20/cat>2.0,<3.0a0"],
            {},
            NotFoundError,
            "lab/r20 has no release that matches '<3.0a0,>2.0'. "
            "It has 3.0rc1, 2.1.0 (yanked), 2.0.0, 1.1.0 and 1.0.0. "
            "A yanked release must be pinned: lab/r20/cat==2.1.0",
        ),
        (
            ["lab/r20/dig"],
            {},
            NotFoundError,
            "There is no class 'dig' in lab/r20 2.0.0. Nearest there: dog.",
        ),
        (
            ["lion", "dgo"],
            {},
            NotFoundError,
            "No repository on this hub has a class 'dgo'. Nearest: dog.",
        ),
        (
            ["unicorn"],
            {},
            NotFoundError,
            "No repository on this hub has a class 'unicorn'. See what there is with: modhub search",
        ),
        (
            ["zoo/big/lion"],
            {"licenses": ("mit",)},
            ResolutionError,
            "'lion = zoo/big/lion' does not meet the constraint licenses = ['mit']: "
            "the licence of zoo/big 1.0.0 is 'gpl-3.0'. "
            "Relax [constraints] in modhub.toml, or ask another repository.",
        ),
        (
            ["newt"],
            {"min_recall": 0.9},
            ResolutionError,
            "No provider of 'newt = *' will do: the recall of 'newt' in zoo/small 1.0.0 is 0.500. "
            "Relax [constraints] in modhub.toml, or name a repository.",
        ),
        (
            ["lab/r20/cat>=2", "zoo/big/lion", "lab/r20/frog"],
            {},
            ResolutionError,
            "'cat = lab/r20/cat>=2' and 'frog = lab/r20/frog' cannot be met together, because all modules of "
            "one repository come from one release, so that they share a trunk: 'cat = lab/r20/cat>=2' is met "
            "by 2.0.0, while 'frog = lab/r20/frog' is met by 1.0.0. "
            "Relax one of them, or take one of the classes from another repository.",
        ),
        (
            ["lab/r20/cat>=2", "zoo/big/lion"],
            {"max_trunks": 1},
            ResolutionError,
            "'cat = lab/r20/cat>=2' and 'lion = zoo/big/lion' need more than max-trunks = 1 trunks together: "
            f"'cat' stands on trunk {digest('trunk new')[:12]} of lab/r20; "
            f"'lion' stands on trunk {digest('trunk zoo/big')[:12]} of zoo/big. "
            "Raise max-trunks in modhub.toml, or take these classes from one repository.",
        ),
        (
            ["lab/r20/cat@v1.0.0", "lab/r20/dog@v1.1.0"],
            {},
            ResolutionError,
            "'cat = lab/r20/cat@v1.0.0' and 'dog = lab/r20/dog@v1.1.0' cannot be met together, because all "
            "modules of one repository come from one release, so that they share a trunk: "
            "'cat = lab/r20/cat@v1.0.0' is met by 1.0.0, while 'dog = lab/r20/dog@v1.1.0' is met by 1.1.0. "
            "Relax one of them, or take one of the classes from another repository.",
        ),
    ],
)
def test_what_cannot_be_met_is_explained(shelf, modules, options, error, message):
    with pytest.raises(error) as caught:
        picks(shelf, modules, **options)
    assert str(caught.value) == message


def test_a_hundred_classes_of_a_crowded_hub():
    shelf = Shelf()
    for owner in "abcde":
        shelf.put(f"{owner}/all", "1.0", {f"class {n}": n / 100 for n in range(100)})
    found = picks(shelf, [f"class {n}" for n in range(100)], max_trunks=1)
    assert set(found.values()) == {"a/all 1.0"}


VERSIONS = ("1.0", "1.1", "2.0")
LABELS = ("x", "y", "z")


def universe_of(seed):
    """(shelf, project), small enough to try every answer."""
    dice = random.Random(seed)
    shelf = Shelf()
    repositories = [f"r/{name}" for name in "abc"[: dice.randint(1, 3)]]
    for repository in repositories:
        for version in dice.sample(VERSIONS, dice.randint(1, 3)):
            shelf.put(
                repository,
                version,
                {
                    label: dice.choice([None, 0.5, 0.7, 0.9])
                    for label in dice.sample(LABELS, dice.randint(1, 3))
                },
                trunk=dice.choice("TUV"),
                licence=dice.choice(["mit", "mit", "gpl", None]),
                yanked=dice.choice([None, None, None, "bad"]),
            )
    wants = {}
    for label in dice.sample(LABELS, dice.randint(1, 3)):
        place = dice.choice([*repositories, None, None])
        specifier = dice.choice(["", "", ">=1.1", "<2", "==1.0", "==2.0"])
        wants[label] = f"{place}/{label}{specifier}" if place else f"{label}{specifier}"
    constraints = Constraints(
        dice.choice([None, None, ("mit",)]),
        dice.choice([None, None, 0.7]),
        dice.choice([None, 1, 1, 2]),
    )
    return shelf, Project("u", Project.of(wants).wants, constraints)


def brute_force(shelf, project):
    """By the rules as written: all answers first, then the steps choose among those that can be completed."""

    def options(want):
        for repository, pairs in shelf.stored.items():
            if want.ref.repository not in (None, repository):
                continue
            for release, held in pairs:
                entries = [entry for entry in held.modules if entry.label == want.label]
                specifier = want.ref.specifier
                exact = any(
                    item.operator == "=="
                    for other in project.wants
                    if other is want or other.ref.repository == repository
                    for item in other.ref.specifier
                )
                recall = entries[0].metrics.get("recall") if entries else None
                rules = project.constraints
                if (
                    entries
                    and release.version in SpecifierSet(str(specifier))
                    and (release.yanked is None or exact)
                    and (rules.licenses is None or held.license in rules.licenses)
                    and (rules.min_recall is None or (recall or 0) >= rules.min_recall)
                ):
                    yield repository, release, held.trunk.sha256, recall

    wants = project.wants
    answers = []
    for answer in itertools.product(*(list(options(want)) for want in wants)):
        releases = {(repository, release.commit) for repository, release, _, _ in answer}
        one_release = len(releases) == len({repository for repository, _ in releases})
        limit = project.constraints.max_trunks
        if one_release and (limit is None or len({trunk for _, _, trunk, _ in answer}) <= limit):
            answers.append(dict(zip((want.label for want in wants), answer, strict=True)))
    named = sorted((w for w in wants if w.ref.repository), key=lambda w: w.ref.repository)
    bare = sorted((w for w in wants if not w.ref.repository), key=lambda w: w.label)
    trunks, settled = set(), {}
    for want in [*named, *bare]:
        label = want.label
        possible = {(a[label][0], a[label][1]): a[label] for a in answers}.values()
        if not possible:
            return None

        def rank(option, want=want):
            repository, release, trunk, recall = option
            ages = sorted({r.version for p, r, _, _ in options(want) if p == repository}, reverse=True)
            age = 0 if repository in settled else ages.index(release.version)
            if want.ref.repository:
                return (-VERSIONS.index(str(release.version)),)
            return (age, trunk not in trunks, 1.0 if recall is None else -recall, repository)

        best = min(possible, key=rank)
        settled[best[0]] = best[1]
        trunks.add(best[2])
        answers = [a for a in answers if a[label][:2] == best[:2]]
    return {label: f"{option[0]} {option[1]}" for label, option in answers[0].items()}


@settings(max_examples=600, deadline=None)
@given(st.integers(0, 2**32))
def test_agrees_with_brute_force(seed):
    shelf, project = universe_of(seed)
    expected = brute_force(shelf, project)
    if expected is None:
        with pytest.raises((ResolutionError, NotFoundError)) as caught:
            resolve(project, shelf)
        assert caught.value.hint
    else:
        resolution = resolve(project, shelf)
        assert {m.want.label: f"{m.repository} {m.release}" for m in resolution.modules} == expected
