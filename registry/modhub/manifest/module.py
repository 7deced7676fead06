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
from modhub.results import Document
from modhub.text import parse_json, pretty_json

MODULE_SCHEMA_VERSION = 2
"""The newest; a manifest says the first whose readers understand it."""
FORMS = ("delta", "standalone")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleManifest(Document):
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
            measurement=fields.optional("measurement", Measurement.from_dict),
            sizes=Sizes.from_dict(fields.child("sizes")),
            tensors=FileInfo.from_dict(fields.child("tensors")),
            provenance=Provenance.from_dict(fields.child("provenance")),
            license=fields.optional_string("license"),
        )

    def to_dict(self) -> dict[str, Any]:
        return {"schema_version": self.input.schema_version, **Document.to_dict(self)}

    def to_bytes(self) -> bytes:
        """The file's one byte string for this content."""
        return pretty_json(self.to_dict())
