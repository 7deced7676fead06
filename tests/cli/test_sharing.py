import json
import os
import shutil
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modhub.server.auth.accounts import Accounts
from modhub.store.model import Add
from modhub.store.records import RepositoryKey
from modhub.store.store import Store
from modhub.text import pretty_json
from tests.support.console import Console
from tests.support.paper import digest, write_paper_artifact


@pytest.fixture
def modhub(tmp_path, monkeypatch, capsys):
    console = Console(tmp_path, monkeypatch, capsys)
    write_paper_artifact(tmp_path / "pets", {"cat": 0.8, "dog": 0.7})
    write_paper_artifact(tmp_path / "zoo", {"dog": 0.9, "great white shark": None}, trunk="zoo", licence=None)
    return console


@pytest.fixture
def shop(modhub):
    modhub.good("push", "pets", "lab/pets", "--version", "1.0.0")
    modhub.good("push", "zoo", "zoo/big", "--version", "2.0")
    return modhub


def test_push_says_what_it_did(modhub):
    first = modhub.good("push", "pets", "lab/pets", "--version", "1.0.0", "--json").json
    assert set(first) == {
        "repository",
        "version",
        "commit",
        "hub",
        "modules",
        "files",
        "bytes",
        "existed",
    }
    assert (first["repository"], first["version"], first["modules"]) == ("lab/pets", "1.0.0", 2)
    assert first["existed"] is False
    again = modhub.good("push", "pets", "lab/pets", "--version", "1.0.0", "--json").json
    assert again["existed"] is True
    assert again["bytes"] == 0
    assert again["commit"] == first["commit"]


def test_search(shop):
    rows = shop.good("search", "cat", "dog", "--json").json["modules"]
    assert [(row["ref"], row["version"], row["recall"]) for row in rows] == [
        ("lab/pets/cat", "1.0.0", 0.8),
        ("zoo/big/dog", "2.0", 0.9),
        ("lab/pets/dog", "1.0.0", 0.7),
    ]
    assert shop.good("search", "dog", "--license", "MIT", "-q").out == "lab/pets/dog\n"
    assert shop.good("search", "unicorn").out == ""
    nothing = f"No modules found on {shop.hub}.\nChoose another hub with --hub.\n"
    assert shop.good("search", "unicorn").err == nothing
    near = shop.good("search", "catt", "dog")
    assert near.err.startswith("No class 'catt'. Similar: cat.\n")
    assert "zoo/big/dog" in near.out
    assert shop.good("search", "catt", "--json").json == {"modules": [], "nearest": {"catt": ["cat"]}}
    # There are cats, but none under that licence.
    assert shop.good("search", "cat", "--license", "gpl-3.0").err == (
        f"No modules found on {shop.hub} with --license gpl-3.0.\n"
        "Remove --license, or choose another hub with --hub.\n"
    )
    table = shop.good("search", "cat").out
    assert "lab/pets/cat" in table
    assert "80.0 %" in table


@pytest.mark.parametrize("label", ["\x1b[2J\x1b]0;owned\x07cat", "cat\ud800", "\x9b2Jcat"])
def test_search_says_what_it_skipped_and_prints_no_sign_of_it(shop, label):
    store = Store(shop.hub)
    key = RepositoryKey.model("evil/x")
    store.repositories.create(key)
    manifest = json.loads((shop.home / "pets" / "modhub.json").read_bytes())
    manifest["modules"][0].update(label=label, aliases=["cat"])
    card = b"---\ntags: [modhub, 'class:cat']\n---\n"
    made = store.commits.create(
        key, [Add("README.md", card), Add("modhub.json", json.dumps(manifest).encode())], title="x"
    )
    store.tags.create(key, "v1", revision=made.id)
    found = shop.good("search", "cat", "--json")
    assert [row["ref"] for row in found.json["modules"]] == ["lab/pets/cat"]
    place = f"'label' in 'modules[0]' in modhub.json of 'evil/x' at {made.id[:12]}"
    assert found.err == (
        f"Warning: Skipped 1 repository that cannot be read. The first: {place} "
        f"holds a control character or a lone surrogate: {label!r}.\n"
    )
    assert found.err.isascii()
    assert "\x1b" not in found.err
    assert shop.good("search", "cat", "-q").out == "lab/pets/cat\n"


def test_second_module_costs_kilobytes(shop):
    first = shop.good("pull", "lab/pets/cat>=1,<2", "--json").json
    second = shop.good("pull", "lab/pets/dog", "--json").json
    assert [module["label"] for module in second["modules"]] == ["dog"]
    assert first["downloaded_bytes"] > 20_000
    assert second["downloaded_bytes"] < 5_000
    assert shop.good("pull", "lab/pets/dog", "--json").json["downloaded_bytes"] == 0


def test_the_next_command_asks_the_hub_that_was_named(shop):
    assert shop.good("search", "cat").err.endswith("next: modhub pull lab/pets/cat\n")
    named = shop.good("search", "cat", "--hub", shop.hub).err
    assert named.endswith(f"next: modhub pull lab/pets/cat --hub {shop.hub}\n")
    assert f"The hub is {shop.hub}; name another with --hub." in shop("info", "no/such").err


def test_pull_bare_label_and_directory(shop):
    assert [m["repository"] for m in shop.good("pull", "cat", "--json").json["modules"]] == ["lab/pets"]
    several = shop("pull", "dog")
    assert several.code == 1
    assert several.err == (
        "Error: 'dog' is offered by 2 repositories: lab/pets/dog, zoo/big/dog.\n"
        "Name one of them by its ref.\n"
    )
    shop.good("pull", "lab/pets/cat", "-o", "here")
    report = shop.good("verify", "here", "--json").json
    assert (report["files"], report["modules"]) == (5, 1)
    # what was pulled can be pushed elsewhere
    shop.good("push", "here", "me/cat", "--version", "0.1")


def test_cache_says_how_large_it_is_and_prunes(shop):
    shop.good("pull", "lab/pets/cat")
    kept = shop.good("cache", "--json").json
    assert kept["files"] > 2
    assert kept["bytes"] > 1000
    assert kept["removed"] is None
    assert f"{kept['files']} files, " in shop.good("cache").out
    assert shop.good("cache", "-q").out == f"{kept['bytes']}\n"
    assert shop.good("cache", "--prune", "1", "--json").json["removed"] == {"files": 0, "bytes": 0}
    for path in Path(kept["path"]).glob("files/*/*"):
        os.utime(path, (0, 0))
    counted = shop.good("cache", "--prune", "1", "--dry-run").out
    assert counted.startswith(f"{kept['files']} files (")
    assert "would be removed" in counted
    assert shop.good("cache", "--prune", "1", "--json").json["files"] == 0
    shop.good("pull", "lab/pets/cat")
    assert shop("cache", "--dry-run").code == 2


def test_info_says_what_decomposing_took(modhub, tmp_path):
    path = tmp_path / "pets" / "modhub.json"
    took = {"seconds": 12.3, "cores": 1.9, "processor": "EPYC", "kwh": 7.8e-05, "power_model": "12 W a core"}
    path.write_bytes(pretty_json({**json.loads(path.read_text()), "energy": took}))
    modhub.good("push", "pets", "lab/pets", "--version", "1.0.0")
    assert modhub.good("info", "lab/pets", "--json").json["energy"] == took
    line = "decomposed in 12.3 s on 1.9 cores, 0.078 Wh (12 W a core)"
    assert line in modhub.good("info", "lab/pets").out.splitlines()
    modhub.good("push", "zoo", "zoo/big", "--version", "2.0")
    assert modhub.good("info", "zoo/big", "--json").json["energy"] is None
    assert "decomposed in" not in modhub.good("info", "zoo/big").out


def test_info_versions_yank(shop):
    told = shop.good("info", "lab/pets/cat", "--json").json
    assert told["module"]["label"] == "cat"
    assert [module["label"] for module in told["modules"]] == ["cat"]
    shop.good("yank", "lab/pets==1.0.0", "--reason", "labels shifted")
    assert shop.good("versions", "lab/pets", "--json").json["releases"][0]["yanked"] == "labels shifted"
    assert "yanked: labels shifted" in shop.good("versions", "lab/pets").out
    again = shop.good("yank", "lab/pets==1.0.0")
    assert again.out == "lab/pets 1.0.0 is already yanked: labels shifted\n"
    other = shop.good("yank", "lab/pets==1.0.0", "--reason", "all wrong")
    assert other.out == "lab/pets 1.0.0 is yanked: all wrong (previous reason: labels shifted)\n"
    assert "yanked: all wrong" in shop.good("versions", "lab/pets").out
    warning = "Warning: lab/pets 1.0.0 is yanked: all wrong.\n"
    assert warning in shop.good("pull", "lab/pets/cat==1.0.0").err
    shop.good("init")
    shop.good("add", "lab/pets/cat==1.0.0", "lab/pets/dog==1.0.0")
    assert shop.good("lock").err.count(warning) == 1
    assert shop("pull", "lab/pets/cat").code == 1
    assert shop("pull", "lab/pets/cat==1.0.0").code == 0
    shop.good("yank", "lab/pets==1.0.0", "--undo")
    assert shop("pull", "lab/pets/cat").code == 0


def test_a_bare_label_that_is_named_twice_is_pulled_once(shop):
    pulled = shop.good("pull", "cat", "Cat", "lab/pets/cat", "--json").json
    assert [module["label"] for module in pulled["modules"]] == ["cat"]


def test_a_release_is_called_as_it_was_pushed(shop):
    for arguments in (("--reason", "wrong"), ("--undo",)):
        told = shop.good("yank", "lab/pets==1.0", *arguments, "--json").json
        assert told["version"] == "1.0.0"


def test_a_release_is_removed_by_an_administrator_only(shop):
    refused = shop("release", "remove", "lab/pets==1.0")
    assert refused.code == 1
    assert refused.err == (
        "Error: Removing a release breaks every lock that pins lab/pets==1.0.\n"
        "Yank it instead: modhub yank lab/pets==1.0; or pass --force.\n"
    )
    told = shop.good("release", "remove", "lab/pets==1.0", "--force")
    assert told.out == "Release 1.0.0 of lab/pets is removed.\n"
    assert shop("pull", "lab/pets/cat==1.0.0").code == 1
    again = shop("push", "zoo", "lab/pets", "--version", "1.0.0")
    assert again.code == 1
    assert "Release v1.0.0 of 'lab/pets' was removed; only the same files may become 'v1.0.0'." in again.err
    shop.good("push", "pets", "lab/pets", "--version", "1.0.0")
    local = shop("push", "zoo", "lab/pets", "--version", "1.0.0+cpu", "--force")
    assert local.code == 1
    assert "Release 1.0.0 of 'lab/pets' exists, and 1.0.0+cpu is the same version." in local.err


def test_diff(shop):
    report = shop.good("diff", "lab/pets", "zoo/big", "--json").json
    assert report["added"] == ["great white shark"]
    assert report["removed"] == ["cat"]
    dog = report["changed"]["dog"]
    assert dog["recall"] == [0.7, 0.9]
    assert dog["license"] == ["mit", None]
    told = shop.good("diff", "lab/pets", "zoo/big").out
    assert "recall: 70.00 % → 90.00 %" in told
    assert "license: mit → –" in told
    trunk = dog["trunk"]
    assert f"trunk: {trunk[0][:12]} → {trunk[1][:12]}" in told
    assert shop.good("diff", "lab/pets", "lab/pets").out == "No differences.\n"


def damage(name):
    """Ways to spoil the artifact in `pets`."""

    def truncate(directory):
        path = next((directory / "trunk").glob("*.safetensors"))
        path.write_bytes(path.read_bytes()[:100])

    def alter(directory):
        path = directory / "modules/cat/module.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"!")

    def remove(directory):
        (directory / "modules/dog/module.json").unlink()

    def newer(directory):
        path = directory / "modhub.json"
        path.write_bytes(pretty_json({**json.loads(path.read_text()), "schema_version": 99}))

    def shorten(directory):
        path = directory / "modhub.json"
        path.write_bytes(path.read_bytes()[:200])

    return locals()[name]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "truncate",
            f"Error: 'pets/trunk/{digest('trunk trunk')}.safetensors' "
            "has 100 bytes, expected 25,000.\nPull or decompose it again.\n",
        ),
        (
            "alter",
            "Error: 'pets/modules/cat/module.safetensors' has the sha256 "
            f"{digest('trunk cat' * 9 + 'trunk ca!')[:12]}…, expected {digest('trunk cat' * 10)[:12]}….\n"
            "Pull or decompose it again.\n",
        ),
        (
            "remove",
            "Error: 'pets/modules/dog/module.json' is missing.\nPull or decompose it again.\n",
        ),
        (
            "newer",
            "Error: 'pets/modhub.json' has schema version 99; this modhub reads up to 1.\n"
            "Upgrade it with: pip install --upgrade modhub\n",
        ),
    ],
)
def test_damage_is_found(modhub, how, message):
    damage(how)(Path("pets"))
    assert modhub("verify", "pets", "-q") == (result := modhub("verify", "pets", "-q"))
    assert (result.code, result.out, result.err) == (1, "", message)
    pushed = modhub("push", "pets", "lab/pets", "--version", "1.0.0")
    assert pushed.code == 1
    assert modhub("versions", "lab/pets").code == 1, "nothing of it may be on the hub"


def said_otherwise(directory, change):
    """`modhub.json` changed, every digest still true."""
    path = directory / "modhub.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_bytes(pretty_json(document))


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("label", lambda d: d["modules"][0].update(label="zzz")),
        ("slug", lambda d: d["modules"][0].update(slug="zzz")),
        ("aliases", lambda d: d["modules"][0].update(aliases=["dog"])),
        ("form", lambda d: d["modules"][0].update(form="standalone")),
        ("metrics", lambda d: d["modules"][0]["metrics"].update(recall=1)),
        ("metrics", lambda d: d["modules"][0].update(metrics={})),
        ("kept_channels_fraction", lambda d: d["modules"][0].update(kept_channels_fraction=0.1)),
        ("license", lambda d: d.update(license="cc0-1.0")),
        ("license", lambda d: d.update(license=None)),
        ("input", lambda d: d["input"].update(mean=[0.4])),
        ("method", lambda d: d["method"]["parameters"].update(max_loss=0)),
        ("parent", lambda d: d["parent"].update(name="another")),
        ("parent", lambda d: d["parent"].update(labels=["cat", "zzz"])),
        ("trunk", lambda d: d["trunk"].update(flops=1)),
    ],
)
def test_manifests_that_contradict_one_another(modhub, key, change):
    assert modhub("verify", "pets", "-q").code == 0
    said_otherwise(Path("pets"), change)
    message = (
        f"Error: modules/cat/module.json does not say the same as modhub.json: '{key}' differs.\n"
        "Pull or decompose it again.\n"
    )
    assert modhub("verify", "pets", "-q").err == message
    assert modhub("push", "pets", "lab/pets", "--version", "1.0.0").err == message
    assert modhub("versions", "lab/pets").code == 1, "nothing of it may be on the hub"


def test_a_release_whose_manifests_contradict_one_another(shop):
    store = Store(shop.hub)
    key = RepositoryKey.model("lab/pets")
    said_otherwise(Path("pets"), lambda d: d.update(license="cc0-1.0"))
    made = store.commits.create(
        key, [Add("modhub.json", Path("pets/modhub.json").read_bytes())], title="Other"
    )
    store.tags.create(key, "v1.1.0", revision=made.id)
    result = shop("verify", "lab/pets", "-q")
    assert result.err.startswith("Error: modules/cat/module.json does not say the same as modhub.json: ")


def test_truncated_manifest(modhub):
    damage("shorten")(Path("pets"))
    result = modhub("verify", "pets", "-q")
    assert result.code == 1
    assert result.err.startswith("Error: 'pets/modhub.json' is not valid JSON (")
    assert result.err.endswith("Fetch or build it again; it may be truncated.\n")


GRAMMAR = "A ref is namespace/name[/label][>=1.2,<2 | @revision], or a bare label such as 'cat'.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pull", "a/b/c/d"), f"Error: 'a/b/c/d' is not a ref: it has 4 parts.\n{GRAMMAR}"),
        (
            ("yank", "a/b===abc"),
            f"Error: 'a/b===abc' is not a ref: '===abc' is not a version specifier.\n{GRAMMAR}",
        ),
        (("pull", "a/b>=x"), f"Error: 'a/b>=x' is not a ref: '>=x' is not a version specifier.\n{GRAMMAR}"),
        (
            ("info", "cat>=1@v1"),
            f"Error: 'cat>=1@v1' is not a ref: '>=1@v1' is not a version specifier.\n{GRAMMAR}",
        ),
        (
            ("pull", "lab/pets/cow"),
            "Error: There is no class 'cow' in lab/pets 1.0.0.\nIt has: cat, dog.\n",
        ),
        (
            ("pull", "lab/pets/cat>=3"),
            "Error: 'lab/pets' has no release that matches '>=3'.\nReleases: 1.0.0.\n",
        ),
        (
            ("pull", "lab/pets/cat@v3.0.0"),
            "Error: There is no revision 'v3.0.0' in 'lab/pets'.\nIt has: v1.0.0, main.\n",
        ),
        (
            ("pull", "unicorn"),
            "Error: No repository on this hub has a class 'unicorn'.\n"
            "See what there is with: modhub search\n",
        ),
        (
            ("pull", "lab/pets/cat", "dgo"),
            "Error: No repository on this hub has a class 'dgo'.\nNearest: dog.\n",
        ),
        (
            ("verify", "catt"),
            "Error: No repository on this hub has a class 'catt'.\nNearest: cat.\n",
        ),
        (
            ("pull", "cat>=3"),
            "Error: No provider of 'cat = >=3' will do: 'lab/pets' has no release that matches '>=3'.\n"
            "Allow other releases, or name a repository.\n",
        ),
        (
            ("push", "zoo", "lab/pets", "--version", "1.0.0"),
            "Error: Release 1.0.0 of 'lab/pets' exists with other files.\n"
            "Releases never change; push the next version: --version 1.0.1\n",
        ),
        (
            ("push", "zoo", "zoo", "--version", "1.0.0"),
            "Error: 'zoo' is not a repository id.\n"
            "Write namespace/name, for instance vision-lab/resnet20-cifar10.\n",
        ),
        (
            ("push", "zoo", "zoo/big", "--version", "one"),
            "Error: 'one' is not a version.\nWrite it as in PEP 440, for instance 1.2.0 or 2.0rc1.\n",
        ),
        (
            ("push", "hub", "zoo/big", "--version", "1"),
            "Error: 'hub' holds no modhub.json.\nName a directory written by 'modhub decompose'.\n",
        ),
        (
            ("yank", "lab/pets"),
            "Error: 'lab/pets' does not name one release.\nWrite namespace/name==1.0.0.\n",
        ),
        (
            ("yank", "lab/pets==9"),
            "Error: 'lab/pets' has no release that matches '==9'.\nReleases: 1.0.0.\n",
        ),
        (
            ("pull", "lab/pets", "zoo/big", "-o", "both"),
            "Error: One directory cannot hold modules of 2 repositories.\n"
            "Pull them one by one, or without --out into the cache.\n",
        ),
        (
            ("pull", "lab/pets", "-o", "zoo"),
            "Error: 'zoo' exists already.\n"
            "Choose another directory, remove it, or replace it: --force, or force=True from Python.\n",
        ),
        (
            ("diff", "lab/pets", "hub"),
            "Error: 'hub' holds neither modhub.lock nor modhub.json.\n"
            "Name a build, a project, a directory of modules, or a ref.\n",
        ),
        (
            ("verify", "hub"),
            "Error: 'hub' holds neither modhub.json nor build.json.\n"
            "Name a ref, or a directory that 'modhub decompose', 'pull --out' or 'compose' wrote.\n",
        ),
        (
            ("diff", "cat", "lab/pets"),
            "Error: 'cat' names no repository.\nLook for one with: modhub search cat\n",
        ),
        (
            ("search", "--hub", "ftp://x"),
            "Error: 'ftp://x' is not a hub.\nUse a directory, an http:// or https:// address, or hf.\n",
        ),
    ],
)
def test_one_sentence_and_what_to_do(shop, arguments, message):
    result = shop(*arguments, "-q")
    assert (result.code, result.out, result.err) == (1, "", message)
    assert not Path("both").exists()


def test_a_copy_is_refreshed_in_place(shop):
    assert shop("pull", "lab/pets", "-o", "copy").code == 0
    (Path("copy") / "stray.txt").write_text("left over")
    assert shop("pull", "lab/pets", "-o", "copy", "--force").code == 0
    assert not (Path("copy") / "stray.txt").exists()
    assert (Path("copy") / "modhub.json").is_file()


def test_hub_that_cannot_be_written(shop, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    result = shop("push", "pets", "lab/pets", "--version", "1", "--hub", blocked, "-q")
    assert result.code == 1
    assert result.err == f"Error: The hub '{blocked}' is not a directory.\nPass a directory with --hub.\n"
    inside = shop("push", "pets", "lab/pets", "--version", "1", "--hub", blocked / "hub", "-q")
    assert inside.code == 1
    assert inside.err.startswith(f"Error: '{blocked}")


def test_damaged_blob_is_not_handed_out(shop):
    shop.good("pull", "lab/pets/cat")
    shutil.rmtree("cache")
    for blob in Path("hub").rglob("*"):
        if blob.is_file() and blob.stat().st_size == 25_000:
            blob.chmod(0o644)
            blob.write_bytes(b"x" * 25_000)
    result = shop("pull", "lab/pets/cat", "-q")
    assert result.code == 1
    assert f"has the sha256 {digest(chr(120) * 25_000)[:12]}…, expected " in result.err


def test_a_hub_out_of_reach_is_one_sentence(shop):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        shop.environment["MODHUB_HUB"] = address
        for command in (("search", "cat"), ("pull", "lab/pets/cat", "-q")):
            result = shop.process(*command)
            assert result.code == 1
            assert result.err == (
                f"Error: {address} cannot be reached ([Errno 111] Connection refused).\n"
                "Check the address and the network; to read what is in the cache, pass --offline.\n"
            )


@pytest.mark.parametrize(("wanted", "set_to"), [("", "error"), ("info", "info")])
def test_the_client_of_the_hub_is_quiet_unless_told_otherwise(modhub, monkeypatch, wanted, set_to):
    monkeypatch.delenv("HF_HUB_VERBOSITY", raising=False)
    if wanted:
        monkeypatch.setenv("HF_HUB_VERBOSITY", wanted)
    code = (
        "import os, modhub_cli.main as m; m.run = lambda _: print(os.environ['HF_HUB_VERBOSITY']); m.main()"
    )
    assert modhub.process(python=("-c", code)).out == f"{set_to}\n"


@pytest.mark.parametrize(
    "command",
    [
        ("search", "cat"),
        ("pull", "lab/pets/cat"),
        ("pull", "cat"),
        ("info", "lab/pets"),
        ("versions", "lab/pets"),
        ("lock",),
        ("add", "lab/pets"),
        ("yank", "lab/pets==1.0.0"),
        ("verify", "lab/pets"),
    ],
)
@pytest.mark.parametrize("wanted", ["cat=lab/pets/cat", "cat"])
def test_reading_makes_no_hub(modhub, command, wanted):
    modhub.good("init", "work")
    modhub.go(modhub.home / "work")
    modhub.good("add", wanted)
    before = sorted(Path().rglob("*"))
    result = modhub(*command, "--hub", "demo-out/hub")
    assert result.code == 1
    place = Path("demo-out/hub").resolve()
    assert result.err.splitlines()[-2:] == [
        f"Error: '{place}' is not a hub directory.",
        "Pass another with --hub, or create it with a push.",
    ]
    assert sorted(Path().rglob("*")) == before
    # A push begins one, and so does reading one's own.
    modhub.good("push", "../pets", "lab/pets", "--version", "1.0.0", "--hub", "demo-out/hub")
    modhub.good("versions", "lab/pets", "--hub", "demo-out/hub")


def test_ones_own_hub_may_be_read_before_it_is_there(modhub, monkeypatch):
    monkeypatch.delenv("MODHUB_HUB")
    monkeypatch.setenv("XDG_DATA_HOME", str(Path("data").resolve()))
    assert modhub.good("search").err.startswith(f"No modules found on {Path('data').resolve()}")


def test_tokens_of_no_hub(modhub):
    for command in (("list",), ("revoke", "abc")):
        result = modhub("token", *command, "--root", "nope2")
        assert (result.code, result.out) == (1, "")
        assert (
            result.err == "Error: 'nope2' is not a hub directory.\nPass the store's directory with --root.\n"
        )
    assert not Path("nope2").exists()
    made = modhub.good("token", "create", "--user", "alice", "--root", "nope2")
    assert f"for the hub in '{Path('nope2').resolve()}' does not expire." in made.err
    assert "alice" in modhub.good("token", "list", "--root", "nope2").out


def test_a_token_is_listed_with_its_last_use(modhub):
    value = modhub.good("token", "create", "--user", "alice", "--root", "hub", "--quiet").out.strip()
    modhub.good("token", "create", "--user", "bob", "--root", "hub")
    Accounts(Path("hub")).principal(value)
    used = {
        row["user"]: row["last_used"] for row in modhub.good("token", "list", "--root", "hub", "--json").json
    }
    assert used["bob"] is None
    assert abs(datetime.fromisoformat(used["alice"]) - datetime.now(UTC)) < timedelta(minutes=1)
    shown = modhub.good("token", "list", "--root", "hub").out
    assert "last used" in shown
    assert used["alice"][:16].replace("T", " ") in shown


def test_a_repository_without_a_release_says_so(shop):
    Store("hub").repositories.create(RepositoryKey.model("lab/empty"))
    told = shop.good("versions", "lab/empty")
    assert (told.out, told.err) == ("", "'lab/empty' has no releases.\n")
    assert (shop.good("versions", "lab/empty", "-q").out, shop.good("versions", "lab/empty", "-q").err) == (
        "",
        "",
    )
    assert shop.good("versions", "lab/empty", "--json").json == {"repository": "lab/empty", "releases": []}


def test_one_damaged_file_takes_no_release_away(shop):
    tree = Store("hub").reader.tree(RepositoryKey.model("lab/pets"))
    place = Store("hub").blobs.path(tree["modules/dog/module.safetensors"].sha256)
    flipped = bytearray(place.read_bytes())
    flipped[-1] ^= 1
    place.chmod(0o644)
    place.write_bytes(flipped)
    for _ in range(2):
        done = shop("fsck", "--repair")
        assert done.code == 1
        assert f"the contents of 'modules/dog/module.safetensors' are missing (blob {place.name})" in done.out
        assert shop.good("versions", "lab/pets", "-q").out == "1.0.0\n"
    shop.good("pull", "lab/pets/cat")
    lost = shop("pull", "lab/pets/dog", "-q")
    assert lost.code == 1
    assert lost.err == (
        f"Error: The file contents {place.name} are missing from the store.\n"
        "Push the same files again, or restore them from a backup.\n"
    )
    other = shop("push", "zoo", "lab/pets", "--version", "1.0.0")
    assert other.code == 1
    assert "Release 1.0.0 of 'lab/pets' exists with other files." in other.err
    back = shop.good("push", "pets", "lab/pets", "--version", "1.0.0", "--json").json
    assert (back["existed"], back["bytes"]) == (True, place.stat().st_size)
    shop.good("pull", "lab/pets/dog")
    assert shop.good("fsck").out.endswith("clean\n")
    # Pushed as another release, too, what is lost is sent.
    place.unlink()
    shop.good("push", "pets", "lab/pets", "--version", "1.0.1")
    assert shop.good("fsck").out.endswith("clean\n")
