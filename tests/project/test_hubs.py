"""`[hubs]` of modhub.toml: whose hub a namespace is, whatever other hubs say."""

import json
from pathlib import Path

import jsonschema
import pytest

from modhub.api.add import add
from modhub.api.lock import lock_to
from modhub.api.project_files import current_lock, read_lock
from modhub.catalog.catalog import Catalog
from modhub.errors import CompositionError, ManifestError, NotFoundError
from modhub.hub.cache import Cache
from modhub.project.toml import Project
from tests.support.releases import ReleaseHub

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas/lock.schema.json").read_text())
TOML = '[composition]\nname = "t"\n[modules]\n{}\n[hubs]\n{}\n'


@pytest.fixture
def two(tmp_path):
    """A default hub and another; on the first somebody else took the name of the second's namespace."""
    ours, theirs = ReleaseHub(tmp_path / "ours"), ReleaseHub(tmp_path / "theirs")
    ours.put("corp/net", "1.0.0", {"cat": 0.5, "dog": 0.5})
    theirs.put("corp/net", "9.0.0", {"cat": 0.99, "dog": 0.99}, trunk="evil")
    theirs.put("corp/bait", "1.0.0", {"newt": 0.99}, trunk="evil")
    theirs.put("zoo/net", "1.0.0", {"newt": 0.8, "dog": 0.6})
    ours.put("zoo/net", "7.0.0", {"newt": 0.9, "dog": 0.9})
    return ours.hub.address, Catalog(theirs.hub, Cache(tmp_path / "cache"))


def locked(folder, catalog, modules, hubs):
    (folder / "modhub.toml").write_text(TOML.format(modules, hubs))
    report = lock_to(folder, hub=catalog)
    return {f"{module.repository} {module.version}" for module in report.lock.modules}


def test_a_bound_namespace_is_asked_from_its_hub_alone(two, tmp_path):
    address, catalog = two
    bound = f'corp = "{address}"'
    assert locked(tmp_path, catalog, 'cat = "corp/net/cat"', "") == {"corp/net 9.0.0"}
    assert "hubs" not in json.loads((tmp_path / "modhub.lock").read_text())
    assert locked(tmp_path, catalog, 'cat = "corp/net/cat"', bound) == {"corp/net 1.0.0"}
    assert locked(tmp_path, catalog, 'cat = "Corp/net/cat"', bound) == {"Corp/net 1.0.0"}
    written = json.loads((tmp_path / "modhub.lock").read_text())
    jsonschema.validate(written, SCHEMA)
    assert written["hubs"] == {"corp": address}
    # Bare labels: of each hub what its namespaces have.
    assert locked(tmp_path, catalog, 'newt = "*"', bound) == {"zoo/net 1.0.0"}
    assert locked(tmp_path, catalog, 'cat = "*"', bound) == {"corp/net 1.0.0"}
    assert locked(tmp_path, catalog, 'cat = "corp/net/cat"\nnewt = "*"', bound) == {
        "corp/net 1.0.0",
        "zoo/net 1.0.0",
    }
    with pytest.raises(NotFoundError, match="There is no repository 'corp/bait'"):
        locked(tmp_path, catalog, 'newt = "corp/bait/newt"', bound)


def test_the_lock_says_where(two, tmp_path):
    address, catalog = two
    locked(tmp_path, catalog, 'cat = "corp/net/cat"', f'corp = "{address}"')
    lock = current_lock(tmp_path)
    (module,) = lock.modules
    there = catalog.bound(lock.hubs)
    assert there.files.at(module.repository).address == address
    assert there.manifest(module.repository, module.commit).module("cat", "corp/net")
    # The binding is part of what was asked for: without it the lock is another's.
    (tmp_path / "modhub.toml").write_text(TOML.format('cat = "corp/net/cat"', ""))
    with pytest.raises(CompositionError, match="the constraints, the hubs or the order"):
        current_lock(tmp_path)
    lock_to(tmp_path, hub=catalog)
    assert read_lock(tmp_path).hubs == {}
    assert f"{read_lock(tmp_path).modules[0].version}" == "9.0.0"


def test_add_asks_the_bound_hub(two, tmp_path):
    address, catalog = two
    (tmp_path / "modhub.toml").write_text(TOML.format("", f'corp = "{address}"'))
    assert [want.label for want in add(tmp_path, ["corp/net"], hub=catalog)] == ["cat", "dog"]
    with pytest.raises(NotFoundError):
        add(tmp_path, ["corp/bait"], hub=catalog)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('corp = "hub.example.org"', "'corp' in 'hubs' in modhub.toml should be a hub's address, not 'hub."),
        ('corp = "../hub"', "'corp' in 'hubs' in modhub.toml should be a hub's address, not '../hub'"),
        ('"a/b" = "hf"', "'a/b' in 'hubs' in modhub.toml is not a namespace."),
        ('corp = "hf"\nCorp = "hf"', "'Corp' stands in 'hubs' in modhub.toml twice."),
        ("corp = 1", "'corp' in 'hubs' in modhub.toml"),
    ],
)
def test_mistakes_are_named(line, said):
    with pytest.raises(ManifestError) as caught:
        Project.from_toml(TOML.format("", line))
    assert caught.value.message.startswith(said)
