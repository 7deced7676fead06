"""The store: repositories, commits and references in a folder, safe between threads, processes and crashes.

    <root>/blobs/ab/<sha256>      file contents and lists of files, each held once    (modhub.store.blobs)
    <root>/repositories, moved    repositories, references, commits                 (modhub.store.references)
    <root>/removed/               releases that are gone, by the repository's name    (modhub.store.releases)
    <root>/audit/                 who changed what                                    (modhub.store.audit)
    <root>/index.sqlite           for searching; rebuilt from the rest if lost        (modhub.store.index)
    <root>/locks, staging         nothing that is missed after a crash

A commit first makes its blobs, list of files and record durable; then one rename of `refs.json` makes it
visible. Whatever dies in between leaves the last commit in place. Repositories share no lock.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path

from modhub.catalog.releases import YANKED_LIMIT, presented_commit, releases_of
from modhub.errors import HubError, IntegrityError, ManifestError, NotFoundError
from modhub.manifest import MANIFEST_NAME, RepositoryManifest
from modhub.store.audit import AuditLog
from modhub.store.blobs import Blobs
from modhub.store.commits import Commits
from modhub.store.disk import file_lock, make_directory
from modhub.store.front_matter import read_front_matter, tags_of
from modhub.store.index import Index, IndexEntry, trunk_tag
from modhub.store.last_changes import LastChanges
from modhub.store.named_refs import NamedRefs
from modhub.store.pull_requests import PullRequests
from modhub.store.reader import Reader
from modhub.store.records import TAGS, CommitRecord, RepositoryKey
from modhub.store.references import References
from modhub.store.releases import Releases
from modhub.store.repositories import Repositories
from modhub.store.tree import TreeFile
from modhub.store.uploads import Uploads
from modhub.store.write_lock import WriteLock

CARD = "README.md"


class Store:
    """A folder of repositories, opened.

    Its parts are `reader`, `last_changes`, `repositories`, `branches`, `tags`, `releases`, `uploads`,
    `commits` and `pull_requests`.

    Everything may be used from any thread and any number of processes. Methods raise `NotFoundError`
    (`missing="repository"`) for an unknown key; those that write raise `StorageError` when the disk refuses.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().resolve()
        make_directory(self.root)
        self.blobs = Blobs(self.root / "blobs", self.root / "staging")
        self.references = References(self.root)
        self.audit = AuditLog(self.root / "audit")
        self.reader = Reader(self.blobs, self.references)
        self.index = Index(
            self.root / "index.sqlite",
            keys=self.references.all,
            describe=self._describe,
            heads=self._heads,
            try_lock=self._try_lock,
        )
        self.last_changes = LastChanges(self.reader, self.index)
        self.write_lock = WriteLock(self.blobs, self.references, self.index)
        self.uploads = Uploads(self.blobs, self.references, self.reader)
        self.commits = Commits(
            self.blobs,
            self.references,
            self.audit,
            self.reader,
            self.uploads,
            self.last_changes,
            self.write_lock,
        )
        self.releases = Releases(self.references, self.audit, self.reader, self.write_lock)
        self.branches, self.tags = (
            NamedRefs(kind, self.references, self.audit, self.reader, self.releases, self.write_lock)
            for kind in ("branch", "tag")
        )
        self.repositories = Repositories(
            self.blobs,
            self.references,
            self.audit,
            self.index,
            self.reader,
            self.commits,
            self.releases,
            self.last_changes,
            self.write_lock,
        )
        self.pull_requests = PullRequests(self)

    def close(self) -> None:
        """Close the index; the store may be used on."""
        self.index.close()

    # What the index asks of the files

    def _try_lock(self, key: RepositoryKey) -> AbstractContextManager[bool]:
        return file_lock(self.root / "locks" / f"{key.path}.lock", wait=False, reading=True)

    def _heads(self, key: RepositoryKey) -> tuple[str, bool, str]:
        settings = self.repositories.get(key).settings
        return self.reader.resolve(key), settings.private, settings.gated

    def _describe(self, key: RepositoryKey) -> IndexEntry | None:
        record = self.references.record(key)
        if record is None:
            return None
        head = self.reader.commit(key, self.reader.resolve(key))
        presented = self._presented(key, head)
        card = self.reader.tree_of(presented).get(CARD)
        front_matter = {}
        if card is not None:
            with self.reader.open(card.sha256) as stream:
                front_matter = read_front_matter(stream.read(1 << 20))
        return IndexEntry(
            kind=record.kind,
            id=record.id,
            private=record.settings.private,
            gated=record.settings.gated,
            created=record.created,
            updated=head.date,
            downloads=self.references.downloads(key),
            head=head.id,
            tags=(*tags_of(front_matter), *self._trunk_tags(key, presented)),
            front_matter=front_matter,
        )

    def _trunk_tags(self, key: RepositoryKey, commit: CommitRecord) -> list[str]:
        """The tag of the trunk that the modules share; none where the manifest is missing or malformed."""
        with suppress(HubError, IntegrityError, ManifestError, NotFoundError):
            content = self.reader.read(key, commit.id, MANIFEST_NAME)
            trunk = RepositoryManifest.from_bytes(content, MANIFEST_NAME).trunk
            return [] if trunk is None else [trunk_tag(trunk.sha256)]
        return []

    def _presented(self, key: RepositoryKey, main: CommitRecord) -> CommitRecord:
        """The commit whose card speaks for the repository: `presented_commit`."""
        refs = self.reader.refs(key)
        tags = {ref.removeprefix(TAGS): commit for ref, commit in refs.items() if ref.startswith(TAGS)}

        def read(path: str) -> bytes | None:
            if path not in self.reader.tree_of(main):
                return None
            return self.reader.read(key, main.id, path, limit=YANKED_LIMIT)

        def manifest_at(commit: str) -> TreeFile | None:
            return self.reader.tree(key, commit).get(MANIFEST_NAME)

        # Where it is unknown what is yanked, or a commit is lost, it is main.
        with suppress(HubError, IntegrityError, ManifestError):
            commit = presented_commit(releases_of(tags, read, f"'{key}'"), main.id, manifest_at)
            return main if commit is None or commit == main.id else self.reader.commit(key, commit)
        return main
