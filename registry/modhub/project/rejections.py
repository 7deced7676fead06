"""Why a release does not do for a want: facts, which `str` puts into words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modhub.catalog.releases import Release
from modhub.errors import ModhubError
from modhub.refs import RepositoryId


@dataclass(frozen=True, slots=True)
class Rejection:
    """`release` of `repository` does not do; `release` is None where none could be read or is allowed."""

    repository: RepositoryId
    release: Release | None

    @property
    def place(self) -> str:
        return f"{self.repository}" if self.release is None else f"{self.repository} {self.release}"


@dataclass(frozen=True, slots=True)
class NoClass(Rejection):
    """No module answers to `label`."""

    label: str

    def __str__(self) -> str:
        return f"{self.place} has no class '{self.label}'"


@dataclass(frozen=True, slots=True)
class LicenseMismatch(Rejection):
    """The licence is not among those allowed; None where none is stated."""

    license: str | None

    def __str__(self) -> str:
        stated = f"'{self.license}'" if self.license else "not stated"
        return f"the licence of {self.place} is {stated}"


@dataclass(frozen=True, slots=True)
class RecallTooLow(Rejection):
    """The recall recorded for `label`, in [0, 1]; None where none is recorded."""

    label: str
    recall: float | None

    def __str__(self) -> str:
        if self.recall is None:
            return f"no recall is recorded for '{self.label}' in {self.place}"
        return f"the recall of '{self.label}' in {self.place} is {self.recall:.3f}"


@dataclass(frozen=True, slots=True)
class Unreadable(Rejection):
    """Its files cannot be read."""

    error: ModhubError

    def __str__(self) -> str:
        return f"{self.place} cannot be read ({self.error.message.rstrip('.')})"


@dataclass(frozen=True, slots=True)
class LostFile(Rejection):
    """The hub has lost the contents of `path` in repository `home`."""

    home: RepositoryId
    path: str

    def __str__(self) -> str:
        return f"{self.place} cannot be read (the hub has lost '{self.path}' of '{self.home}')"


@dataclass(frozen=True, slots=True)
class Disallowed(Rejection):
    """No release is allowed by what the want asks for."""

    error: ModhubError

    def __str__(self) -> str:
        return self.error.message.rstrip(".")


def only_classes_missing(rejections: Iterable[Rejection]) -> bool:
    """Whether nothing but missing classes is the reason."""
    return all(isinstance(rejection, NoClass) for rejection in rejections)
