"""Cards of strangers: JSON values, within bounds, whatever the YAML says."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from modhub.errors import ManifestError
from modhub.store.front_matter import parse_front_matter, read_front_matter, tags_of

LAUGHS = "a: &a [lol, lol]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a: 1\nb: -0x1F\nc: 1.5\nd: [true, ~, 'x']", {"a": 1, "b": -31, "c": 1.5, "d": [True, None, "x"]}),
        ("a: !!str 5\nb: !!int '5'\nc: !!float 5", {"a": "5", "b": 5, "c": 5.0}),
        # What YAML 1.1 makes a boolean, an octal, a date or minutes of stays as it was written.
        (
            "a: no\nb: 012\nc: 2026-11-31\nd: 1:59:59",
            {"a": "no", "b": "012", "c": "2026-11-31", "d": "1:59:59"},
        ),
        # What JSON has no number for stays text, too.
        (
            "a: .nan\nb: -.inf\nc: 1.0e+999\nd: 1e999",
            {"a": ".nan", "b": "-.inf", "c": "1.0e+999", "d": "1e999"},
        ),
        ("a: 0x" + "f" * 20_000, {"a": "0x" + "f" * 20_000}),
        ("a: " + "9" * 20_000, {"a": "9" * 20_000}),
        ("1: a\ntrue: b\n'2': c", {"1": "a", "true": "b", "2": "c"}),
        ("a: &x [1]\nb: *x\n<<: {c: 2}", {"a": [1], "b": [1], "<<": {"c": 2}}),
        ("", {}),
        ("# nothing", {}),
    ],
)
def test_front_matter_is_json(text: str, fields: dict[str, Any]) -> None:
    assert parse_front_matter(f"---\n{text}\n---\nwords") == fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a: !!bool "maybe"', "The metadata is not valid YAML: 'maybe' is no value of the type bool"),
        (
            "a: !!int 0x" + "f" * 20,
            f"The metadata is not valid YAML: '0x{'f' * 20}' is no value of the type int",
        ),
        (
            "a: !!python/name:os.system x",
            "The metadata is not valid YAML: 'x' is no value of the type python/name:os.system",
        ),
        ("a: !!set {b}", "The metadata is not valid YAML: a map has the type set"),
        ("? [a]\n: b", "The metadata is not valid YAML: a list or mapping is used as a key"),
        ("a: &a [*a]", "The metadata is not valid YAML: the alias '*a' stands before or inside its anchor"),
        (
            "a: " + "[" * 30 + "]" * 30,
            "The metadata is not valid YAML: it is nested more than 20 levels deep",
        ),
        ("[" * 100_000, "The metadata is not valid YAML: it is nested more than 20 levels deep"),
        (LAUGHS, "The metadata is not valid YAML: its values are too many"),
        (MERGES, "The metadata is not valid YAML: its values are too many"),
        ("tags: [" + "a," * 125_000 + "a]", "The metadata is not valid YAML: its values are too many"),
        (
            "tags: [" + "a," * 500_000 + "a]",
            "The metadata block has 1,000,009 characters; at most 262,144 are read.",
        ),
        ("a: 1\n... \nb: 2", "The metadata is not valid YAML: did not find expected <document start>"),
        ("- a", "The metadata must be a mapping."),
    ],
)
def test_front_matter_that_is_refused(text: str, message: str) -> None:
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(ManifestError) as caught:
        parse_front_matter(f"---\n{text}\n---\n")
    seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.message.startswith(message)
    assert seconds < 10, "under tracemalloc, several times the usual"
    assert peak < 100 << 20
    assert read_front_matter(f"---\n{text}\n---\n".encode()) == {}


def test_what_a_client_cannot_take_as_an_argument_is_in_no_list() -> None:
    # huggingface_hub makes `ModelCardData(**fields, ignore_metadata_errors=True)` of each entry of a list.
    card = b"---\nself: 1\nignore_metadata_errors: 2\ntags: 5\nlicense: mit\nmodel-index: [{a: 1}]\n---\n"
    assert read_front_matter(card) == {"license": "mit", "model-index": []}


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
NAMES = st.sampled_from(
    ["tags", "license", "language", "pipeline_tag", "library_name", "datasets", "model_name"]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES | st.text(max_size=8), VALUES, max_size=6))
def test_what_any_yaml_says_can_be_listed(fields: dict[str, Any]) -> None:
    card = f"---\n{yaml.safe_dump(fields, allow_unicode=True)}---\n"
    read = read_front_matter(card.encode("utf-8", "replace"))
    json.dumps([read, tags_of(read)], allow_nan=False, ensure_ascii=False).encode()


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, st.text(max_size=20) | st.lists(st.text(max_size=20), max_size=4), min_size=1))
def test_text_that_modhub_writes_is_read_as_written(fields: dict[str, Any]) -> None:
    try:
        text = yaml.safe_dump(fields, allow_unicode=True)
        expected = yaml.safe_load(text)
    except yaml.YAMLError:
        return
    if "\n---" not in f"\n{text}":
        assert parse_front_matter(f"---\n{text}---\n") == expected
