"""Releases: tags that nothing deletes, moves, hides or repeats, and what stays of those that are gone.

A tag `v<version>` on a commit with a `modhub.json` is a release. It is recorded beside the references when it
is created; those of a store written before there were records are read from its tags.

Where a repository was deleted or renamed, or an administrator removed a release, its record stays under the
name. Nothing else may be published as that version there, since locks and people go on naming it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from modhub.errors import IntegrityError, NotFoundError, RefError, ReleaseError
from modhub.manifest import MANIFEST_NAME
from modhub.refs import version_named, version_of_tag
from modhub.store.audit import AuditLog
from modhub.store.model import HUB_FILES
from modhub.store.reader import Reader, no_revision
from modhub.store.records import HEADS, TAGS, ReleaseRecord, RepositoryKey
from modhub.store.references import References, RepositoryState
from modhub.store.write_lock import WriteLock
from modhub.text import canonical_json


@dataclass(frozen=True, slots=True)
class Releases:
    """The releases of every repository. `actor` is whom the audit log names."""

    _references: References
    _audit: AuditLog
    _reader: Reader
    _write_lock: WriteLock

    def all(self, key: RepositoryKey) -> dict[str, ReleaseRecord]:
        """Tag → record. Raises `NotFoundError` for an unknown repository."""
        return self.recorded(key, self._references.state(key))

    def recorded(self, key: RepositoryKey, state: RepositoryState) -> dict[str, ReleaseRecord]:
        """The releases of `state`: recorded, or else read from its tags."""
        releases = dict(state.releases)
        for ref, commit in state.refs.items():
            tag = ref.removeprefix(TAGS)
            if ref.startswith(TAGS) and tag not in releases:
                # A tag whose commit is lost is still a release if it is on record; otherwise nobody can tell.
                with suppress(IntegrityError, NotFoundError):
                    if (release := self._described(key, tag, commit)) is not None:
                        releases[tag] = release
        return releases

    def admit(
        self, key: RepositoryKey, state: RepositoryState, ref: str, commit: str
    ) -> dict[str, ReleaseRecord]:
        """The releases of `state` once the new branch or tag `ref` is on `commit`; call it under the lock.

        Raises `ReleaseError` where `ref` would hide or repeat a release, or be another than one that was
        removed, or where a release would have the version of an ordinary branch or tag.
        """
        releases = self.recorded(key, state)
        name = ref.removeprefix(TAGS).removeprefix(HEADS)
        version = version_named(name)
        if version is None:
            return releases
        for tag, release in releases.items():
            if release.version == version:
                raise ReleaseError(
                    f"'{name}' spells the same version as release {tag} of '{key}', which does not change.",
                    hint="Publish the next version, or choose a name that is no version.",
                    repository=str(key),
                    release=tag,
                )
        admitted = self._described(key, name, commit) if ref.startswith(TAGS) else None
        for tag, release in self._references.removed_releases(key).items():
            if release.version != version:
                continue
            if admitted is None or name != tag or admitted.files != release.files:
                raise ReleaseError(
                    f"Release {tag} of '{key}' was removed; only the same files may become '{name}'.",
                    hint="Publish the next version.",
                    repository=str(key),
                    release=tag,
                )
        if admitted is None:
            return releases
        for other in state.refs:
            if version_named(other.removeprefix(TAGS).removeprefix(HEADS)) == version:
                kind = "tag" if other.startswith(TAGS) else "branch"
                label = other.removeprefix(TAGS).removeprefix(HEADS)
                raise ReleaseError(
                    f"Release {name} of '{key}' would have the same version as the {kind} '{label}'.",
                    hint=f"Delete the {kind} '{label}' first, or publish the next version.",
                    repository=str(key),
                    release=name,
                )
        return {**releases, name: admitted}

    def refuse_deletion(
        self, key: RepositoryKey, state: RepositoryState, ref: str
    ) -> dict[str, ReleaseRecord]:
        """The releases of `state`. Raises `ReleaseError` when `ref` is the tag of one."""
        releases = self.recorded(key, state)
        tag = ref.removeprefix(TAGS)
        if ref.startswith(TAGS) and tag in releases:
            raise ReleaseError(
                f"'{tag}' of '{key}' is a release, and releases are not deleted.",
                hint=f"Yank it: modhub yank {key}=={tag.removeprefix('v')}",
                repository=str(key),
                release=tag,
            )
        return releases

    def leave_behind(self, key: RepositoryKey, to: RepositoryKey | None = None) -> None:
        """Keep the releases of a repository on record before it is deleted or renamed to `to`.

        Raises `ReleaseError` when another repository had a release there that one of these is not.
        """
        try:
            state = self._references.state(key)
        except IntegrityError:
            state = self._references.readable_state(key)
        releases = self.recorded(key, state)
        if to is not None:
            removed = self._references.removed_releases(to)
            for tag, release in releases.items():
                for other, gone in removed.items():
                    if gone.version == release.version and (other, gone.files) != (tag, release.files):
                        raise ReleaseError(
                            f"'{to}' had a release {other} with other files than {tag} of '{key}'.",
                            hint="Choose another name.",
                            repository=str(to),
                            release=other,
                        )
            self._references.add_removed_releases(to, self._references.removed_releases(key))
        self._references.add_removed_releases(key, releases)

    def remove(self, key: RepositoryKey, version: str, *, actor: str = "") -> str:
        """Remove the release `version` for good; its tag. The version is never published with other files.

        Its files go with the next `gc`, unless a branch has them. Raises `NotFoundError`.
        """
        named = version_named(version)
        if named is None:
            raise RefError(f"'{version}' is not a version.", hint="Write it as 1.2.0.")
        with self._write_lock(key):
            state = self._references.state(key)
            releases = self.recorded(key, state)
            tags = [tag for tag, release in releases.items() if release.version == named]
            # Stores from before there were records may have one version twice.
            exact = [tag for tag in tags if tag.removeprefix("v") == version.removeprefix("v")]
            if not tags:
                raise no_revision(key, version)
            tag = (exact or tags)[0]
            self._references.add_removed_releases(key, {tag: releases[tag]})
            self._audit.append(
                "remove-release", key.subject, actor, ref=TAGS + tag, **releases[tag].to_dict()
            )
            refs = {ref: commit for ref, commit in state.refs.items() if ref != TAGS + tag}
            del releases[tag]
            self._references.save_state(key, replace(state, refs=refs, releases=releases))
        return tag

    def _described(self, key: RepositoryKey, tag: str, commit: str) -> ReleaseRecord | None:
        """The release that `tag` marks on `commit`; None where it is an ordinary tag."""
        version = version_named(tag)
        if version is None or version_of_tag(tag) is None:
            return None
        tree = self._reader.tree_of(self._reader.commit(key, commit))
        if MANIFEST_NAME not in tree:
            return None
        files = [[path, file.sha256] for path, file in tree.items() if path not in HUB_FILES]
        return ReleaseRecord(
            version=version,
            commit=commit,
            manifest=tree[MANIFEST_NAME].sha256,
            files=hashlib.sha256(canonical_json(files)).hexdigest(),
        )


def same_versions(releases: Mapping[str, ReleaseRecord]) -> list[tuple[str, str]]:
    """Pairs of tags that spell one version, as stores from before there were records may have."""
    tags = sorted(releases)
    return [
        (first, second)
        for place, first in enumerate(tags)
        for second in tags[place + 1 :]
        if releases[first].version == releases[second].version
    ]
