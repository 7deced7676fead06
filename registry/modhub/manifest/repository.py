"""`modhub.json`: what a repository holds. Small enough to read for a search, complete enough to pull by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modhub.energy import Emissions, EnergyUse, NamedFactor
from modhub.errors import ClassNotFoundError, IntegrityError, ManifestError, hinting
from modhub.labels import LabelIndex, nearest_labels, one_match
from modhub.manifest.fields import AGAIN, Fields
from modhub.manifest.input_spec import InputSpec
from modhub.manifest.module import FORMS, ModuleManifest
from modhub.manifest.parts import FileInfo, MethodInfo, ParentInfo, Sample, TrunkInfo
from modhub.refs import repeated
from modhub.results import Document
from modhub.text import parse_json, pretty_json

MANIFEST_NAME = "modhub.json"
REPOSITORY_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleEntry(Document):
    """One module as the repository's manifest lists it.

    `metrics` are the module's own measured fractions (recall, precision, …), empty when none were measured;
    `sample` are the images they rest on, None where that is not said; `trunk` is set only for a standalone
    module, whose trunk is its own.
    """

    label: str
    slug: str
    aliases: tuple[str, ...]
    form: str
    manifest: FileInfo
    tensors: FileInfo
    trunk: TrunkInfo | None
    kept_channels_fraction: float
    metrics: Mapping[str, float]
    sample: Sample | None = None

    @classmethod
    def from_dict(cls, fields: Fields) -> ModuleEntry:
        return cls(
            label=fields.label("label"),
            slug=fields.slug("slug"),
            aliases=fields.strings("aliases"),
            form=fields.choice("form", FORMS),
            manifest=FileInfo.from_dict(fields.child("manifest")),
            tensors=FileInfo.from_dict(fields.child("tensors")),
            trunk=fields.optional("trunk", TrunkInfo.from_dict),
            kept_channels_fraction=fields.number("kept_channels_fraction", minimum=0, maximum=1),
            metrics=fields.number_map("metrics", minimum=0, maximum=1),
            sample=fields.optional("sample", Sample.from_dict),
        )

    @classmethod
    def of(cls, module: ModuleManifest, manifest: FileInfo) -> ModuleEntry:
        """The entry of a module whose own manifest is the file `manifest`."""
        return cls(
            label=module.label,
            slug=module.slug,
            aliases=module.aliases,
            form=module.form,
            manifest=manifest,
            tensors=module.tensors,
            trunk=module.trunk if module.form == "standalone" else None,
            kept_channels_fraction=module.sizes.kept_channels_fraction,
            metrics={} if module.measurement is None else module.measurement.values,
            sample=None if module.measurement is None else module.measurement.sample,
        )

    @property
    def bytes(self) -> int:
        """What is the module's alone: its two files, and those of the trunk of one that stands alone."""
        trunk_files = () if self.trunk is None else self.trunk.files
        return sum(file.size for file in (self.manifest, self.tensors, *trunk_files))

    def to_dict(self) -> dict[str, Any]:
        entry = Document.to_dict(self)
        if self.sample is None:
            del entry["sample"]
        return entry


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryManifest(Document):
    """The modules of one parent on one trunk. `trunk` is None when every module is standalone.

    `energy` is what making them took. It differs from run to run, and does not identify the modules.
    """

    parent: ParentInfo
    trunk: TrunkInfo | None
    input: InputSpec
    method: MethodInfo
    license: str | None
    modules: tuple[ModuleEntry, ...]
    energy: EnergyUse | None = None

    @classmethod
    def from_bytes(
        cls, content: bytes, place: str = MANIFEST_NAME, *, hint: str = AGAIN
    ) -> RepositoryManifest:
        """Read and check the file; `hint` says how to get another.

        Raises `ManifestError`, `SchemaVersionError` or `IntegrityError` naming the place.
        """
        with hinting(hint):
            return cls.from_dict(Fields(parse_json(content, place), place))

    @classmethod
    def from_dict(cls, fields: Fields) -> RepositoryManifest:
        fields.check_version(REPOSITORY_SCHEMA_VERSION)
        manifest = cls(
            parent=ParentInfo.from_dict(fields.child("parent")),
            trunk=fields.optional("trunk", TrunkInfo.from_dict),
            input=InputSpec.from_dict(fields.child("input")),
            method=MethodInfo.from_dict(fields.child("method")),
            license=fields.optional_string("license"),
            modules=tuple(ModuleEntry.from_dict(entry) for entry in fields.children("modules")),
            energy=fields.optional("energy", _energy),
        )
        if not manifest.modules:
            raise ManifestError(f"{fields.place} lists no module.", hint="Make some with: modhub decompose")
        if twice := repeated(entry.slug for entry in manifest.modules):
            raise ManifestError(f"{fields.place} lists the module '{min(twice)}' twice.")
        for entry in manifest.modules:
            if entry.trunk is None and manifest.trunk is None:
                raise ManifestError(f"The module '{entry.slug}' in {fields.place} has no trunk.")
        return manifest

    def to_dict(self) -> dict[str, Any]:
        document = {"schema_version": REPOSITORY_SCHEMA_VERSION, **Document.to_dict(self)}
        if self.energy is None:
            del document["energy"]
        return document

    def to_bytes(self) -> bytes:
        """The file's one byte string for this content."""
        return pretty_json(self.to_dict())

    def matching(self, name: str) -> tuple[ModuleEntry, ...]:
        """The modules that `name` means (`modhub.labels`): none, one, or several alike."""
        return tuple(self.modules[place] for place in self._names().find(name))

    def module(self, name: str, place: str = "this repository") -> ModuleEntry:
        """The module that `name` means.

        Raises `ClassNotFoundError` with the nearest names, and `AmbiguousClassError` for several.
        """
        labels = [entry.label for entry in self.modules]
        match = one_match(name, labels, self._names().find(name), place)
        if match is not None:
            return self.modules[match]
        near = nearest_labels(name, labels)
        listed = f"It has: {', '.join(labels[:10])}{', …' if len(labels) > 10 else ''}."
        raise ClassNotFoundError(name, place, nearest=near, hint=listed)

    def _names(self) -> LabelIndex:
        entries = self.modules
        return LabelIndex(
            [entry.label for entry in entries],
            [entry.aliases for entry in entries],
            [entry.slug for entry in entries],
        )

    def check(self, entry: ModuleEntry, module: ModuleManifest) -> None:
        """Compare everything that `entry` and this manifest say of a module with its own manifest.

        Where a trunk's files stand may be said by one of them alone, and the entry need not say what its
        figures rest on. Raises `IntegrityError` that names the first thing in which they differ.
        """
        recorded, actual = entry.to_dict(), ModuleEntry.of(module, entry.manifest).to_dict()
        pairs = {key: (recorded[key], actual.get(key)) for key in recorded if key != "trunk"}
        for key in ("parent", "input", "method", "license"):
            pairs[key] = (getattr(self, key), getattr(module, key))
        pairs["trunk"] = (_anywhere(self.trunk_of(entry)), _anywhere(module.trunk))
        for key, (mine, its) in pairs.items():
            if mine != its:
                raise IntegrityError(
                    f"{entry.manifest.path} does not say the same as {MANIFEST_NAME}: '{key}' differs.",
                    hint=AGAIN,
                )

    def trunk_of(self, entry: ModuleEntry) -> TrunkInfo:
        """The trunk `entry` stands on: its own, or the repository's."""
        trunk = entry.trunk or self.trunk
        if trunk is None:
            raise ManifestError(f"The module '{entry.slug}' has no trunk.", hint=AGAIN)
        return trunk


def _energy(fields: Fields) -> EnergyUse:
    return EnergyUse(
        seconds=fields.number("seconds", minimum=0),
        cores=fields.number("cores", minimum=0),
        processor=fields.string("processor"),
        kwh=None if fields.value.get("kwh") is None else fields.number("kwh", minimum=0),
        power_model=fields.string("power_model"),
        emissions=fields.optional("emissions", _emissions),
    )


def _emissions(fields: Fields) -> Emissions:
    embodied = None
    if fields.value.get("embodied") is not None:
        value = fields.number("embodied_grams_per_hour", minimum=0)
        embodied = NamedFactor(value, fields.string("embodied"))
    return Emissions(
        grams=fields.number("grams", minimum=0),
        grid=NamedFactor(fields.number("grams_per_kwh", minimum=0), fields.string("grid")),
        embodied=embodied,
    )


def _anywhere(trunk: TrunkInfo) -> TrunkInfo:
    return replace(trunk, repository=None, revision=None)
