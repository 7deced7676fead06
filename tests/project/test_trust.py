"""A bare label is served from a trusted namespace or by whom the user names, never by the largest claim."""

import pytest

from modhub.api.catalogs import TRUSTED_VARIABLE
from modhub.api.lock import lock_to
from modhub.api.pull import pull
from modhub.catalog.catalog import Catalog
from modhub.errors import AmbiguousProviderError, OfflineError
from modhub.hub.cache import Cache
from modhub.hub.directory import DirectoryHub
from modhub.project.toml import Want, add_want, new_project
from modhub.reporter import Reporter
from tests.support.releases import ReleaseHub


class OthersHub(DirectoryHub):
    """A hub of other people, where `me` and the organisation `team` are the user's."""

    local = False

    def namespaces(self):
        return frozenset({"me", "team"})


class Chooser(Reporter):
    """Takes an option by its text; `asked` has what it was asked."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def choose(self, question, options):
        self.asked.append((question, tuple(options)))
        return None if self.answer is None else list(options).index(self.answer)


class World(ReleaseHub):
    def __init__(self, root):
        super().__init__(root)
        self.folder = root / "project"
        self.folder.mkdir()
        self.others = OthersHub(root / "hub")

    def catalog_of_others(self, *, offline=False):
        return Catalog(self.others, Cache(self.folder / "cache"), offline=offline)

    def lock(self, wants, *, catalog=None, hubs="", upgrade=False, answer=None):
        """Which repository the lock has for each label, and what was asked."""
        text = new_project("t")
        for label, ref in wants.items():
            text = add_want(text, Want.parse(label, ref))
        (self.folder / "modhub.toml").write_text(text + hubs)
        self.chooser = Chooser(answer)
        hub = catalog or self.catalog_of_others()
        report = lock_to(self.folder, hub=hub, upgrade=upgrade, reporter=self.chooser)
        return {module.want.label: str(module.repository) for module in report.lock.modules}


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.put("evil/best", "1.0.0", {"cat": 1.0, "dog": 1.0, "emu": 1.0})
    world.put("me/pets", "1.0.0", {"cat": 0.5})
    world.put("Team/zoo", "1.0.0", {"dog": 0.4})
    world.put("lab/net", "1.0.0", {"dog": 0.6, "cow": 0.6, "emu": 0.1})
    world.put("lab/more", "1.0.0", {"emu": 0.2})
    return world


@pytest.mark.parametrize(
    ("wants", "expected"),
    [
        # the user's own namespace, and that of an organisation, however it is written
        ({"cat": "*"}, {"cat": "me/pets"}),
        ({"dog": "*"}, {"dog": "Team/zoo"}),
        ({"dog": ">=1"}, {"dog": "Team/zoo"}),
        # a namespace that the project names; of two such the one whose module another class is from
        ({"cow": "lab/net/cow", "emu": "*"}, {"cow": "lab/net", "emu": "lab/net"}),
        ({"cow": "lab/net/cow", "dog": "*"}, {"cow": "lab/net", "dog": "lab/net"}),
        ({"emu": "evil/best/emu", "cat": "me/pets/cat"}, {"emu": "evil/best", "cat": "me/pets"}),
    ],
)
def test_only_trusted_namespaces_serve_a_bare_label(world, wants, expected):
    assert world.lock(wants) == expected
    assert world.chooser.asked == []


@pytest.mark.parametrize(
    ("wants", "label", "candidates", "message"),
    [
        (
            {"emu": "*"},
            "emu",
            ("evil/best/emu", "lab/more/emu", "lab/net/emu"),
            "'emu' is offered only in namespaces that are not trusted: evil/best/emu, lab/more/emu, "
            "lab/net/emu. Name one of them by its ref, or list a namespace that you trust in MODHUB_TRUSTED.",
        ),
        (
            {"cow": "*"},
            "cow",
            ("lab/net/cow",),
            "'cow' is offered only in namespaces that are not trusted: lab/net/cow. "
            "Name one of them by its ref, or list a namespace that you trust in MODHUB_TRUSTED.",
        ),
        (
            {"bird": "emu", "dog": "lab/other-net/dog"},
            "bird",
            ("lab/more/emu", "lab/net/emu"),
            "'bird' is offered by 2 repositories: lab/more/emu, lab/net/emu. Name one of them by its ref.",
        ),
    ],
)
def test_none_or_several_are_listed_or_asked_for(world, wants, label, candidates, message):
    world.put("lab/other-net", "1.0.0", {"dog": 0.1})
    with pytest.raises(AmbiguousProviderError) as caught:
        world.lock(wants)
    assert str(caught.value) == message
    assert (caught.value.label, caught.value.candidates) == (label, candidates)
    assert not (world.folder / "modhub.lock").exists()
    # Somebody who can be asked chooses once; the lock keeps it, an upgrade too.
    chosen = candidates[-1].rpartition("/")[0]
    assert world.lock(wants, answer=candidates[-1])[label] == chosen
    assert world.chooser.asked == [(caught.value.message, candidates)]
    world.put("lab/newest", "1.0.0", {"emu": 1.0, "cow": 1.0})
    assert world.lock({**wants, "cat": "*"})[label] == chosen
    assert world.lock({**wants, "cat": "*"}, upgrade=True)[label] == chosen


def test_a_namespace_can_be_listed_or_bound_to_a_hub(world, monkeypatch):
    hubs = f'\n[hubs]\nevil = "{world.others.address}"\n'
    with pytest.raises(AmbiguousProviderError):
        world.lock({"emu": "*"})
    assert world.lock({"emu": "*"}, hubs=hubs) == {"emu": "evil/best"}
    (world.folder / "modhub.lock").unlink()
    monkeypatch.setenv(TRUSTED_VARIABLE, "other, EVIL")
    assert world.lock({"emu": "*"}) == {"emu": "evil/best"}


def test_a_directory_of_the_users_is_trusted(world):
    assert world.lock({"cow": "*"}, catalog=world.catalog) == {"cow": "lab/net"}
    with pytest.raises(AmbiguousProviderError, match="'emu' is offered by 3 repositories: evil/best/emu, "):
        world.lock({"emu": "*"}, catalog=world.catalog)


def test_a_provider_that_may_not_stay_gives_way_to_a_trusted_one_only(world):
    assert world.lock({"cow": "*"}, answer="lab/net/cow") == {"cow": "lab/net"}
    world.put("evil/best", "2.0.0", {"cow": 1.0})
    world.put("me/cows", "3.0.0", {"cow": 0.1})
    assert world.lock({"cow": ">=2"}) == {"cow": "me/cows"}
    with pytest.raises(AmbiguousProviderError, match="namespaces that are not trusted: evil/best/cow"):
        world.lock({"cow": ">=2,<3"})


def test_pull_asks_too(world):
    assert world.lock({"cat": "*"}) == {"cat": "me/pets"}
    with pytest.raises(AmbiguousProviderError, match="'emu' is offered only in namespaces"):
        pull("emu", hub=world.catalog_of_others())


def test_offline_the_users_namespaces_are_those_last_read(world):
    assert world.lock({"dog": "*"}) == {"dog": "Team/zoo"}
    (world.folder / "modhub.lock").unlink()
    assert world.lock({"dog": "*"}, catalog=world.catalog_of_others(offline=True)) == {"dog": "Team/zoo"}
    (world.folder / "modhub.lock").unlink()
    empty = Catalog(world.others, Cache(world.folder / "empty"), offline=True)
    with pytest.raises(OfflineError):
        world.lock({"dog": "Team/zoo/dog"}, catalog=empty)
