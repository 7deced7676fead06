"""What a lock has stays until somebody asks otherwise, and what moves is told."""

import pytest

from modhub.api.lock import lock_to
from modhub.api.project_files import read_lock
from modhub.catalog.catalog import Catalog
from modhub.catalog.releases import files_of
from modhub.errors import NotFoundError, OfflineError, ResolutionError
from modhub.hub.cache import Cache
from modhub.hub.directory import DirectoryHub
from modhub.project.resolver import resolve
from modhub.project.toml import Project, Want, add_want, new_project
from modhub.refs import RepositoryId
from modhub.reporter import SILENT, Reporter
from modhub.store.model import MAIN, Refs
from tests.support.releases import ReleaseHub, trunk_info

NET = RepositoryId("lab", "net")


class Warnings(Reporter):
    def __init__(self):
        self.texts = []

    def warn(self, text):
        self.texts.append(text)


class Zoo(ReleaseHub):
    """`lock` writes the lock of `wants` in one folder and says what each label has, and what moved."""

    def __init__(self, root):
        super().__init__(root)
        self.folder = root / "project"
        self.folder.mkdir()
        self.warnings = []

    def lock(self, wants, *, catalog=None, upgrade=False):
        text = new_project("t")
        for label, ref in wants.items():
            text = add_want(text, Want.parse(label, ref))
        (self.folder / "modhub.toml").write_text(text)
        told = Warnings()
        report = lock_to(self.folder, hub=catalog or self.catalog, upgrade=upgrade, reporter=told)
        self.warnings = told.texts
        self.changes = [str(change) for change in report.changes]
        return {module.want.label: (str(module.version), module.commit) for module in report.lock.modules}


@pytest.fixture
def zoo(tmp_path):
    zoo = Zoo(tmp_path)
    zoo.put("lab/net", "1.0.0", {"cat": 0.8, "dog": 0.7, "cow": 0.7})
    zoo.put("lab/other", "1.0.0", {"newt": 0.9})
    zoo.put("lab/pets", "1.0.0", {"ape": 0.9})
    return zoo


def newer(zoo):
    zoo.put("lab/net", "1.1.0", {"cat": 0.9, "dog": 0.9, "cow": 0.9}, trunk="new")


def yanked(zoo):
    newer(zoo)
    zoo.yank(NET, "1.0.0", "wrong labels")


def only_yanked(zoo):
    zoo.yank(NET, "1.0.0", "wrong labels")


def class_gone(zoo):
    zoo.put("lab/net", "1.1.0", {"emu": 0.9}, trunk="new")


EVENTS = {"newer": newer, "yanked": yanked, "only yanked": only_yanked, "class gone": class_gone}
REFS = ["lab/net/cat", "lab/net/cat>=1", "lab/net/cat@main", "lab/net/cat@v1.0.0", "cat", "*", ">=1"]
OTHERS = [
    {"newt": "lab/other/newt"},
    {"ape": "*"},
    {"dog": "lab/net/dog"},
    {"dog": "*"},
    {"cow": "LAB/Net/cow>=1"},
    {},
]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("ref", REFS)
def test_something_else_moves_nothing(zoo, event, ref):
    before = zoo.lock({"cat": ref, "newt": "lab/other/newt"})["cat"]
    EVENTS[event](zoo)
    for other in OTHERS:
        assert zoo.lock({"cat": ref, **other})["cat"] == before
        assert not [change for change in zoo.changes if change.startswith("cat:")]
        pinned = ref == "lab/net/cat@v1.0.0"
        told = f"lab/net 1.0.0 is yanked: wrong labels.{'' if pinned else STAYS}"
        expected = [told.lower()] if "yanked" in event else []
        assert [text.lower() for text in zoo.warnings] == expected


STAYS = " It stays because modhub.lock has it."


@pytest.mark.parametrize("ref", [ref for ref in REFS if ref != "lab/net/cat@v1.0.0"])
def test_upgrade_moves_it_and_says_so(zoo, ref):
    first = zoo.lock({"cat": ref})["cat"]
    yanked(zoo)
    assert zoo.lock({"cat": ref})["cat"] == first
    moved = zoo.lock({"cat": ref}, upgrade=True)["cat"]
    after = "1.1.0" if "main" not in ref else zoo.hub.commit_of(NET, MAIN)[:12]
    assert moved[1] != first[1]
    assert zoo.changes == [f"cat: lab/net 1.0.0 → lab/net {after}"]
    assert zoo.warnings == []


def test_a_line_that_was_edited_is_resolved_anew(zoo):
    zoo.lock({"cat": "lab/net/cat>=1", "dog": "lab/net/dog"})
    yanked(zoo)
    # As long as another line has it, all modules of the repository stay.
    assert zoo.lock({"cat": "lab/net/cat", "dog": "lab/net/dog"})["cat"][0] == "1.0.0"
    assert zoo.lock({"cat": "lab/net/cat>=1.0"})["cat"][0] == "1.1.0"
    assert zoo.changes == ["cat: lab/net 1.0.0 → lab/net 1.1.0", "dog: lab/net 1.0.0 → removed"]


def test_what_may_not_stay_moves_and_is_told(zoo):
    zoo.lock({"cat": "lab/net/cat", "dog": "dog"})
    yanked(zoo)
    assert {text for text, _ in zoo.lock({"cat": "lab/net/cat>1", "dog": "dog"}).values()} == {"1.1.0"}
    assert zoo.changes == [
        "cat: lab/net 1.0.0 → lab/net 1.1.0",
        "dog: lab/net 1.0.0 → lab/net 1.1.0",
    ]


def test_a_new_bare_label_comes_after_those_of_the_lock(zoo):
    zoo.lock({"dog": "*"})
    zoo.put("lab/net", "1.1.0", {"ape": 0.99, "dog": 0.9}, trunk="new")
    locked = zoo.lock({"dog": "*", "ape": "*"})
    assert locked["dog"][0] == "1.0.0"
    assert zoo.changes == ["ape: new → lab/pets 1.0.0"]


def test_a_pre_release_stays_beside_a_later_release(zoo):
    zoo.put("lab/next", "2.0rc1", {"owl": 0.9})
    assert zoo.lock({"owl": "lab/next/owl>=1"})["owl"][0] == "2.0rc1"
    zoo.put("lab/next", "1.5", {"owl": 0.9})
    assert zoo.lock({"owl": "lab/next/owl>=1", "ape": "*"})["owl"][0] == "2.0rc1"
    assert zoo.lock({"owl": "lab/next/owl>=1"}, upgrade=True)["owl"][0] == "1.5"


class Moved(DirectoryHub):
    """A hub that names other commits: huggingface.co lets tags and branches be moved and deleted."""

    def __init__(self, root):
        super().__init__(root)
        self.branches, self.tags = {}, {}

    def refs(self, repository):
        refs = super().refs(repository)
        if repository != NET:
            return refs
        said = ({**refs.branches, **self.branches}, {**refs.tags, **self.tags})
        return Refs(*({name: commit for name, commit in names.items() if commit} for names in said))


@pytest.fixture
def moved(zoo):
    return Moved(zoo.hub.address)


def test_a_release_that_is_marked_elsewhere_stays_with_a_warning(zoo, moved):
    wants = {"cat": "lab/net/cat", "dog": "*"}
    before = zoo.lock(wants)
    other = zoo.put("lab/net", None, {"cat": 0.9, "dog": 0.9}, trunk="new").commit
    catalog = Catalog(moved, Cache(zoo.folder / "cache"))
    for commit in (other, ""):
        moved.tags = {"v1.0.0": commit}
        after = zoo.lock({**wants, "ape": "*"}, catalog=catalog)
        assert {label: after[label] for label in before} == before
        short = before["cat"][1][:12]
        assert zoo.warnings == [f"lab/net 1.0.0 is no longer commit {short} on the hub.{STAYS}"]
    moved.tags = {"v1.0.0": other}
    zoo.lock(wants, catalog=catalog, upgrade=True)
    assert zoo.changes[:1] == [f"cat: lab/net 1.0.0 ({short}) → lab/net 1.0.0 ({other[:12]})"]


def test_a_branch_that_is_gone_stays_where_the_lock_has_it(zoo, moved):
    moved.branches = {"dev": zoo.put("lab/net", None, {"cat": 0.9, "dog": 0.9}).commit}
    catalog = Catalog(moved, Cache(zoo.folder / "cache"))
    before = zoo.lock({"cat": "lab/net/cat@dev"}, catalog=catalog)
    assert before["cat"][0] == "None"
    moved.branches = {}
    assert zoo.lock({"cat": "lab/net/cat@dev", "ape": "*"}, catalog=catalog)["cat"] == before["cat"]
    # A new want may follow a branch that the lock knows, and no other.
    wants = {"cat": "lab/net/cat@dev", "dog": "lab/net/dog@dev"}
    assert {*zoo.lock(wants, catalog=catalog).values()} == {before["cat"]}
    with pytest.raises(NotFoundError, match="There is no revision 'test' in 'lab/net'"):
        zoo.lock({"cat": "lab/net/cat@test"}, catalog=catalog)
    with pytest.raises(NotFoundError, match="There is no revision 'dev' in 'lab/net'"):
        zoo.lock({"cow": "lab/net/cow@dev"}, catalog=catalog)


def test_the_place_of_a_trunk_stays(zoo, moved):
    base = trunk_info("lab/net", repository="lab/net", revision="dev")
    zoo.put("lab/heads", "1.0.0", {"emu": 0.9}, trunk=base)
    catalog = Catalog(moved, Cache(zoo.folder / "cache"))
    moved.branches = {"dev": zoo.hub.commit_of(NET, MAIN)}
    zoo.lock({"emu": "*"}, catalog=catalog)
    before = read_lock(zoo.folder).trunks
    newer(zoo)
    for dev in (zoo.hub.commit_of(NET, MAIN), ""):
        moved.branches = {"dev": dev}
        zoo.lock({"emu": "*", "ape": "*"}, catalog=catalog)
        assert {*before} <= {*read_lock(zoo.folder).trunks}


class Far(DirectoryHub):
    """A hub that needs a network."""

    local = False

    def download(self, repository, commit, path, destination, *, offset=0, reporter=SILENT):
        if path.startswith(("modules/", "trunk/")) and path != "trunk/graph.json":
            raise OfflineError("The line is dead.", hint="Try again.")
        super().download(repository, commit, path, destination, offset=offset, reporter=reporter)


@pytest.fixture
def far(zoo, tmp_path):
    """`far(offline)`: a catalog whose cache is the same each time."""
    return lambda offline=True: Catalog(Far(zoo.hub.address), Cache(tmp_path / "far"), offline=offline)


def picks(catalog, *wants, prefer=None):
    offline = catalog.files.offline
    resolution = resolve(Project.of(wants), catalog, prefer=prefer, offline=offline, cached=catalog.cached)
    return {f"{module.repository} {module.release}" for module in resolution.modules}


def test_offline_goes_by_what_the_cache_holds(zoo, far):
    assert picks(far(False), "lab/net/cat") == {"lab/net 1.0.0"}
    newer(zoo)
    # The references of 1.1.0 are known now, and its manifest is not.
    far(False).releases(NET)
    for ref in ("lab/net/cat", "cat", "cat>=1", "lab/net/cat>=1"):
        assert picks(far(), ref) == {"lab/net 1.0.0"}
    with pytest.raises(OfflineError, match="is not in the cache, and the hub is not contacted when offline"):
        picks(far(), "lab/net/cat==1.1.0")
    with pytest.raises(NotFoundError, match=r"'lab/net' has no release that matches '==3.0'"):
        picks(far(), "lab/net/cat==3.0")
    picks(far(False), "lab/net/cat")
    assert picks(far(), "lab/net/cat") == {"lab/net 1.1.0"}


def test_offline_passes_over_what_is_half_known(zoo, far):
    zoo.put("lab/best", "1.0.0", {"cat": 0.99})
    picks(far(False), "lab/net/cat")
    far(False).files.refs(RepositoryId("lab", "best"))
    assert picks(far(), "cat") == {"lab/net 1.0.0"}
    with pytest.raises(OfflineError):
        picks(far(), "lab/best/cat")
    with pytest.raises(ResolutionError, match=r"lab/best cannot be read .*is not in the cache"):
        picks(far(), "newt")


def test_offline_prefers_what_the_cache_has_whole(zoo, far):
    picks(far(False), "lab/net/cat")
    catalog = far(False)
    (old,) = catalog.releases(NET)
    manifest = catalog.manifest(NET, old.commit)
    for source in files_of(NET, old.commit, manifest, manifest.module("cat", "lab/net")):
        for file in source.files:
            hold(catalog.files.cache, file)
    newer(zoo)
    picks(far(False), "lab/net/cat")
    assert picks(far(False), "lab/net/cat") == {"lab/net 1.1.0"}
    assert picks(far(), "lab/net/cat") == {"lab/net 1.0.0"}
    assert picks(far(), "cat") == {"lab/net 1.0.0"}
    # Of the dog neither is there.
    assert picks(far(), "lab/net/dog") == {"lab/net 1.1.0"}


def hold(cache, file):
    """A file of that size where the cache keeps it."""
    path = cache._at(file.sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(file.size))


def test_offline_what_is_locked_stays(zoo, far):
    newer(zoo)
    zoo.lock({"cat": "lab/net/cat", "dog": "dog"}, catalog=far(False))
    prefer = read_lock(zoo.folder).preferences
    assert picks(far(), "lab/net/cat", prefer=prefer) == {"lab/net 1.1.0"}
    zoo.yank(NET, "1.1.0", "wrong labels")
    far(False).releases(NET)
    wants = {"cat": "lab/net/cat", "dog": "dog", "cow": "lab/net/cow"}
    assert {version for version, _ in zoo.lock(wants, catalog=far()).values()} == {"1.1.0"}


def test_offline_what_is_locked_does_not_move_because_the_cache_lacks_it(zoo, far, tmp_path):
    newer(zoo)
    zoo.lock({"cat": "lab/net/cat", "dog": "dog"}, catalog=Catalog(zoo.hub, Cache(tmp_path / "another")))
    prefer = read_lock(zoo.folder).preferences
    catalog = far(False)
    catalog.manifest(NET, catalog.releases(NET)[1].commit)
    for ref in ("lab/net/cat", "dog"):
        assert picks(far(), ref) == {"lab/net 1.0.0"}
        with pytest.raises(OfflineError):
            picks(far(), ref, prefer=prefer)


def test_the_provider_of_the_lock_stays_when_its_file_is_lost_but_cached(zoo):
    zoo.lock({"ape": "*"})
    zoo.put("lab/zoo", "1.0.0", {"ape": 0.5})
    zoo.lose("lab/pets", "trunk/graph.json")
    assert picks(zoo.catalog, "ape", prefer=read_lock(zoo.folder).preferences) == {"lab/zoo 1.0.0"}
    module, trunk = read_lock(zoo.folder).modules[0], read_lock(zoo.folder).trunks[0]
    for file in (*module.files, *trunk.files):
        hold(zoo.catalog.files.cache, file)
    assert picks(zoo.catalog, "ape", prefer=read_lock(zoo.folder).preferences) == {"lab/pets 1.0.0"}


def test_lines_that_are_removed_let_the_others_stay(zoo):
    wants = {"cat": "lab/net/cat@main", "dog": "dog", "ape": "*"}
    before = zoo.lock(wants)
    yanked(zoo)
    for label in ("ape", "dog"):
        del wants[label]
        after = zoo.lock(wants)
        assert after == {label: before[label] for label in wants}
        assert zoo.changes == [f"{label}: lab/{'pets' if label == 'ape' else 'net'} 1.0.0 → removed"]


def test_together_they_still_come_from_one_release(zoo):
    zoo.lock({"cat": "lab/net/cat@main"})
    newer(zoo)
    with pytest.raises(ResolutionError, match="all modules of one repository come from one release"):
        zoo.lock({"cat": "lab/net/cat@v1.0.0", "dog": "lab/net/dog@v1.1.0"})
