"""Content against its recorded size and digest: every outcome, whole messages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modhub.errors import (
    DigestMismatchError,
    IntegrityError,
    MissingFileError,
    ModhubError,
    SizeMismatchError,
)
from modhub.files import sha256_of_bytes
from modhub.integrity import check_content, git_oid, matches, read_checked

CONTENT = b"trunk" * 1000
SHA256 = sha256_of_bytes(CONTENT)
ALTERED = CONTENT[:-1] + b"?"


def put(folder: Path, content: bytes) -> Path:
    path = folder / "weights"
    path.write_bytes(content)
    return path


def test_the_recorded_content_passes(tmp_path: Path) -> None:
    path = put(tmp_path, CONTENT)
    for content in (CONTENT, path):
        check_content(content, size=5000, sha256=SHA256, place="'weights'", hint="")
        check_content(content, size=5000, sha256=None, oid=git_oid(CONTENT), place="'weights'", hint="")
        assert matches(content, size=5000, sha256=SHA256)
    assert read_checked(path, size=5000, sha256=SHA256, place="'weights'", hint="") == CONTENT


def test_git_names_a_blob_so() -> None:
    # `printf 'trunk' | git hash-object --stdin`
    assert git_oid(b"trunk") == "f577dfda0137ba6dce4015e28b4b57a18ade27a4"


@pytest.mark.parametrize(
    ("content", "kind", "message", "facts"),
    [
        (None, MissingFileError, "'weights' is missing.", {}),
        (
            CONTENT[:-1],
            SizeMismatchError,
            "'weights' has 4,999 bytes, expected 5,000.",
            {"expected": 5000, "actual": 4999},
        ),
        (
            ALTERED,
            DigestMismatchError,
            f"'weights' has the sha256 {sha256_of_bytes(ALTERED)[:12]}…, expected {SHA256[:12]}….",
            {"algorithm": "sha256", "expected": SHA256, "actual": sha256_of_bytes(ALTERED)},
        ),
    ],
    ids=["missing", "size", "digest"],
)
def test_other_content_is_refused(
    tmp_path: Path, content: bytes | None, kind: type[ModhubError], message: str, facts: dict[str, object]
) -> None:
    path = tmp_path / "weights" if content is None else put(tmp_path, content)
    for check in (check_content, read_checked):
        with pytest.raises(kind) as caught:
            check(path, size=5000, sha256=SHA256, place="'weights'", hint="Pull it again.")
        error = caught.value
        assert (error.message, error.hint) == (message, "Pull it again.")
        assert facts | {"place": "'weights'"} == {
            name: value for name, value in vars(error).items() if name not in ("message", "hint")
        }
    if content is not None:
        assert not matches(content, size=5000, sha256=SHA256)


def test_a_git_sha1_that_differs_is_told() -> None:
    with pytest.raises(DigestMismatchError) as caught:
        check_content(CONTENT, size=5000, sha256=None, oid="0" * 40, place="'x'", hint="")
    assert caught.value.message == f"'x' has the git sha1 {git_oid(CONTENT)[:12]}…, expected 000000000000…."
    assert not matches(CONTENT, size=5000, sha256=None), "nothing recorded is no match"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = put(tmp_path, CONTENT)
    path.chmod(0)
    with pytest.raises(IntegrityError) as caught:
        check_content(path, size=5000, sha256=SHA256, place="'weights'", hint="")
    assert caught.value.message == "'weights' cannot be read: Permission denied."
