"""The list of files of a commit: applying changes, comparing two, listing folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from modhub.errors import IntegrityError, NotFoundError, hinting
from modhub.store.model import FileEntry
from modhub.store.paths import collision_key
from modhub.text import canonical_json, parse_json

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file: `sha256`, `size`, `oid` (git's sha1) of its bytes; `lfs` says that git would hold a pointer."""

    sha256: str
    size: int
    oid: str
    lfs: bool

    @property
    def git_oid(self) -> str:
        """What git's tree names: the sha1 of the bytes, or of the LFS pointer to them."""
        return pointer_oid(self.sha256, self.size) if self.lfs else self.oid

    @property
    def pointer_size(self) -> int:
        """Bytes of the LFS pointer that git would hold instead."""
        return len(POINTER.format(sha256=self.sha256, size=self.size))

    @property
    def entry(self) -> FileEntry:
        return FileEntry(self.size, self.sha256, self.oid)


@dataclass(frozen=True, slots=True)
class TreeFolder:
    """A folder, with a sha1 that changes whenever anything below it does."""

    oid: str


@dataclass(frozen=True, slots=True)
class TreeDifference:
    """Paths in order."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


class Tree(Mapping[str, TreeFile]):
    """Files by path, in order. Immutable."""

    def __init__(self, files: Mapping[str, TreeFile]) -> None:
        self._files = dict(sorted(files.items()))

    def __getitem__(self, path: str) -> TreeFile:
        return self._files[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def to_bytes(self) -> bytes:
        """The canonical bytes of these files: `[[path, sha256, size, oid, lfs], …]`."""
        return canonical_json(
            [[path, file.sha256, file.size, file.oid, int(file.lfs)] for path, file in self.items()]
        )

    @classmethod
    @hinting("Run: modhub fsck --repair")
    def from_bytes(cls, content: bytes) -> Tree:
        rows = parse_json(content, "a list of files", limit=1 << 30)
        try:
            return cls(
                {path: TreeFile(sha256, size, oid, bool(lfs)) for path, sha256, size, oid, lfs in rows}
            )
        except (TypeError, ValueError) as error:
            raise IntegrityError(f"A list of files is damaged ({error}).") from None

    def changed(self, put: Mapping[str, TreeFile], delete: Iterable[str]) -> Tree:
        """The next list. A deleted folder is deleted with all files below it; deletions come first.

        Raises `NotFoundError` for a deletion of nothing, `IntegrityError` when a path would be file and
        folder at once, or two paths would differ only in case.
        """
        files = dict(self._files)
        for path in delete:
            below = (
                [path]
                if path in files
                else [file for file in files if file.startswith(path.rstrip("/") + "/")]
            )
            if not below:
                raise NotFoundError(
                    f"There is no '{path}' to delete.",
                    hint="List the branch's files.",
                    missing="file",
                )
            for file in below:
                del files[file]
        files.update(put)
        check_names(files)
        return Tree(files)

    def difference(self, later: Tree) -> TreeDifference:
        """What changed from here to `later`."""
        return TreeDifference(
            added=tuple(path for path in later if path not in self),
            changed=tuple(path for path in later if path in self and later[path] != self[path]),
            removed=tuple(path for path in self if path not in later),
        )

    def has_folder(self, path: str) -> bool:
        """Whether anything is below `path`; the top level, "", always exists."""
        prefix = path.rstrip("/") + "/"
        return not path or any(file.startswith(prefix) for file in self._files)

    def listing(self, folder: str = "", *, recursive: bool = False) -> dict[str, TreeFile | TreeFolder]:
        """Full path → file or folder below `folder`, in order; without `recursive` only the next level.

        Empty when there is no such folder.
        """
        prefix = folder.rstrip("/") + "/" if folder else ""
        entries: dict[str, TreeFile | TreeFolder] = {}
        digests: dict[str, hashlib._Hash] = {}
        for path, file in self._files.items():
            if not path.startswith(prefix):
                continue
            parts = path[len(prefix) :].split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                above = prefix + "/".join(parts[:depth])
                digest = digests.setdefault(above, hashlib.sha1(usedforsecurity=False))
                digest.update(f"{path}\0{file.sha256}\n".encode())
            if recursive or len(parts) == 1:
                entries[path] = file
        entries.update({path: TreeFolder(digest.hexdigest()) for path, digest in digests.items()})
        return dict(sorted(entries.items()))


def pointer_oid(sha256: str, size: int) -> str:
    """Git's sha1 of the LFS pointer to these bytes."""
    pointer = POINTER.format(sha256=sha256, size=size).encode()
    return hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False).hexdigest()


def check_names(files: Iterable[str]) -> None:
    """Raises `IntegrityError` when a path would be file and folder at once, or two differ only in case."""
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in files:
        key = collision_key(path)
        if key in seen:
            raise IntegrityError(
                f"'{seen[key]}' and '{path}' differ only in case.",
                hint="Rename one of them.",
            )
        seen[key] = path
        while "/" in key:
            key = key.rpartition("/")[0]
            folders[key] = path
    if both := sorted(seen.keys() & folders.keys()):
        raise IntegrityError(
            f"'{seen[both[0]]}' would be a file and, because of '{folders[both[0]]}', a folder.",
            hint="Delete the former before adding the latter.",
        )
