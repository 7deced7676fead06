"""A release: a commit of a repository under a version."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import Version

__all__ = ["Release"]


@dataclass(frozen=True, slots=True)
class Release:
    """A commit of a repository; `version` is None when no release tag marks it.

    `yanked` is the reason it was taken back with, None when it stands.
    """

    version: Version | None
    commit: str
    yanked: str | None = None

    def __str__(self) -> str:
        return self.commit[:12] if self.version is None else str(self.version)
