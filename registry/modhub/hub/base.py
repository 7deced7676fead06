"""The protocol of hubs: versioned file stores, which know nothing of modules.

A repository has branches and tags, each naming a commit; a commit is a complete tree of files, immutable.
Three hubs behave alike: `DirectoryHub` (files, no server), any endpoint of the Hugging Face Hub protocol, and
huggingface.co. `modhub.catalog.catalog` gives the files their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, Protocol

from modhub.refs import RepositoryId
from modhub.reporter import SILENT, Reporter
from modhub.store.model import Add, Change, FileEntry, Refs, RepositorySummary


class Hub(Protocol):
    """A versioned file store. Every method may raise `HubError`, `AccessError` and `OfflineError`.

    `NotFoundError.missing` says which of repository, revision and file is not there. Commits are named by 40
    hex digits; a `revision` is a commit, a tag or a branch.
    """

    @property
    def address(self) -> str:
        """Where it is, without credentials: a directory, `https://host`, or `hf`."""

    @property
    def local(self) -> bool:
        """Whether it works without a network."""

    def namespaces(self) -> frozenset[str] | None:
        """The namespaces of the user, in lower case; None: all, as in a directory that is the user's."""

    def find(self, tags: Sequence[str] = (), *, text: str = "", limit: int = 1000) -> list[RepositorySummary]:
        """Repositories that carry all `tags`, whose name or tags contain `text`; the most recent first."""

    def refs(self, repository: RepositoryId) -> Refs:
        """Branches and tags as they are now."""

    def commit_of(self, repository: RepositoryId, revision: str) -> str:
        """The commit that `revision` names now. Raises `NotFoundError`."""

    def tree(self, repository: RepositoryId, commit: str) -> dict[str, FileEntry]:
        """All files of a commit by path; the same for ever."""

    def lost(self, repository: RepositoryId, commit: str) -> frozenset[str]:
        """Files of a commit whose contents the hub reports as lost; `restore` sends them again."""

    def read(self, repository: RepositoryId, commit: str, path: str, *, limit: int = 16 << 20) -> bytes:
        """A small file's bytes. Raises `HubError` when it has more than `limit`."""

    def download(
        self,
        repository: RepositoryId,
        commit: str,
        path: str,
        destination: BinaryIO,
        *,
        offset: int = 0,
        reporter: Reporter = SILENT,
    ) -> None:
        """Write the file's bytes from `offset` on to `destination`; `reporter.advance` counts bytes.

        Verifies nothing: the caller knows what to expect (`modhub.hub.cache` does it for everybody).
        """

    def create_repository(
        self, repository: RepositoryId, *, private: bool = False, exist_ok: bool = False
    ) -> None:
        """Raises `ConflictError` when it exists and `exist_ok` is false."""

    def delete_repository(self, repository: RepositoryId) -> None:
        """With all that is in it."""

    def commit(
        self,
        repository: RepositoryId,
        changes: Sequence[Change],
        message: str,
        *,
        parent: str | None = None,
        reporter: Reporter = SILENT,
    ) -> str:
        """Apply `changes` to main as one commit, all or nothing; the new commit.

        With `parent`, raises `StaleParentError` when main has moved from it; possibly by this very
        commit, when its response was lost and the request repeated.
        """

    def restore(self, repository: RepositoryId, lost: Sequence[Add], *, reporter: Reporter = SILENT) -> None:
        """Send contents that the hub has `lost` of files in any of its commits; no reference moves."""

    def create_tag(self, repository: RepositoryId, name: str, commit: str) -> None:
        """Raises `ConflictError` when the tag exists on another commit; on the same one it does nothing."""
