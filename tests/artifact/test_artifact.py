"""Module sets on disk: what is written is read back, and nothing else is accepted."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modhub.artifact import artifact_files, parse_tensors, read_artifact, read_modules, write_artifact
from modhub.artifact.modules import ClassModule, ModuleSet, tensor_bytes
from modhub.errors import (
    DigestMismatchError,
    IntegrityError,
    ManifestError,
    NotFoundError,
    SchemaVersionError,
    SizeMismatchError,
    StorageError,
)
from modhub.labels import slugs_of
from modhub.manifest import FileInfo, RepositoryManifest
from modhub.text import pretty_json
from tests.support.pico import entry_of, pico_set


@pytest.fixture(scope="module")
def modules() -> ModuleSet:
    return pico_set()


@pytest.fixture
def written(tmp_path: Path, modules: ModuleSet) -> Path:
    return write_artifact(tmp_path / "out", modules)


def test_the_layout(written: Path, modules: ModuleSet) -> None:
    trunk = modules.manifest.trunk
    assert trunk is not None
    stem = f"trunk/{trunk.weights.sha256}"
    assert sorted(str(p.relative_to(written)) for p in written.rglob("*") if p.is_file()) == sorted(
        [
            "README.md",
            "modhub.json",
            "trunk/graph.json",
            f"{stem}.safetensors",
            f"{stem}.statistics.safetensors",
            *(
                f"modules/{slug}/{name}"
                for slug in ("cat", "dog", "aquarium-fish")
                for name in ("module.json", "module.safetensors")
            ),
        ]
    )


def test_what_is_read_is_what_was_written(written: Path, modules: ModuleSet) -> None:
    found = read_artifact(written)
    assert found.manifest == modules.manifest
    assert found.trunk.sha256 == modules.trunk.sha256
    assert [m.manifest for m in found.modules] == [m.manifest for m in modules.modules]
    for mine, theirs in zip(modules.modules, found.modules, strict=True):
        assert set(mine.tensors) == set(theirs.tensors)
        assert all(torch.equal(mine.tensors[name], theirs.tensors[name]) for name in mine.tensors)
    assert torch.equal(found.statistics["site.mean"], torch.arange(3.0))
    assert artifact_files(found) == artifact_files(modules)


def test_equal_sets_give_equal_bytes(modules: ModuleSet) -> None:
    assert artifact_files(pico_set()) == artifact_files(modules)


def test_only_the_wanted_modules_are_needed(written: Path) -> None:
    for slug in ("cat", "dog"):
        for path in (written / "modules" / slug).iterdir():
            path.unlink()
    found = read_artifact(written, ["Aquarium Fish", "aquarium-fish"])
    assert [module.label for module in found.modules] == ["aquarium fish"]
    assert [entry.slug for entry in found.manifest.modules] == ["aquarium-fish"]
    with pytest.raises(IntegrityError) as caught:
        read_artifact(written)
    assert str(caught.value) == "'modules/cat/module.json' is missing. Pull or decompose it again."


def test_files_may_lie_anywhere(tmp_path: Path, modules: ModuleSet) -> None:
    for content in artifact_files(modules).values():
        info = FileInfo.of("", content)
        (tmp_path / info.sha256).write_bytes(content)
    (found,) = read_modules(modules.manifest, lambda info: tmp_path / info.sha256, ["dog"])
    assert found.modules[0].label == "dog"


def test_an_unknown_label_lists_the_nearest(written: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        read_artifact(written, ["cap"])
    assert str(caught.value) == f"There is no class 'cap' in '{written}'. Nearest: cat."


def test_an_existing_directory_is_kept_unless_replaced(written: Path, modules: ModuleSet) -> None:
    (written / "mine.txt").touch()
    with pytest.raises(StorageError, match="exists already"):
        write_artifact(written, modules)
    assert (written / "mine.txt").exists()
    write_artifact(written, modules, force=True)
    assert not (written / "mine.txt").exists()
    assert read_artifact(written).manifest == modules.manifest


def test_nothing_is_left_of_a_failed_write(
    tmp_path: Path, modules: ModuleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def refuse(path: Path, content: bytes) -> int:
        if path.name == "module.json":
            raise KeyboardInterrupt
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(KeyboardInterrupt):
        write_artifact(tmp_path / "out", modules)
    assert list(tmp_path.iterdir()) == []


def test_a_digest_that_is_not_of_the_tensors_is_not_written(modules: ModuleSet) -> None:
    first = modules.modules[0]
    changed = ClassModule(first.manifest, {**first.tensors, "head.bias": torch.ones(2)})
    wrong = dataclasses.replace(modules, modules=(changed, *modules.modules[1:]))
    recorded = modules.manifest.modules[0].tensors.sha256
    with pytest.raises(DigestMismatchError) as caught:
        artifact_files(wrong)
    assert (caught.value.place, caught.value.expected) == ("'modules/cat/module.safetensors'", recorded)


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("name", ["graph.json", "weights", "statistics", "module.json", "module.safetensors"])
@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (flip, DigestMismatchError),
        (lambda content: content[:-1], SizeMismatchError),
        (lambda content: b"", SizeMismatchError),
    ],
    ids=["altered", "truncated", "empty"],
)
def test_a_damaged_file_is_named(
    written: Path, modules: ModuleSet, name: str, damage: Callable[[bytes], bytes], kind: type
) -> None:
    trunk = modules.manifest.trunk
    assert trunk is not None
    assert trunk.statistics is not None
    path = {
        "graph.json": trunk.graph.path,
        "weights": trunk.weights.path,
        "statistics": trunk.statistics.path,
        "module.json": "modules/cat/module.json",
        "module.safetensors": "modules/cat/module.safetensors",
    }[name]
    content = (written / path).read_bytes()
    (written / path).write_bytes(damage(content))
    with pytest.raises(kind) as caught:
        read_artifact(written)
    assert caught.value.place == f"'{path}'"
    assert caught.value.hint == "Pull or decompose it again."


def edited(written: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((written / "modhub.json").read_bytes())
    change(document)
    (written / "modhub.json").write_bytes(pretty_json(document))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda d: d.update(schema_version=99),
            SchemaVersionError,
            "{}/modhub.json has schema version 99; this modhub reads up to 1. Upgrade it with: pip install "
            "--upgrade modhub",
        ),
        (
            lambda d: d["trunk"]["weights"].update(path="../../etc/passwd"),
            IntegrityError,
            "The path '../../etc/passwd' does not stay inside its repository. Pull or decompose it again.",
        ),
        (
            lambda d: d["trunk"]["graph"].update(path="/etc/passwd"),
            IntegrityError,
            "The path '/etc/passwd' does not stay inside its repository. Pull or decompose it again.",
        ),
        (
            lambda d: d["modules"][0].update(label="tiger"),
            IntegrityError,
            "modules/cat/module.json does not say the same as modhub.json: 'label' differs. Pull or "
            "decompose it again.",
        ),
        (
            lambda d: d["modules"][0]["metrics"].update(recall=1.0),
            IntegrityError,
            "modules/cat/module.json does not say the same as modhub.json: 'metrics' differs. Pull or "
            "decompose it again.",
        ),
        (
            lambda d: d.update(license="apache-2.0"),
            IntegrityError,
            "modules/cat/module.json does not say the same as modhub.json: 'license' differs. Pull or "
            "decompose it again.",
        ),
        (
            lambda d: d["trunk"].update(features=7),
            IntegrityError,
            "The trunk in trunk/graph.json gives values of shape [6]; the manifest says 7 features. Pull or "
            "decompose it again.",
        ),
        (
            lambda d: d["modules"][0].update(slug="../cat"),
            ManifestError,
            None,
        ),
    ],
    ids=["newer", "escaping path", "absolute path", "other label", "recall", "licence", "features", "slug"],
)
def test_a_manifest_that_lies(
    written: Path, change: Callable[[dict[str, Any]], None], error: type[Exception], message: str | None
) -> None:
    edited(written, change)
    with pytest.raises(error) as caught:
        read_artifact(written)
    if message is not None:
        assert str(caught.value) == message.format(written)


def test_a_directory_that_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        read_artifact(tmp_path)
    assert str(caught.value) == (
        f"'{tmp_path}' holds no modhub.json. Name a directory written by 'modhub decompose' or 'modhub pull'."
    )


def with_tensors(modules: ModuleSet, tensors: dict[str, torch.Tensor]) -> ModuleSet:
    """A set that lies consistently: its only module has these tensors and the digest of them."""
    first = modules.modules[0]
    info = FileInfo.of(first.manifest.tensors.path, tensor_bytes(tensors))
    module = ClassModule(dataclasses.replace(first.manifest, tensors=info), tensors)
    manifest = dataclasses.replace(modules.manifest, modules=(entry_of(module),))
    return ModuleSet(manifest, modules.trunk, modules.statistics, (module,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": None}, "{} lacks the tensor 'mask'. Pull or decompose it again."),
        (
            {"mask": torch.ones(3, dtype=torch.uint8)},
            "The tensor 'mask' in {} is uint8 [3]; its trunk asks for uint8 [14]. Pull or "
            "decompose it again.",
        ),
        (
            {"head.weight": torch.ones(2, 6).double()},
            "The tensor 'head.weight' in {} is float64 [2, 6]; its trunk asks for float32 [2, 6]. Pull or "
            "decompose it again.",
        ),
        (
            {"head.bias": torch.tensor([0.0, float("nan")])},
            "The tensor 'head.bias' in {} holds values that are not finite numbers. Decompose the parent "
            "again; its weights may have diverged.",
        ),
        (
            {"position_mask.relu": torch.ones(6, 3, 3, dtype=torch.uint8)},
            "The tensor 'position_mask.relu' in {} is uint8 [6, 3, 3]; its trunk asks for uint8 [6, 4, 4]. "
            "Pull or decompose it again.",
        ),
        (
            {"position_mask.nothing": torch.ones(6, 4, 4, dtype=torch.uint8)},
            "The tensor 'position_mask.nothing' in {} speaks of no value of its trunk. Pull or "
            "decompose it again.",
        ),
    ],
)
def test_tensors_that_do_not_fit_their_trunk(
    tmp_path: Path, modules: ModuleSet, change: dict[str, torch.Tensor | None], message: str
) -> None:
    tensors = {**modules.modules[0].tensors, **change}
    wrong = with_tensors(modules, {name: tensor for name, tensor in tensors.items() if tensor is not None})
    with pytest.raises(IntegrityError) as caught:
        # Of the numbers the writer takes care itself.
        read_artifact(write_artifact(tmp_path / "out", wrong))
    assert str(caught.value) == message.format("modules/cat/module.safetensors")


# -- safetensors ------------------------------------------------------------------------------------------


def tensor_file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(start: int, stop: int, shape: list[int] | None = None, dtype: str = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape or [stop - start], "data_offsets": [start, stop]}


HINT = "Fetch or build it again; it may be truncated."


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"1234567", "it has only 7 bytes"),
        (struct.pack("<Q", 2**63) + b"{}", "its header would be 9,223,372,036,854,775,808 bytes of 10"),
        (tensor_file(b"[" * 100_000), "its header is not JSON"),
        (tensor_file([]), "its header is not an object"),
        (tensor_file({"a": entry(0, 4)}, b"123"), "its tensors need 4 bytes, and 3 are there"),
        (tensor_file({"a": entry(0, 3)}, b"1234"), "its tensors need 3 bytes, and 4 are there"),
        (tensor_file({"a": entry(1, 3)}, b"123"), "its tensors overlap or leave gaps"),
        (tensor_file({"a": entry(0, 3), "b": entry(2, 4)}, b"1234"), "its tensors overlap or leave gaps"),
        (tensor_file({"a": entry(0, 4, [2**39, 2**39])}, b"1234"), "the entry of tensor 'a' makes no sense"),
        (tensor_file({"a": entry(0, 4, [-4])}, b"1234"), "the entry of tensor 'a' makes no sense"),
        (tensor_file({"a": entry(0, 4, dtype="OBJ")}, b"1234"), "the entry of tensor 'a' makes no sense"),
        (tensor_file({"a": 3}), "the entry of tensor 'a' makes no sense"),
        (tensor_file({"a": entry(4, 0, [4])}, b"1234"), "the entry of tensor 'a' makes no sense"),
    ],
)
def test_a_safetensors_file_is_not_believed(content: bytes, why: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_tensors(content, "x.safetensors")
    assert str(caught.value) == f"x.safetensors is not a whole safetensors file: {why}. {HINT}"


@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_damage_is_an_integrity_error_or_other_numbers(noise: bytes, at: int) -> None:
    good = tensor_bytes({"a": torch.arange(6, dtype=torch.int32), "b": torch.ones(2, 2)})
    at = min(at, len(good))
    try:
        tensors = parse_tensors(good[:at] + noise + good[at + len(noise) :], "x")
    except IntegrityError:
        return
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) <= len(good) + len(
        noise
    )


def test_tensors_come_back_whatever_their_order() -> None:
    tensors = {"b": torch.ones(2, 0), "a": torch.arange(3).half(), "c": torch.tensor(2.0)}
    content = tensor_bytes(tensors)
    assert content == tensor_bytes(dict(reversed(tensors.items())))
    found = parse_tensors(content, "x")
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_the_manifest_survives_its_own_bytes(modules: ModuleSet) -> None:
    assert RepositoryManifest.from_bytes(modules.manifest.to_bytes()) == modules.manifest


def test_a_file_info_checks_its_path() -> None:
    from modhub.manifest import Fields

    with pytest.raises(IntegrityError):
        FileInfo.from_dict(Fields({"path": "a/../b", "sha256": "0" * 64, "size": 1}, "x"))


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"'label' in modules/x+/module.json has 201 characters"):
        write_artifact(tmp_path / "out", pico_set(("x" * 201, "dog")))
    modules = pico_set()
    tensors = {**modules.modules[0].tensors, "head.bias": torch.tensor([0.0, float("inf")])}
    diverged = with_tensors(modules, tensors)
    with pytest.raises(IntegrityError, match=r"'head.bias' in modules/cat/module.safetensors holds values"):
        write_artifact(tmp_path / "out", diverged)
    assert not list(tmp_path.iterdir())


def test_slugs_are_told_apart() -> None:
    long = "x" * 97
    assert slugs_of(["C", "C++", "C 2", "cat"]) == ("c", "c-2", "c-2-2", "cat")
    assert slugs_of([f"{long}a", f"{long}b"]) == ("x" * 96, "x" * 80 + "-2")
