"""Names that look like other names are refused: in labels, and as namespaces of a hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from modhub.errors import ManifestError, RefError
from modhub.manifest.fields import Fields
from modhub.refs import Ref, check_label
from modhub.store.records import RepositoryKey
from modhub.store.store import Store
from tests.support.hub_server import serving


@pytest.mark.parametrize(
    ("label", "sign"),
    [
        ("c\u202eat", "U+202E (RIGHT-TO-LEFT OVERRIDE)"),
        ("\u2066cat", "U+2066 (LEFT-TO-RIGHT ISOLATE)"),
        ("ca\u200bt", "U+200B (ZERO WIDTH SPACE)"),
        ("cat\u200d", "U+200D (ZERO WIDTH JOINER)"),
        ("cat\ufeff", "U+FEFF (ZERO WIDTH NO-BREAK SPACE)"),
        ("ca\xadt", "U+00AD (SOFT HYPHEN)"),
        ("c\u0430t", "U+0430 (CYRILLIC SMALL LETTER A)"),
        ("d\u03bfg", "U+03BF (GREEK SMALL LETTER OMICRON)"),
        ("black \u0421at", "U+0421 (CYRILLIC CAPITAL LETTER ES)"),
    ],
)
def test_labels_that_look_like_others(label: str, sign: str) -> None:
    message = f"The label {label!a} holds {sign}, which looks like something else or like nothing."
    with pytest.raises(RefError) as refused:
        check_label(label)
    assert refused.value.message == message
    with pytest.raises(RefError):
        Ref.parse(f"lab/net/{label}")
    with pytest.raises(ManifestError, match=r"holds U\+"):
        Fields({"label": label}, "module.json").label("label")


@pytest.mark.parametrize(
    "label",
    [
        "cat",
        "C++",
        "\u043a\u043e\u0442",
        "\u03b1 particle",
        "k\u03a9",
        "\u03b1A crystallin",
        "T\u30b7\u30e3\u30c4",
        "\u0646\u0645\u06cc\u200c\u0634\u0648\u062f",
        "\U0001f469\u200d\U0001f680",
        "na\xefve",
        "cat \u043a\u043e\u0442",
    ],
)
def test_labels_of_every_script(label: str) -> None:
    assert check_label(label) == label
    assert Fields({"label": label}, "module.json").label("label") == label


@pytest.mark.parametrize("other", ["vision-1ab", "Vision_Lab", "visi0n-lab", "vislon.lab"])
def test_a_namespace_that_looks_like_another_is_not_created(tmp_path: Path, other: str) -> None:
    store = Store(tmp_path)
    store.repositories.create(RepositoryKey.model("vision-lab/net"))
    with pytest.raises(RefError) as refused:
        store.repositories.create(RepositoryKey.model(f"{other}/net"))
    assert refused.value.message == f"The namespace '{other}' looks like 'vision-lab', which is there."
    for name in ("vision-lab/net2", "VISION-LAB/net3", "vision-labs/net", "lab/net"):
        store.repositories.create(RepositoryKey.model(name))
    store.close()


def test_the_refusal_reaches_the_client_as_a_sentence(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert (
            server.ask("POST", "/api/repos/create", "admin", {"name": "n", "organization": "bob"}).status
            == 200
        )
        answer = server.ask("POST", "/api/repos/create", "admin", {"name": "n", "organization": "b0b"})
    assert answer.status == 400
    assert answer.json()["error"].startswith("The namespace 'b0b' looks like 'bob', which is there.")
