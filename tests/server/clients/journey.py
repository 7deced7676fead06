"""What a stock huggingface_hub does with a hub, step by step. Run by the interpreter whose client is tried.

HF_ENDPOINT and HF_TOKEN say where and as whom (`alice` of the organisation `lab`), HF_HOME must be empty. The
first argument makes names unique, the others are steps to leave out. Prints one JSON object: step → "ok" or
what went wrong. Nothing is patched.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi, HfFileSystem, ModelCard, hf_hub_download, snapshot_download
from huggingface_hub.utils import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

api = HfApi()
suffix = sys.argv[1]
REPO = f"alice/net-{suffix}"
STEPS: list[tuple[str, Callable[[], None]]] = []
work = Path(tempfile.mkdtemp())
BINARY = os.urandom(2_500_000)
CARD = "---\nlicense: mit\ntags:\n- modhub\n- class:cat\n---\n\n# A net\n"
MAJOR = int(huggingface_hub.__version__.split(".")[0])


def step(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(function: Callable[[], None]) -> Callable[[], None]:
        STEPS.append((name, function))
        return function

    return register


def refused(kind: type[BaseException], work: Callable[[], object], status: int | None = None) -> None:
    try:
        work()
    except kind as error:
        response = getattr(error, "response", None)
        if status is not None and (response is None or response.status_code != status):
            raise AssertionError(f"status {getattr(response, 'status_code', None)}, not {status}") from error
        return
    raise AssertionError(f"no {kind.__name__}")


@step("whoami")
def whoami() -> None:
    who = api.whoami()
    assert who["name"] == "alice"
    assert [org["name"] for org in who["orgs"]] == ["lab"]


@step("create a repository")
def create() -> None:
    assert api.create_repo(REPO).repo_id == REPO
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    refused(HfHubHTTPError, lambda: api.create_repo(REPO), 409)
    assert api.repo_exists(REPO)


@step("upload a file")
def upload_file() -> None:
    done = api.upload_file(path_or_fileobj=b"hello", path_in_repo="docs/hello.txt", repo_id=REPO)
    assert "/commit/" in str(getattr(done, "commit_url", done))
    api.upload_file(path_or_fileobj=io.BytesIO(BINARY), path_in_repo="weights.bin", repo_id=REPO)


@step("upload a folder, .gitignore, unchanged files")
def upload_folder() -> None:
    folder = work / "up"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "sub" / "large.bin").write_bytes(BINARY[::-1])
    (folder / "notes.log").write_text("left out")
    (folder / ".gitignore").write_text("*.log\n")
    first = api.upload_folder(folder_path=folder, repo_id=REPO)
    second = api.upload_folder(folder_path=folder, repo_id=REPO)
    assert first.oid == second.oid
    names = set(api.list_repo_files(REPO))
    assert names == {
        ".gitattributes",
        ".gitignore",
        "README.md",
        "docs/hello.txt",
        "sub/large.bin",
        "weights.bin",
    }, names


@step("commit: add, copy, delete")
def commit() -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

    operations = [
        CommitOperationAdd("a/one.txt", b"one"),
        CommitOperationAdd("a/two.txt", b"two"),
        CommitOperationDelete("docs/hello.txt"),
        CommitOperationCopy(src_path_in_repo="weights.bin", path_in_repo="copy.bin"),
    ]
    api.create_commit(REPO, operations, commit_message="several", commit_description="words")
    api.create_commit(REPO, [CommitOperationDelete("a/", is_folder=True)], commit_message="folder")
    names = set(api.list_repo_files(REPO))
    assert "copy.bin" in names
    assert not names & {"docs/hello.txt", "a/one.txt"}


@step("parent commit conflict (412)")
def conflict() -> None:
    from huggingface_hub import CommitOperationAdd

    old = api.model_info(REPO).sha
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=REPO)
    refused(
        HfHubHTTPError,
        lambda: api.create_commit(
            REPO, [CommitOperationAdd("y.txt", b"y")], commit_message="late", parent_commit=old
        ),
        412,
    )


@step("model_info with files and LFS data")
def info() -> None:
    found = api.model_info(REPO, files_metadata=True)
    import hashlib

    files = {one.rfilename: one for one in found.siblings}
    lfs = files["weights.bin"].lfs
    digest = lfs["sha256"] if isinstance(lfs, dict) else lfs.sha256
    assert digest == hashlib.sha256(BINARY).hexdigest()
    assert files["weights.bin"].size == len(BINARY)
    assert "class:cat" in found.tags
    assert found.card_data.license == "mit"
    assert api.model_info(REPO, expand=["downloads", "sha"]).sha == found.sha


@step("tree, paths-info, expand")
def tree() -> None:
    entries = {one.path: one for one in api.list_repo_tree(REPO, recursive=True, expand=True)}
    assert entries["weights.bin"].lfs.size == len(BINARY)
    assert entries["README.md"].last_commit.title
    assert {one.path for one in api.list_repo_tree(REPO, "sub")} == {"sub/large.bin"}
    found = api.get_paths_info(REPO, ["README.md", "none", "sub"])
    assert {one.path for one in found} == {"README.md", "sub"}


@step("list_models: search, filter, author, sort, pages")
def listing() -> None:
    assert REPO in [one.id for one in api.list_models(filter=["modhub", "class:cat"], author="alice")]
    assert REPO in [one.id for one in api.list_models(search=f"net-{suffix}", sort="downloads", limit=5)]
    assert REPO not in [one.id for one in api.list_models(filter="class:dog")]
    assert next(iter(api.list_models(author="alice", cardData=True))).card_data is not None


@step("branches, tags, refs, commits")
def references() -> None:
    api.create_branch(REPO, branch="work/one")
    api.upload_file(path_or_fileobj=b"b", path_in_repo="b.txt", repo_id=REPO, revision="work/one")
    api.create_tag(REPO, tag="v1.0.0", tag_message="first")
    refused(HfHubHTTPError, lambda: api.create_tag(REPO, tag="v1.0.0"), 409)
    api.create_tag(REPO, tag="v1.0.0", exist_ok=True)
    refs = api.list_repo_refs(REPO)
    assert {one.name for one in refs.branches} == {"main", "work/one"}
    assert [one.name for one in refs.tags] == ["v1.0.0"]
    assert api.list_repo_commits(REPO, revision="work/one")[0].title.startswith("Upload b.txt")
    assert api.file_exists(REPO, "b.txt", revision="work/one")
    api.delete_branch(REPO, branch="work/one")
    assert api.revision_exists(REPO, "v1.0.0")
    refused(RevisionNotFoundError, lambda: api.model_info(REPO, revision="nope"))


@step("download a file (ETag, cache, absence)")
def download() -> None:
    path = Path(hf_hub_download(REPO, "weights.bin"))
    assert path.read_bytes() == BINARY
    assert Path(hf_hub_download(REPO, "weights.bin", revision="v1.0.0")).read_bytes() == BINARY
    refused(EntryNotFoundError, lambda: hf_hub_download(REPO, "nothing.bin"))


@step("snapshot_download, local_dir")
def snapshot() -> None:
    path = Path(snapshot_download(REPO))
    assert (path / "sub" / "large.bin").read_bytes() == BINARY[::-1]
    local = work / "local"
    snapshot_download(REPO, local_dir=local, allow_patterns=["*.md"])
    assert (local / "README.md").read_text() == CARD


@step("model cards: load, validate, push")
def card() -> None:
    loaded = ModelCard.load(REPO)
    assert loaded.data.license == "mit"
    if MAJOR >= 2:  # Older clients send their cards to huggingface.co, whatever the endpoint.
        loaded.validate()
        loaded.text += "\nmore\n"
        loaded.push_to_hub(REPO)


@step("pull requests: upload_folder(create_pr), merge")
def pull_request() -> None:
    folder = work / "pr"
    folder.mkdir()
    (folder / "new.txt").write_text("proposed")
    (folder / "new.bin").write_bytes(BINARY[:1_500_000])
    done = api.upload_folder(folder_path=folder, repo_id=REPO, create_pr=True, commit_message="proposal")
    number = done.pr_num
    details = api.get_discussion_details(REPO, number)
    assert details.is_pull_request
    assert details.target_branch == "refs/heads/main"
    assert not api.file_exists(REPO, "new.txt")
    assert [one.num for one in api.get_repo_discussions(REPO)] == [number]
    if details.status == "draft":
        api.change_discussion_status(REPO, number, new_status="open")
    api.comment_discussion(REPO, number, comment="fine")
    api.merge_pull_request(REPO, number)
    assert api.file_exists(REPO, "new.bin")
    assert api.get_discussion_details(REPO, number).status == "merged"


@step("errors: status and exception class")
def errors() -> None:
    from huggingface_hub.utils import BadRequestError, GatedRepoError, HFValidationError

    missing = f"alice/none-{suffix}"
    refused(RepositoryNotFoundError, lambda: api.model_info(missing), 404)
    refused(RepositoryNotFoundError, lambda: api.model_info(missing, token=False), 401)
    refused(RepositoryNotFoundError, lambda: hf_hub_download(missing, "a"), 404)
    refused(RepositoryNotFoundError, lambda: snapshot_download(missing), 404)
    refused(RepositoryNotFoundError, lambda: api.delete_repo(missing), 404)
    refused(RepositoryNotFoundError, lambda: api.list_repo_refs(missing), 404)
    refused(
        RepositoryNotFoundError,
        lambda: api.upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id=missing),
        404,
    )
    refused(RevisionNotFoundError, lambda: hf_hub_download(REPO, "x.txt", revision="none"), 404)
    refused(RevisionNotFoundError, lambda: list(api.list_repo_tree(REPO, revision="none")), 404)
    refused(RevisionNotFoundError, lambda: api.list_repo_commits(REPO, revision="none"), 404)
    refused(RevisionNotFoundError, lambda: api.delete_tag(REPO, tag="none"), 404)
    refused(HfHubHTTPError, lambda: api.create_branch(REPO, branch="main"), 409)
    refused(HfHubHTTPError, lambda: api.delete_branch(REPO, branch="main"), 403)
    refused(HfHubHTTPError, lambda: api.delete_branch(REPO, branch="none"), 404)
    refused(EntryNotFoundError, lambda: list(api.list_repo_tree(REPO, "none")), 404)
    refused(EntryNotFoundError, lambda: hf_hub_download(REPO, "none.bin"), 404)
    refused(BadRequestError, lambda: api.model_info(REPO, expand=["none"]), 400)
    refused(HFValidationError, lambda: api.model_info("a/b/c"))
    refused(HfHubHTTPError, lambda: api.create_repo(f"bob/net-{suffix}"), 403)
    # The 0.x client raises what requests raises.
    rejected = HfHubHTTPError if MAJOR >= 1 else OSError
    refused(rejected, lambda: api.whoami(token="hf_unknown-token-0123456789"), 401)
    refused(HfHubHTTPError, lambda: api.create_repo(missing, token=False), 401)
    api.upload_file(path_or_fileobj=b"gate", path_in_repo="gate.txt", repo_id=REPO)
    api.update_repo_settings(REPO, gated="manual")
    refused(GatedRepoError, lambda: hf_hub_download(REPO, "gate.txt", token=False), 401)
    api.update_repo_settings(REPO, gated=False)
    assert not api.file_exists(REPO, "none")
    assert not api.revision_exists(REPO, "none")
    assert not api.repo_exists(missing)


@step("the cache: scan, delete, offline")
def cache() -> None:
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    path = Path(hf_hub_download(REPO, "x.txt"))
    assert try_to_load_from_cache(REPO, "x.txt") == str(path)
    assert Path(hf_hub_download(REPO, "x.txt", local_files_only=True)) == path
    (found,) = (entry for entry in scan_cache_dir().repos if entry.repo_id == REPO)
    hashes = [revision.commit_hash for revision in found.revisions]
    assert api.model_info(REPO).sha in hashes
    scan_cache_dir().delete_revisions(*hashes).execute()
    assert not path.exists()
    assert Path(hf_hub_download(REPO, "x.txt")).read_bytes() == b"x"


@step("squash")
def squash() -> None:
    api.super_squash_history(REPO)
    assert len(api.list_repo_commits(REPO)) == 1


@step("HfFileSystem (hf:// paths)")
def filesystem() -> None:
    files = HfFileSystem()
    assert f"{REPO}/README.md" in files.ls(REPO, detail=False)
    assert files.read_text(f"{REPO}/x.txt") == "x"
    with files.open(f"{REPO}/weights.bin") as stream:
        stream.seek(1000)
        assert stream.read(10) == BINARY[1000:1010]
    with files.open(f"{REPO}/written.txt", "w") as stream:
        stream.write("by fsspec")
    assert files.cat_file(f"{REPO}/written.txt") == b"by fsspec"
    files.rm(f"{REPO}/written.txt")


@step("data sets")
def dataset() -> None:
    name = f"alice/data-{suffix}"
    api.create_repo(name, repo_type="dataset")
    api.upload_file(path_or_fileobj=b"a,b\n", path_in_repo="t.csv", repo_id=name, repo_type="dataset")
    assert Path(hf_hub_download(name, "t.csv", repo_type="dataset")).read_bytes() == b"a,b\n"
    assert name in [one.id for one in api.list_datasets(author="alice")]
    assert api.dataset_info(name).id == name
    api.delete_repo(name, repo_type="dataset")


def shown(private: bool) -> dict[str, object]:
    return {"private": private} if MAJOR < 1 else {"visibility": "private" if private else "public"}


@step("settings, private, gated, auth-check")
def settings() -> None:
    api.update_repo_settings(REPO, gated="auto", **shown(private=True))
    found = api.model_info(REPO)
    assert found.private
    assert found.gated == "auto"
    api.auth_check(REPO)
    refused(RepositoryNotFoundError, lambda: api.model_info(REPO, token=False))
    api.update_repo_settings(REPO, gated=False, **shown(private=False))
    assert api.model_info(REPO, token=False).id == REPO


@step("move, old names redirect")
def move() -> None:
    moved = f"lab/net-{suffix}"
    api.move_repo(REPO, moved)
    assert api.model_info(REPO).id == moved
    assert Path(hf_hub_download(REPO, "x.txt")).read_bytes() == b"x"
    api.move_repo(moved, REPO)


@step("hf command line")
def command_line() -> None:
    program = Path(sys.executable).parent / "hf"
    folder = work / "cli"
    folder.mkdir()
    (folder / "cli.txt").write_text("typed")

    def hf(*arguments: str) -> str:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, f"hf {' '.join(arguments)}: {done.stderr[-600:]}"
        return done.stdout

    assert "alice" in hf("auth", "whoami")
    new = f"alice/cli-{suffix}"
    create = ("repo", "create") if MAJOR < 1 else ("repos", "create")
    hf(*create, new)
    hf("upload", new, str(folder), ".")
    hf("download", new, "cli.txt", "--local-dir", str(work / "cli-down"))
    assert (work / "cli-down" / "cli.txt").read_text() == "typed"
    if MAJOR >= 1:
        assert new in hf("models", "ls", "--author", "alice", "--format", "json")
        assert new in hf("models", "info", new)
        hf("repos", "tag", "create", new, "v1")
        assert "v1" in hf("repos", "tag", "list", new)
        hf("download", new)
        hf("cache", "verify", new)
    if MAJOR >= 2:
        hf("upload", new, str(folder / "cli.txt"), "more.txt", "--revision", "side")
        hf("repos", "duplicate", new, f"{new}-copy")
        assert f"{new}-copy" in hf("repos", "ls", "--format", "json")
        hf("models", "card", REPO)
        hf("repos", "delete", new, "--yes")


@step("delete a repository")
def delete() -> None:
    api.delete_repo(REPO)
    assert not api.repo_exists(REPO)
    api.delete_repo(REPO, missing_ok=True)


def main() -> None:
    results = {}
    for name, function in STEPS:
        if name in sys.argv[2:]:
            continue
        try:
            function()
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)
            line = next((frame.lineno for frame in reversed(where) if frame.filename == __file__), 0)
            results[name] = f"line {line}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        else:
            results[name] = "ok"
    json.dump({"version": huggingface_hub.__version__, "steps": results}, sys.stdout)


main()
