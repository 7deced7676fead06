"""The pieces manifests are made of: frozen; `to_dict` is what stands in the file, `from_dict` checks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modhub.errors import ManifestError, RefError
from modhub.files import confined, sha256_of_bytes
from modhub.integrity import check_content, read_checked
from modhub.manifest.fields import Fields
from modhub.refs import RepositoryId

__all__ = [
    "Calibration",
    "FileInfo",
    "Measurement",
    "MethodInfo",
    "ParentInfo",
    "Provenance",
    "Sample",
    "Sizes",
    "TrunkInfo",
]

Scalar = str | int | float | bool | None
_ANYWHERE = Path()
_UNSEEN = frozenset(("test", "val", "valid", "validation"))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """A file of a repository: its path there, sha256 and size in bytes."""

    path: str
    sha256: str
    size: int

    @classmethod
    def of(cls, path: str, content: bytes) -> FileInfo:
        """The file `path` of a repository with this content."""
        return cls(path=path, sha256=sha256_of_bytes(content), size=len(content))

    def check(self, content: bytes | Path, place: str, *, hint: str) -> None:
        """Raise `IntegrityError` naming `place` unless `content` has this size and sha256."""
        check_content(content, size=self.size, sha256=self.sha256, place=place, hint=hint)

    def read(self, path: Path, place: str, *, hint: str) -> bytes:
        """The content of the local file `path`. Raises `IntegrityError` unless it passes `check`."""
        return read_checked(path, size=self.size, sha256=self.sha256, place=place, hint=hint)

    @classmethod
    def from_dict(cls, fields: Fields) -> FileInfo:
        info = cls(
            path=fields.string("path", limit=500), sha256=fields.digest("sha256"), size=fields.integer("size")
        )
        confined(_ANYWHERE, info.path)
        return info

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "sha256": self.sha256, "size": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentInfo:
    """The classifier a module was taken from; `sha256` is the content id of its whole network."""

    name: str
    architecture: str
    sha256: str
    labels: tuple[str, ...]
    license: str | None
    dataset: str | None

    @classmethod
    def from_dict(cls, fields: Fields) -> ParentInfo:
        return cls(
            name=fields.string("name"),
            architecture=fields.string("architecture"),
            sha256=fields.digest("sha256"),
            labels=fields.strings("labels"),
            license=fields.optional_string("license"),
            dataset=fields.optional_string("dataset"),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "architecture": self.architecture,
            "sha256": self.sha256,
            "labels": list(self.labels),
            "license": self.license,
            "dataset": self.dataset,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkInfo:
    """The feature extractor a module's mask speaks of.

    `sha256` is the content id of graph and weights together: equal ids mean one pass serves both modules,
    whatever their repositories are called. `repository` and `revision` are set when the files stand in
    another repository than the module. `flops` are multiply-adds for one image.
    """

    sha256: str
    graph: FileInfo
    weights: FileInfo
    statistics: FileInfo | None
    features: int
    parameters: int
    flops: int
    repository: str | None = None
    revision: str | None = None

    @classmethod
    def from_dict(cls, fields: Fields) -> TrunkInfo:
        statistics = fields.optional_child("statistics")
        repository = fields.optional_string("repository")
        if repository is not None:
            try:
                RepositoryId.parse(repository)
            except RefError as error:
                raise ManifestError(f"'repository' in {fields.place}: {error.message}") from None
        return cls(
            sha256=fields.digest("sha256"),
            graph=FileInfo.from_dict(fields.child("graph")),
            weights=FileInfo.from_dict(fields.child("weights")),
            statistics=None if statistics is None else FileInfo.from_dict(statistics),
            features=fields.integer("features", minimum=1),
            parameters=fields.integer("parameters"),
            flops=fields.integer("flops"),
            repository=repository,
            revision=fields.optional_string("revision"),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "sha256": self.sha256,
            "graph": self.graph.to_dict(),
            "weights": self.weights.to_dict(),
            "statistics": None if self.statistics is None else self.statistics.to_dict(),
            "features": self.features,
            "parameters": self.parameters,
            "flops": self.flops,
            "repository": self.repository,
            "revision": self.revision,
        }

    @property
    def files(self) -> tuple[FileInfo, ...]:
        """Graph, weights and, if there are any, statistics."""
        files = (self.graph, self.weights)
        return files if self.statistics is None else (*files, self.statistics)


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodInfo:
    """How the module was cut out, with every option that had a say, and the paper it comes from."""

    name: str
    parameters: Mapping[str, Scalar]
    paper: str | None

    @classmethod
    def from_dict(cls, fields: Fields) -> MethodInfo:
        return cls(
            name=fields.string("name"),
            parameters=fields.scalar_map("parameters"),
            paper=fields.optional_string("paper"),
        )

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "parameters": dict(self.parameters), "paper": self.paper}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How a margin becomes a log-odds: numbers fitted when the module was made; `kind` says which formula."""

    kind: str
    parameters: Mapping[str, float]

    @classmethod
    def from_dict(cls, fields: Fields) -> Calibration:
        return cls(kind=fields.string("kind"), parameters=fields.number_map("parameters"))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "parameters": dict(self.parameters)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The images that figures rest on: so many of the class (`positives`) and of others."""

    dataset: str
    split: str
    positives: int
    negatives: int

    @property
    def unseen(self) -> bool:
        """Whether they are of a split that parents are not trained on, as far as its name tells."""
        return self.split.casefold() in _UNSEEN

    @classmethod
    def from_dict(cls, fields: Fields) -> Sample:
        return cls(
            dataset=fields.string("dataset"),
            split=fields.string("split"),
            positives=fields.integer("positives"),
            negatives=fields.integer("negatives"),
        )

    def to_dict(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Figures measured on images that had no say in making the module.

    `values` are fractions in [0, 1] by name: recall, precision, parent_recall, …
    """

    dataset: str
    split: str
    positives: int
    negatives: int
    values: Mapping[str, float]

    @property
    def sample(self) -> Sample:
        return Sample(
            dataset=self.dataset, split=self.split, positives=self.positives, negatives=self.negatives
        )

    @classmethod
    def from_dict(cls, fields: Fields) -> Measurement:
        return cls(
            dataset=fields.string("dataset"),
            split=fields.string("split"),
            positives=fields.integer("positives"),
            negatives=fields.integer("negatives"),
            values=fields.number_map("values", minimum=0, maximum=1),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "split": self.split,
            "positives": self.positives,
            "negatives": self.negatives,
            "values": dict(self.values),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the module keeps of its trunk, counted; `flops` are multiply-adds for one image."""

    kept_channels: int
    channels: int
    kept_parameters: int
    parameters: int
    flops: int
    parent_flops: int

    @property
    def kept_channels_fraction(self) -> float:
        """Kept channels of all channels, in [0, 1]."""
        return self.kept_channels / self.channels if self.channels else 1.0

    @classmethod
    def from_dict(cls, fields: Fields) -> Sizes:
        return cls(**{key: fields.integer(key) for key in cls.__slots__})

    def to_dict(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Who made it with what. `date` is the caller's (ISO 8601), so that equal inputs give equal bytes."""

    tool: str
    tool_version: str
    seed: int
    date: str | None
    environment: Mapping[str, str]

    @classmethod
    def from_dict(cls, fields: Fields) -> Provenance:
        return cls(
            tool=fields.string("tool"),
            tool_version=fields.string("tool_version"),
            seed=fields.integer("seed", minimum=-(2**53)),
            date=fields.optional_string("date"),
            environment=fields.string_map("environment"),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "tool": self.tool,
            "tool_version": self.tool_version,
            "seed": self.seed,
            "date": self.date,
            "environment": dict(self.environment),
        }
