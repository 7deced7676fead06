import itertools
import random
import time
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from modhub.catalog.catalog import Catalog
from modhub.errors import (
    ClassNotFoundError,
    ManifestError,
    NotFoundError,
    OfflineError,
    ResolutionError,
)
from modhub.hub.cache import Cache
from modhub.hub.directory import DirectoryHub
from modhub.project.resolver import Preferences, resolve
from modhub.project.toml import Constraints, Project
from modhub.refs import RepositoryId
from modhub.reporter import SILENT
from modhub.store.model import Add
from tests.support.paper import digest
from tests.support.releases import ReleaseHub


def picks(catalog, modules, prefer=None, **constraints):
    resolution = resolve(
        Project("t", Project.of(modules).wants, Constraints(**constraints)),
        catalog,
        prefer=prefer,
        nearest=catalog.nearest,
    )
    return {module.want.label: f"{module.repository} {module.release}" for module in resolution.modules}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    zoo = ReleaseHub(tmp_path_factory.mktemp("zoo"))
    zoo.put("lab/r20", "1.0.0", {"cat": 0.8, "dog": 0.7, "frog": 0.9}, trunk="old")
    zoo.put("lab/r20", "1.1.0", {"cat": 0.85, "dog": 0.75}, trunk="old")
    zoo.put("lab/r20", "2.0.0", {"cat": 0.9, "dog": 0.8}, trunk="new")
    zoo.put("lab/r20", "2.1.0", {"cat": 0.9, "dog": 0.8}, trunk="new", yanked="wrong labels")
    zoo.put("lab/r20", "3.0rc1", {"cat": 0.9}, trunk="new")
    zoo.put("zoo/big", "1.0.0", {"dog": 0.95, "lion": 0.6}, licence="gpl-3.0")
    zoo.put("zoo/small", "1.0.0", {"dog": None, "newt": 0.5}, licence=None)
    return zoo


@pytest.fixture(scope="module")
def catalog(zoo):
    return zoo.catalog


def release_of(catalog, repository, version):
    releases = catalog.releases(RepositoryId.parse(repository))
    return next(release for release in releases if str(release) == version)


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
        # nothing in the composition yet: the first by name, whatever recall the others claim
        (["dog"], {}, {"dog": "lab/r20 2.0.0"}),
        (["dog"], {"licenses": ("mit",)}, {"dog": "lab/r20 2.0.0"}),
        # the trunk is there already: no second pass for the dog
        (["lab/r20/cat", "dog"], {}, {"cat": "lab/r20 2.0.0", "dog": "lab/r20 2.0.0"}),
        (["lab/r20/cat", "dog"], {"min_recall": 0.9}, {"cat": "lab/r20 2.0.0", "dog": "zoo/big 1.0.0"}),
        (["dog", "newt"], {"max_trunks": 1}, {"dog": "zoo/small 1.0.0", "newt": "zoo/small 1.0.0"}),
        # a class that only an older release has can be asked for with a range
        (["frog<2"], {}, {"frog": "lab/r20 1.0.0"}),
        (["frog>=1"], {}, {"frog": "lab/r20 1.0.0"}),
        # and may move a named repository to an older release
        (["lab/r20/cat", "frog<2"], {}, {"cat": "lab/r20 1.0.0", "frog": "lab/r20 1.0.0"}),
    ],
)
def test_rules(catalog, modules, options, expected):
    assert picks(catalog, modules, **options) == expected
    assert picks(catalog, modules[::-1], **options) == expected


def test_a_tag_and_the_commit_it_marks_are_one_pin(tmp_path):
    zoo = ReleaseHub(tmp_path)
    zoo.put("lab/r20", "1.0.0", {"cat": 0.8, "dog": 0.8})
    commit = zoo.put("lab/r20", "2.0.0", {"cat": 0.9, "dog": 0.8}).commit
    zoo.hub.create_tag(RepositoryId.parse("lab/r20"), "v2.0.1", commit)
    by_commit = f"lab/r20/cat@{commit}"
    assert picks(zoo.catalog, [by_commit]) == {"cat": "lab/r20 2.0.1"}
    for modules in ([by_commit, "lab/r20/dog@v2.0.0"], ["lab/r20/dog@v2.0.0", by_commit]):
        assert picks(zoo.catalog, modules) == {"cat": "lab/r20 2.0.0", "dog": "lab/r20 2.0.0"}
    with pytest.raises(ResolutionError, match=" cannot be met together, "):
        picks(zoo.catalog, [by_commit, "lab/r20/dog@v1.0.0"])


def test_a_repository_is_one_however_its_case_is_written(catalog):
    wants = {"cat": "lab/r20/cat<2", "dog": "Lab/R20/dog", "frog": "<2"}
    expected = {"cat": "Lab/R20 1.0.0", "dog": "Lab/R20 1.0.0", "frog": "Lab/R20 1.0.0"}
    assert picks(catalog, wants) == expected
    assert picks(catalog, dict(reversed(wants.items()))) == expected
    prefer = Preferences({RepositoryId.parse("LAB/r20"): release_of(catalog, "lab/r20", "1.1.0").commit})
    assert picks(catalog, ["lab/r20/cat"], prefer) == {"cat": "lab/r20 1.1.0"}
    with pytest.raises(ResolutionError, match="all modules of one repository come from one release"):
        picks(catalog, {"cat": "lab/r20/cat==1.0.0", "dog": "Lab/R20/dog==2.0.0"})


def test_a_provider_that_cannot_be_read_is_none_but_a_named_one_fails(tmp_path):
    zoo = ReleaseHub(tmp_path)
    for name in ("evil/refs", "evil/files"):
        zoo.put(name, "1.0.0", {"cat": 1.0, "dog": 1.0})
    refs, files = RepositoryId("evil", "refs"), RepositoryId("evil", "files")
    zoo.hub.commit(refs, [Add("yanked.json", b'{"1.0.0": 7}')], "x")
    commit = zoo.hub.commit(files, [Add("modhub.json", b'{"schema_version": 99}')], "x")
    zoo.hub.create_tag(files, "v2.0.0", commit)
    bad_refs = "yanked.json of 'evil/refs' should map versions to reasons, each one line of text."
    bad_files = (
        f"modhub.json of 'evil/files' at {commit[:12]} has schema version 99; this modhub reads up to 1."
    )
    with pytest.raises(ResolutionError) as caught:
        picks(zoo.catalog, ["cat"])
    assert caught.value.message == (
        f"No provider of 'cat = *' will do: evil/files 2.0.0 cannot be read ({bad_files[:-1]}); "
        f"evil/refs cannot be read ({bad_refs[:-1]})."
    )
    zoo.put("good/cats", "1.0.0", {"cat": 0.5})
    assert picks(zoo.catalog, ["cat"]) == {"cat": "good/cats 1.0.0"}
    for name, message in (("evil/refs", bad_refs), ("evil/files", bad_files)):
        for modules in ([f"{name}/cat"], [f"{name}/dog", "good/cats/cat"]):
            with pytest.raises(ManifestError) as told:
                picks(zoo.catalog, modules)
            assert told.value.message == message


def test_a_provider_that_has_lost_a_file_is_none_but_a_named_one_is(tmp_path):
    zoo = ReleaseHub(tmp_path)
    zoo.put("lab/r20", "2.0.0", {"dog": 0.8})
    zoo.put("zoo/big", "1.0.0", {"dog": 0.95, "lion": 0.6})
    zoo.lose("zoo/big", "trunk/graph.json")
    assert picks(zoo.catalog, ["dog"]) == {"dog": "lab/r20 2.0.0"}
    assert picks(zoo.catalog, ["zoo/big/dog"]) == {"dog": "zoo/big 1.0.0"}
    with pytest.raises(ResolutionError) as caught:
        picks(zoo.catalog, ["lion"])
    assert caught.value.message == (
        "No provider of 'lion = *' will do: zoo/big 1.0.0 cannot be read (the hub has lost "
        "'trunk/graph.json' of 'zoo/big')."
    )


class DeadLine(DirectoryHub):
    """A hub whose line is dead when it is asked for a file of 'evil/files'."""

    def download(self, repository, commit, path, destination, *, offset=0, reporter=SILENT):
        if f"{repository}" == "evil/files":
            raise OfflineError("The line is dead.", hint="Try again.")
        super().download(repository, commit, path, destination, offset=offset, reporter=reporter)


def test_a_network_that_fails_is_no_reason_to_choose_another(tmp_path):
    zoo = ReleaseHub(tmp_path)
    for name, recall in (("good/cats", 1.0), ("evil/files", 0.9)):
        zoo.put(name, "1.0.0", {"cat": recall})
    with pytest.raises(OfflineError):
        picks(Catalog(DeadLine(tmp_path / "hub"), Cache(tmp_path / "empty")), ["cat"])


def test_lock_is_kept_until_it_may_not_be(catalog):
    place = RepositoryId.parse("lab/r20")
    prefer = Preferences({place: release_of(catalog, "lab/r20", "1.1.0").commit}, {"dog": place})
    assert picks(catalog, ["lab/r20/cat"], prefer) == {"cat": "lab/r20 1.1.0"}
    assert picks(catalog, ["dog"], prefer) == {"dog": "lab/r20 1.1.0"}
    assert picks(catalog, ["lab/r20/cat>=2"], prefer) == {"cat": "lab/r20 2.0.0"}


def test_the_provider_of_the_lock_stays_while_its_release_is_active(tmp_path):
    zoo, place = ReleaseHub(tmp_path), RepositoryId.parse("lab/pets")
    locked = zoo.put("lab/pets", "1.0.0", {"cat": 0.9, "dog": 0.8})
    zoo.put("lab/pets", "2.0.0", {"dog": 0.8})
    prefer = Preferences({place: locked.commit}, {"cat": place})
    assert picks(zoo.catalog, ["cat"], prefer) == {"cat": "lab/pets 1.0.0"}
    with pytest.raises(ClassNotFoundError) as caught:
        picks(zoo.catalog, ["cat"])
    assert str(caught.value) == (
        "No repository on this hub has a class 'cat'. See what there is with: modhub search"
    )
    zoo.put("zoo/cats", "1.0.0", {"cat": 0.99})
    assert picks(zoo.catalog, ["cat"]) == {"cat": "zoo/cats 1.0.0"}
    assert picks(zoo.catalog, ["cat"], prefer) == {"cat": "lab/pets 1.0.0"}
    zoo.yank(place, "v1.0", "wrong labels")
    assert picks(zoo.catalog, ["cat"], prefer) == {"cat": "zoo/cats 1.0.0"}


@pytest.mark.parametrize(
    ("modules", "options", "error", "message"),
    [
        (
            ["no/where/cat"],
            {},
            NotFoundError,
            "There is no repository 'no/where'. The hub is HUB; name another with --hub.",
        ),
        (
            ["lab/r20/cat>=4"],
            {},
            NotFoundError,
            "'lab/r20' has no release that matches '>=4'. "
            "Releases: 3.0rc1, 2.1.0 (yanked), 2.0.0, 1.1.0, 1.0.0.",
        ),
        (
            ["lab/r20/cat>2.0,<3.0a0"],
            {},
            NotFoundError,
            "'lab/r20' has no release that matches '<3.0a0,>2.0'. "
            "Releases: 3.0rc1, 2.1.0 (yanked), 2.0.0, 1.1.0, 1.0.0. "
            "A yanked release must be pinned: lab/r20/cat==2.1.0",
        ),
        (
            ["lab/r20/dig"],
            {},
            NotFoundError,
            "There is no class 'dig' in lab/r20 2.0.0. Nearest: dog.",
        ),
        (
            ["lion", "dgo"],
            {},
            NotFoundError,
            "No repository on this hub has a class 'dgo'. Nearest: dog.",
        ),
        (
            ["zebra"],
            {},
            NotFoundError,
            "No repository on this hub has a class 'zebra'. See what there is with: modhub search",
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
def test_what_cannot_be_met_is_explained(catalog, modules, options, error, message):
    with pytest.raises(error) as caught:
        picks(catalog, modules, **options)
    assert str(caught.value) == message.replace("HUB", catalog.hub.address)


def test_a_hundred_classes_of_a_crowded_hub(tmp_path):
    zoo = ReleaseHub(tmp_path)
    for owner in "abcde":
        zoo.put(f"{owner}/all", "1.0", {f"class {n}": n / 100 for n in range(100)})
    found = picks(zoo.catalog, [f"class {n}" for n in range(100)], max_trunks=1)
    assert set(found.values()) == {"a/all 1.0"}


def test_a_search_that_would_take_years_ends_and_says_so(tmp_path):
    zoo = ReleaseHub(tmp_path)
    for owner in "abc":
        for version in ("1.0", "1.1", "1.2", "2.0"):
            zoo.put(f"{owner}/all", version, {f"class {n}": 0.5 for n in range(10)}, trunk=owner + version)
    for version in ("1.0", "2.0"):
        zoo.put("d/pair", version, {"x": 0.5, "y": 0.5}, trunk=version)
    # Ten classes that fit in millions of ways, before two that never do.
    project = Project("t", Project.of([*(f"class {n}" for n in range(10)), "x>=2", "y<2"]).wants)
    began = time.process_time()
    with pytest.raises(ResolutionError) as caught:
        resolve(project, zoo.catalog, steps=200_000)
    assert time.process_time() - began < 10
    assert caught.value.message == "No answer was found in 200,000 steps."
    # Where there is an answer, or a reason in sight, the limit is far away.
    with pytest.raises(ResolutionError, match="'x = >=2' and 'y = <2' cannot be met together, because"):
        resolve(Project("t", Project.of(["class 1", "x>=2", "y<2"]).wants), zoo.catalog, steps=20_000)


VERSIONS = ("1.0", "1.1", "2.0")
LABELS = ("x", "y", "z")
HUBS = 16


class Remembered:
    """A catalog each of whose answers is read once."""

    def __init__(self, catalog):
        for name in ("releases", "release_at", "manifest", "lost", "providers"):
            setattr(self, name, lru_cache(maxsize=None)(getattr(catalog, name)))


@pytest.fixture(scope="module")
def hubs(tmp_path_factory):
    """Hubs so small that every answer can be tried; releases were pushed in any order."""
    dice, hubs = random.Random(0), []
    for number in range(HUBS):
        hub = ReleaseHub(tmp_path_factory.mktemp(f"hub-{number}"))
        for name in "abc"[: 1 + number % 3]:
            versions = dice.sample(VERSIONS, dice.randint(1, 3))
            for version in versions:
                labels = dice.sample(LABELS, dice.randint(1, 3))
                hub.put(
                    f"r/{name}",
                    version,
                    {label: dice.choice([None, 0.5, 0.7, 0.9]) for label in labels},
                    trunk=dice.choice("TUV"),
                    licence=dice.choice(["mit", "mit", "gpl", None]),
                    # The first stays active.
                    yanked=dice.choice([None, None, "bad"]) if version != versions[0] else None,
                )
        hubs.append((hub.manifests, Remembered(hub.catalog)))
    return hubs


def project_of(seed, repositories):
    dice, wants = random.Random(seed), {}
    for label in dice.sample(LABELS, dice.randint(1, 3)):
        place = dice.choice([*repositories, None, None])
        specifier = dice.choice(["", "", ">=1.1", "<2", "==1.0", "==2.0"])
        wants[label] = f"{place}/{label}{specifier}" if place else f"{label}{specifier}"
    constraints = Constraints(
        dice.choice([None, None, ("mit",)]),
        dice.choice([None, None, 0.7]),
        dice.choice([None, 1, 1, 2]),
    )
    return Project("u", Project.of(wants).wants, constraints)


def brute_force(manifests, project):
    """By the rules as written: all answers first, then the steps choose among those that can be completed."""
    rules = project.constraints

    def entry_of(held, label):
        return next((entry for entry in held.modules if entry.label == label), None)

    def usable(want, repository, others=()):
        """Releases of a repository that the want allows and that have the class, with whether they fit."""
        pins = [item.operator == "==" for other in (want, *others) for item in other.ref.specifier]
        for release, held in manifests[repository].items():
            entry = entry_of(held, want.label)
            if (
                entry is not None
                and release.version in SpecifierSet(str(want.ref.specifier))
                and (release.yanked is None or any(pins))
            ):
                recall = entry.metrics.get("recall")
                fits = (rules.licenses is None or held.license in rules.licenses) and (
                    rules.min_recall is None or (recall or 0) >= rules.min_recall
                )
                yield (repository, release, held.trunk.sha256, recall), fits

    def providers(want):
        if want.ref.repository is not None:
            return [want.ref.repository]
        newest = {
            repository: max((r for r in releases if r.yanked is None), key=lambda r: r.version)
            for repository, releases in manifests.items()
        }
        offering = [r for r, release in newest.items() if entry_of(manifests[r][release], want.label)]
        if str(want.ref.specifier) and not any(fits for r in offering for _, fits in usable(want, r)):
            offering += [r for r in manifests if r not in offering and any(True for _ in usable(want, r))]
        return offering

    def options(want):
        for repository in providers(want):
            named = [other for other in project.wants if other.ref.repository == repository]
            for option, fits in usable(want, repository, named):
                if fits:
                    yield option

    wants = project.wants
    answers = []
    for answer in itertools.product(*(list(options(want)) for want in wants)):
        releases = {(repository, release.commit) for repository, release, _, _ in answer}
        one_release = len(releases) == len({repository for repository, _ in releases})
        limit = rules.max_trunks
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
            repository, release, trunk, _ = option
            ages = sorted({r.version for p, r, _, _ in options(want) if p == repository}, reverse=True)
            age = 0 if repository in settled else ages.index(release.version)
            if want.ref.repository:
                return (-VERSIONS.index(str(release.version)),)
            return (age, trunk not in trunks, repository)

        best = min(possible, key=rank)
        settled[best[0]] = best[1]
        trunks.add(best[2])
        answers = [a for a in answers if a[label][:2] == best[:2]]
    return {label: f"{option[0]} {option[1]}" for label, option in answers[0].items()}


@settings(max_examples=600, deadline=None)
@given(st.integers(0, HUBS - 1), st.integers(0, 2**32))
def test_agrees_with_brute_force(hubs, number, seed):
    manifests, catalog = hubs[number]
    project = project_of(seed, [*manifests])
    expected = brute_force(manifests, project)
    if expected is None:
        with pytest.raises((ResolutionError, NotFoundError)) as caught:
            resolve(project, catalog)
        assert caught.value.hint
    else:
        resolution = resolve(project, catalog)
        assert {m.want.label: f"{m.repository} {m.release}" for m in resolution.modules} == expected
