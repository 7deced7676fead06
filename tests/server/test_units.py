"""The server's small parts alone: accounts, signatures, .gitignore rules, the stream of a commit."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modhub.errors import AccessError, HubError, IntegrityError, NotFoundError, RefError
from modhub.server.auth.accounts import Accounts, parse_expiry
from modhub.server.auth.signing import Signer
from modhub.server.errors import HTTPError
from modhub.server.http.metrics import Metrics
from modhub.server.http.state import Options
from modhub.server.protocol.commit_stream import CommitReader, Line
from modhub.server.protocol.gitignore import IgnoreRules
from modhub.store.blobs import Blobs
from modhub.store.lru import LRU


@pytest.mark.parametrize(
    "text",
    ["foo", "hub.example.org:8000", "ftp://host", "https://", "http://[::1", "http://h:x", "http://h?a=1"],
)
def test_addresses_that_are_none_are_refused_before_anything_is_served(text: str) -> None:
    for options in ({"public_url": text}, {"upstream": text}):
        with pytest.raises(HubError, match="is not a hub's address"):
            Options(**options)  # type: ignore[arg-type]
    assert Options(upstream="hf", public_url="https://host:8000/below/").upstream == "hf"


def test_a_token_opens_until_it_expires_or_is_revoked(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    assert accounts.empty
    token, value = accounts.create_token("alice", organisations=("lab",), expires=timedelta(days=1))
    other = Accounts(tmp_path)
    who = other.principal(value)
    assert (who.name, who.role, who.organisations) == ("alice", "write", ("lab",))
    assert who.belongs_to("LAB")
    assert value not in (tmp_path / "accounts.json").read_text()
    assert (tmp_path / "accounts.json").stat().st_mode & 0o077 == 0
    _, dead = accounts.create_token("alice", expires=timedelta(seconds=-1))
    for wrong in (dead, value + "x", "", token.digest):
        with pytest.raises(AccessError, match="Invalid credentials in Authorization header"):
            other.principal(wrong)
    assert accounts.revoke(value).id == token.id
    with pytest.raises(AccessError):
        other.principal(value)
    entries = [(entry["action"], entry["subject"], entry["token"]) for entry in accounts.audit.entries()]
    assert entries[0] == ("create-token", "user/alice", token.id)
    assert entries[2:] == [("revoke-token", "user/alice", token.id)]
    assert value not in next((tmp_path / "audit").iterdir()).read_text()


def test_the_last_use_of_a_token_is_known_to_some_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = Accounts(tmp_path)
    token, value = accounts.create_token("alice")
    file, before = tmp_path / "last-used" / token.id, (tmp_path / "accounts.json").read_bytes()
    assert accounts.last_used(token) == ""
    with pytest.raises(AccessError):
        accounts.principal(value + "x")
    assert accounts.last_used(token) == ""
    accounts.principal(value)
    assert accounts.last_used(token) >= token.created[:-5]
    os.utime(file, (0, 0))
    accounts.principal_of(token.id)
    assert Accounts(tmp_path).last_used(token) == "1970-01-01T00:00:00.000Z", "a request writes nothing"
    # Another process knows nothing of this one, nor does this one after a while.
    Accounts(tmp_path).principal(value)
    assert accounts.last_used(token) >= token.created[:-5]
    os.utime(file, (0, 0))
    monkeypatch.setattr("modhub.server.auth.accounts.USE_SECONDS", 0.0)
    accounts.principal_of(token.id)
    assert accounts.last_used(token) >= token.created[:-5]
    assert (tmp_path / "accounts.json").read_bytes() == before


def test_a_token_opens_where_its_use_cannot_be_noted(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    token, value = accounts.create_token("alice")
    (tmp_path / "last-used").touch()
    assert accounts.principal(value).name == "alice"
    assert accounts.last_used(token) == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user": "a/b"}, "'a/b' is not a valid user or organisation name."),
        ({"user": ".."}, "'..' is not a valid user or organisation name."),
        ({"user": "a", "organisations": ("x y",)}, "'x y' is not a valid user or organisation name."),
        ({"user": "a", "role": "god"}, "'god' is not a role. Use one of read, write, admin."),
        ({"user": "a", "value": "short"}, "A token has 16 to 200 printable ASCII characters"),
        ({"user": "a", "value": "with a space in it"}, "A token has 16 to 200 printable ASCII characters"),
    ],
)
def test_tokens_that_cannot_be(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(RefError) as caught:
        Accounts(tmp_path).create_token(**arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
    assert Accounts(tmp_path).empty


def test_a_value_is_used_once_and_an_unknown_token_is_not_revoked(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    accounts.create_token("a", value="0123456789abcdef")
    with pytest.raises(RefError, match="This token value is in use already"):
        accounts.create_token("b", value="0123456789abcdef")
    with pytest.raises(NotFoundError) as caught:
        accounts.revoke("nothing")
    assert str(caught.value) == (f"There is no token 'nothing'. See: modhub token list --root {tmp_path}")


def test_writers_at_once_lose_no_token(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: Accounts(tmp_path).create_token(f"user{number}"), range(24)))
    assert len(Accounts(tmp_path).tokens()) == 24


@pytest.mark.parametrize(
    ("text", "seconds"), [("90d", 7_776_000), ("12h", 43_200), ("30m", 1800), ("2w", 1_209_600), ("5s", 5)]
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_expiry(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "d", "0d", "-1d", "1y", "1.5d", "999999d"])
def test_no_durations(text: str) -> None:
    with pytest.raises(RefError):
        parse_expiry(text)


def test_signatures_fit_one_thing_for_a_while(tmp_path: Path) -> None:
    signer = Signer(tmp_path)
    good = signer.sign("upload", "a", "b")
    Signer(tmp_path).check(good, "upload", "a", "b")
    late = signer.sign("upload", "a", "b", lifetime=-1)
    for signature, parts in (
        (good, ("upload", "a", "c")),
        (good, ("upload", "ab", "")),
        (good[:-1], ("upload", "a", "b")),
        (late, ("upload", "a", "b")),
        ("9999999999-" + good.partition("-")[2], ("upload", "a", "b")),
        ("", ("upload", "a", "b")),
        ("²-x", ("upload", "a", "b")),
    ):
        with pytest.raises(HTTPError):
            signer.check(signature, *parts)
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0


def test_a_secret_that_was_cut_short_signs_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"secret' has 0 bytes, not 32\. Delete it"):
        Signer(tmp_path)


RULES = [
    "*.log",
    "!keep.log",
    "build/",
    "/top.txt",
    "docs/**/x",
    "**/cache",
    "a?c",
    "[ab]z",
    "[!ab]y",
    "foo/*",
    "*a*b*",
    "x/**",
    "*.t[mx]p",
    "node*/",
    "logs/*.txt",
    "!logs/a.txt",
]
RULES += ["\\#hash", "# comment", "sp\\ ", "trailing   ", ""]
NAMES = [
    "a.log",
    "keep.log",
    "d/keep.log",
    "build",
    "build/x",
    "s/build/y",
    "top.txt",
    "d/top.txt",
    "docs/x",
    "docs/a/x",
    "docs/a/b/x",
    "cache",
    "q/cache",
    "q/cache/z",
    "abc",
    "aXc",
    "az",
    "cz",
    "cy",
    "ay",
    "foo/bar",
    "foo/bar/baz",
    "z/foo/bar",
    "#hash",
    "qaqbq",
    "ab",
    "x/y",
    "x",
    "p/x/y",
    "f.tmp",
    "f.txp",
    "f.tap",
    "node1/x",
    "node1",
    "logs/a.txt",
    "logs/b.txt",
    "trailing",
]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(RULES), min_size=1, max_size=12))
def test_ignore_rules_are_gits(rules: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "init", "-q", folder], check=True)
        (Path(folder) / ".gitignore").write_text("\n".join(rules) + "\n")
        told = subprocess.run(
            ["git", "check-ignore", "--no-index", "--stdin", "-z"],
            cwd=folder,
            input="\0".join(NAMES).encode(),
            capture_output=True,
        )
    expected = set(told.stdout.decode().split("\0")) - {""}
    ignore = IgnoreRules("\n".join(rules))
    assert ignore.ignored(NAMES) == set(expected)


def test_no_pattern_makes_matching_slow() -> None:
    import time

    ignore = IgnoreRules("\n".join(["*a" * 60 + "b", "a*" * 100 + "b", "**/a/**/b/**/c", "?*" * 50 + "x"]))
    began = time.monotonic()
    ignore.ignored(["/".join(["a" * 200] * 2)])
    assert time.monotonic() - began < 2


@settings(max_examples=60, deadline=None)
@given(
    files=st.lists(st.tuples(st.text(min_size=1, max_size=6), st.binary(max_size=300)), max_size=4),
    cuts=st.lists(st.integers(1, 80), max_size=40),
    content_last=st.booleans(),
)
def test_a_commit_reads_the_same_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[tuple[str, bytes]],
    cuts: list[int],
    content_last: bool,
) -> None:
    blobs = Blobs(tmp_path_factory.getbasetemp() / "blobs", tmp_path_factory.getbasetemp() / "staging")
    lines = [json.dumps({"key": "header", "value": {"summary": 's "content": "x'}})]
    for path, content in files:
        encoded = base64.b64encode(content).decode()
        pairs = [("content", encoded), ("path", path), ("encoding", "base64")]
        lines.append(json.dumps({"key": "file", "value": dict(pairs[::-1] if content_last else pairs)}))
    body, seen = "\n".join(lines).encode(), list[Line]()
    reader = CommitReader(blobs.writer, seen.append)
    for cut in cuts:
        reader.feed(body[:cut])
        body = body[cut:]
    reader.feed(body)
    reader.finish()
    reader.close()
    assert seen[0][1]["summary"] == 's "content": "x'
    assert [value["path"] for key, value, _ in seen[1:] if key == "file"] == [path for path, _ in files]
    for (_, content), (_, _, blob) in zip(files, seen[1:], strict=True):
        assert blob is not None
        with blobs.open(blob.sha256) as stream:
            assert stream.read() == content


@pytest.mark.parametrize(
    "body",
    [
        b'{"key":"file","value":{"content":"AA',
        b'{"key":"file","value":{"content":"A","path":"a"}}',
        b'{"key":"file","value":{"content":"AA\\u003d=","path":"a"}}',
        b'{"key":"file","value":{"content":"AA==","content":"BB==","path":"a"}}',
        b'{"key":"header","value":{"content":"AA=="}}',
        b"[1]",
        b'{"key":"file"}',
    ],
)
def test_streams_that_are_no_commit(tmp_path: Path, body: bytes) -> None:
    blobs = Blobs(tmp_path / "blobs", tmp_path / "staging")
    reader = CommitReader(blobs.writer, lambda line: None)

    def read() -> None:
        reader.feed(body)
        reader.finish()

    with pytest.raises(HTTPError) as caught:
        read()
    reader.close()
    assert caught.value.status == 400
    assert list((tmp_path / "staging").glob("*")) == []


def test_metrics_are_in_prometheus_format() -> None:
    metrics = Metrics()
    metrics.begin()
    metrics.end("GET", "/a", 200, 0.02)
    metrics.count("sent", 5)
    lines = metrics.text({"up": 1.0}).splitlines()
    assert 'modhub_requests_total{method="GET",route="/a",status="200"} 1' in lines
    assert 'modhub_request_seconds_bucket{le="0.01"} 0' in lines
    assert 'modhub_request_seconds_bucket{le="+Inf"} 1' in lines
    assert 'modhub_body_bytes_total{direction="sent"} 5' in lines
    assert lines[-1] == "up 1"


def test_what_was_kept_last_is_there_as_far_as_its_weight_allows() -> None:
    kept = LRU[str](10)
    for name in ("a", "b", "c"):
        kept.put(name, name.upper(), 3)
    assert kept.get("a") == "A"
    kept.put("d", "D", 3)
    # The one that nobody asked for has gone.
    assert [kept.get(name) for name in "abcd"] == ["A", None, "C", "D"]
    kept.put("d", "E", 1)
    kept.put("e", "F", 3)
    assert [kept.get(name) for name in "acde"] == ["A", "C", "E", "F"]
    kept.put("f", "G", 100)
    assert [kept.get(name) for name in "acdef"] == [None, None, None, None, "G"]
