import json
from pathlib import Path

import jsonschema
import pytest

from modhub.errors import ManifestError, SchemaVersionError
from modhub.project.lock import Lock, lock_of
from modhub.project.resolver import resolve
from modhub.project.toml import Constraints, Project
from modhub.text import pretty_json
from tests.support.paper import digest
from tests.support.releases import ReleaseHub, trunk_info, with_statistics

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas/lock.schema.json").read_text())


@pytest.fixture
def zoo(tmp_path):
    zoo = ReleaseHub(tmp_path)
    zoo.put("lab/r20", "1.0.0", {"cat": 0.8, "dog": 0.7})
    zoo.put("lab/r20", "1.1.0", {"cat": 0.8, "dog": 0.7})
    return zoo


@pytest.fixture
def puma(zoo):
    """A commit without a release."""
    return zoo.put("zoo/big", None, {"mountain lion": 0.6}).commit


@pytest.fixture
def project(puma):
    wants = {"dog": "*", "cat": "lab/r20<2", "puma": f"zoo/big/mountain lion@{puma}"}
    return Project("pets", Project.of(wants).wants, Constraints(("mit",), 0.5, 2))


@pytest.fixture
def lock(zoo, project):
    return lock_of(project, resolve(project, zoo.catalog), lambda repository, revision: "0" * 40)


def test_says_everything_and_nothing_else(lock, project, puma):
    written = json.loads(lock.to_bytes())
    jsonschema.validate(written, SCHEMA)
    assert [
        (module["label"], module["ref"], module["repository"], module["version"], module["module"])
        for module in written["modules"]
    ] == [
        ("dog", "*", "lab/r20", "1.1.0", "dog"),
        ("cat", "lab/r20/cat<2", "lab/r20", "1.1.0", "cat"),
        ("puma", f"zoo/big/mountain lion@{puma}", "zoo/big", None, "mountain lion"),
    ]
    assert written["modules"][0]["files"] == [
        {"path": "modules/dog/module.json", "sha256": digest("json dog"), "size": 10},
        {"path": "modules/dog/module.safetensors", "sha256": digest("dog"), "size": 20},
    ]
    assert written["constraints"] == {"licenses": ["mit"], "min-recall": 0.5, "max-trunks": 2}
    assert [trunk["sha256"] for trunk in written["trunks"]] == sorted(
        [digest("trunk lab/r20"), digest("trunk zoo/big")]
    )
    assert lock.fulfils(project)


def test_reading_undoes_writing(lock):
    again = Lock.from_bytes(lock.to_bytes())
    assert again == lock
    assert again.to_bytes() == lock.to_bytes()


def test_fulfils_only_its_own_project(lock, project):
    assert not lock.fulfils(Project(project.name, project.wants[:-1], project.constraints))
    assert not lock.fulfils(Project(project.name, project.wants))
    assert lock.fulfils(Project("another name", project.wants, project.constraints))


def test_preferences_keep_what_was_chosen(lock, project, zoo, puma):
    zoo.put("lab/r20", "1.2.0", {"cat": 0.9, "dog": 0.9})
    kept = resolve(project, zoo.catalog, prefer=lock.preferences)
    fresh = resolve(project, zoo.catalog)
    assert {str(r) for r in kept.releases.values()} == {"1.1.0", puma[:12]}
    assert {str(r) for r in fresh.releases.values()} == {"1.2.0", puma[:12]}


def test_trunk_in_another_repository(zoo):
    there = trunk_info("lab/r20", repository="lab/base", revision="v1.0.0")
    zoo.put("lab/heads", "1.0.0", {"newt": 0.9}, trunk=there)
    project = Project.of(["lab/heads/newt", "lab/r20/cat"])
    asked = []

    def commit_of(repository, revision):
        asked.append((str(repository), revision))
        return "f" * 40

    lock = lock_of(project, resolve(project, zoo.catalog), commit_of)
    assert asked == [("lab/base", "v1.0.0")]
    # one trunk for both, from the repository that comes first by name
    assert [(str(trunk.repository), trunk.commit) for trunk in lock.trunks] == [("lab/base", "f" * 40)]


def heads_on_one_trunk(root, statistics):
    """A repository for each name, all on one trunk whose statistics are of the parent given."""
    zoo, trunk = ReleaseHub(root), trunk_info("base")
    for repository, parent in statistics.items():
        label = repository.rpartition("/")[2]
        zoo.put(repository, "1.0.0", {label: 0.9}, trunk=with_statistics(trunk, parent))
    project = Project.of([f"{name}/{name.rpartition('/')[2]}" for name in statistics])
    return lock_of(project, resolve(project, zoo.catalog), lambda repository, revision: "0" * 40)


def test_heads_on_one_trunk_lock_the_statistics_of_each(tmp_path):
    lock = heads_on_one_trunk(tmp_path / "one", {"me/dog": "d", "us/cat": "c", "lab/newt": "d"})
    jsonschema.validate(json.loads(lock.to_bytes()), SCHEMA)
    assert Lock.from_bytes(lock.to_bytes()) == lock
    # the dog's and the newt's files are the same: the repository that comes first by name has them
    assert [(str(trunk.repository), [file.sha256 for file in trunk.files][2:]) for trunk in lock.trunks] == [
        ("lab/newt", [digest("statistics d")]),
        ("us/cat", [digest("statistics c")]),
    ]
    assert lock.passes == {digest("trunk base"): lock.trunks}
    again = heads_on_one_trunk(tmp_path / "other", {"lab/newt": "d", "us/cat": "c", "me/dog": "d"})
    assert [trunk.files for trunk in again.trunks] == [trunk.files for trunk in lock.trunks]


def changed(lock, change):
    value = lock.to_dict()
    change(value)
    return pretty_json(value)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda v: v.update(schema_version=2),
            SchemaVersionError,
            "modhub.lock has schema version 2; this modhub reads up to 1. "
            "Upgrade it with: pip install --upgrade modhub",
        ),
        (
            lambda v: v["modules"][1].update(commit="main"),
            ManifestError,
            "'commit' in 'modules[1]' in modhub.lock is not a commit id (40 hex digits). "
            "Write the lock again with: modhub lock",
        ),
        (
            lambda v: v["modules"][1].update(version="one"),
            ManifestError,
            "modhub.lock is damaged: 'one' is not a version. Write the lock again with: modhub lock",
        ),
        (
            lambda v: v["modules"][0]["files"][0].update(path="../x"),
            ManifestError,
            "modhub.lock is damaged: The path '../x' does not stay inside its repository. "
            "Write the lock again with: modhub lock",
        ),
        (
            lambda v: v["modules"][0]["files"][0].update(size=-1),
            ManifestError,
            "'size' in 'files[0]' in 'modules[0]' in modhub.lock is -1; it should be 0 to 9007199254740992. "
            "Write the lock again with: modhub lock",
        ),
        (
            lambda v: v["trunks"].pop(),
            ManifestError,
            None,
        ),
    ],
)
def test_mistakes_are_named(lock, change, error, message):
    with pytest.raises(error) as caught:
        Lock.from_bytes(changed(lock, change))
    if message is None:
        assert str(caught.value).endswith(
            "in modhub.lock stands on a trunk that it does not list. Write the lock again with: modhub lock"
        )
    else:
        assert str(caught.value) == message


def test_truncated(lock):
    with pytest.raises(ManifestError, match=r"^modhub\.lock is not valid JSON \(.*truncated\.$"):
        Lock.from_bytes(lock.to_bytes()[:-20])
