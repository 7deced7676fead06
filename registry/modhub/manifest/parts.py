"""The pieces manifests are made of: frozen; `to_dict` is what stands in the file, `from_dict` checks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modhub.errors import ManifestError, RefError
from modhub.files import confined, sha256_of_bytes
from modhub.integrity import check_content, read_checked
from modhub.manifest.fields import Fields
from modhub.refs import RepositoryId
from modhub.results import Document

Scalar = str | int | float | bool | None
_ANYWHERE = Path()
_UNSEEN = frozenset(("test", "val", "valid", "validation"))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo(Document):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentInfo(Document):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkInfo(Document):
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
            statistics=fields.optional("statistics", FileInfo.from_dict),
            features=fields.integer("features", minimum=1),
            parameters=fields.integer("parameters"),
            flops=fields.integer("flops"),
            repository=repository,
            revision=fields.optional_string("revision"),
        )

    @property
    def files(self) -> tuple[FileInfo, ...]:
        """Graph, weights and, if there are any, statistics."""
        files = (self.graph, self.weights)
        return files if self.statistics is None else (*files, self.statistics)


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodInfo(Document):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration(Document):
    """How a margin becomes a log-odds: numbers fitted when the module was made; `kind` says which formula."""

    kind: str
    parameters: Mapping[str, float]

    @classmethod
    def from_dict(cls, fields: Fields) -> Calibration:
        return cls(kind=fields.string("kind"), parameters=fields.number_map("parameters"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Document):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Document):
    """Metrics measured on held-out images: nothing of the module was chosen by them.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes(Document):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance(Document):
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
