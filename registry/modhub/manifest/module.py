"""`modules/<slug>/module.json`: everything to know of one module before loading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modhub.errors import hinting
from modhub.manifest.fields import AGAIN, Fields
from modhub.manifest.input_spec import InputSpec
from modhub.manifest.parts import (
    Calibration,
    FileInfo,
    Measurement,
    MethodInfo,
    ParentInfo,
    Provenance,
    Sizes,
    TrunkInfo,
)
from modhub.text import parse_json, pretty_json

__all__ = ["FORMS", "MODULE_SCHEMA_VERSION", "ModuleManifest"]

MODULE_SCHEMA_VERSION = 2
"""The newest; a manifest says the first whose readers understand it."""
FORMS = ("delta", "standalone")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleManifest:
    """One class of one parent.

    `form` is `delta` (mask and head on a trunk shared with other modules) or `standalone` (`trunk` is its
    own, cut out). `aliases` are other names the class answers to; `ontology_id` names it for machines, for
    instance a WordNet id. `calibration` turns its margin into log-odds, `measurement` is None when no image
    could be spared to measure with.
    """

    label: str
    slug: str
    aliases: tuple[str, ...]
    ontology_id: str | None
    form: str
    parent: ParentInfo
    trunk: TrunkInfo
    method: MethodInfo
    input: InputSpec
    calibration: Calibration
    measurement: Measurement | None
    sizes: Sizes
    tensors: FileInfo
    provenance: Provenance
    license: str | None

    @classmethod
    def from_bytes(cls, content: bytes, place: str = "module.json", *, hint: str = AGAIN) -> ModuleManifest:
        """Read and check the file; `hint` says how to get another.

        Raises `ManifestError`, `SchemaVersionError` or `IntegrityError` naming the place.
        """
        with hinting(hint):
            return cls.from_dict(Fields(parse_json(content, place), place))

    @classmethod
    def from_dict(cls, fields: Fields) -> ModuleManifest:
        fields.check_version(MODULE_SCHEMA_VERSION)
        measurement = fields.optional_child("measurement")
        return cls(
            label=fields.label("label"),
            slug=fields.slug("slug"),
            aliases=fields.strings("aliases"),
            ontology_id=fields.optional_string("ontology_id"),
            form=fields.choice("form", FORMS),
            parent=ParentInfo.from_dict(fields.child("parent")),
            trunk=TrunkInfo.from_dict(fields.child("trunk")),
            method=MethodInfo.from_dict(fields.child("method")),
            input=InputSpec.from_dict(fields.child("input")),
            calibration=Calibration.from_dict(fields.child("calibration")),
            measurement=None if measurement is None else Measurement.from_dict(measurement),
            sizes=Sizes.from_dict(fields.child("sizes")),
            tensors=FileInfo.from_dict(fields.child("tensors")),
            provenance=Provenance.from_dict(fields.child("provenance")),
            license=fields.optional_string("license"),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": self.input.schema_version,
            "label": self.label,
            "slug": self.slug,
            "aliases": list(self.aliases),
            "ontology_id": self.ontology_id,
            "form": self.form,
            "parent": self.parent.to_dict(),
            "trunk": self.trunk.to_dict(),
            "method": self.method.to_dict(),
            "input": self.input.to_dict(),
            "calibration": self.calibration.to_dict(),
            "measurement": None if self.measurement is None else self.measurement.to_dict(),
            "sizes": self.sizes.to_dict(),
            "tensors": self.tensors.to_dict(),
            "provenance": self.provenance.to_dict(),
            "license": self.license,
        }

    def to_bytes(self) -> bytes:
        """The file's one byte string for this content."""
        return pretty_json(self.to_dict())
