"""Branches and tags. Commits move branches (`modhub.store.commits`), nothing moves tags.

Branches and tags are deleted freely, except those of releases (`modhub.store.releases`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from modhub.errors import ConflictError
from modhub.store.audit import AuditLog
from modhub.store.model import MAIN
from modhub.store.paths import check_ref_name
from modhub.store.reader import Reader, no_revision
from modhub.store.records import HEADS, TAGS, RepositoryKey
from modhub.store.references import References
from modhub.store.releases import Releases
from modhub.store.write_lock import WriteLock


@dataclass(frozen=True, slots=True)
class NamedRefs:
    """The branches, or the tags, of every repository: `kind` is `branch` or `tag`."""

    _kind: str
    _references: References
    _audit: AuditLog
    _reader: Reader
    _releases: Releases
    _write_lock: WriteLock

    @property
    def _prefix(self) -> str:
        return {"branch": HEADS, "tag": TAGS}[self._kind]

    def create(
        self, key: RepositoryKey, name: str, *, revision: str = MAIN, actor: str = "", exist_ok: bool = False
    ) -> str:
        """A new one at `revision`; its commit. Raises `RefError` for a bad name.

        Raises `ConflictError` when it exists; with `exist_ok` its commit is returned, whatever `revision` is.
        Raises `ReleaseError` for a name that spells the version of a release.
        """
        ref = self._prefix + check_ref_name(name, self._kind)
        with self._write_lock(key):
            state = self._references.state(key)
            commit = self._reader.resolve_in(key, state, revision)
            existing = state.refs.get(ref)
            if existing is not None and not exist_ok:
                raise ConflictError(
                    f"Reference {ref} already exists in '{key}'.", hint="Choose another name."
                )
            if existing is not None:
                return existing
            releases = self._releases.admit(key, state, ref, commit)
            self._audit.append("create-ref", key.subject, actor, ref=ref, commit=commit)
            self._references.save_state(
                key, replace(state, refs={**state.refs, ref: commit}, releases=releases)
            )
        return commit

    def delete(self, key: RepositoryKey, name: str, *, actor: str = "") -> None:
        """Raises `NotFoundError` for an unknown one.

        Raises `ConflictError` for the branch main, `ReleaseError` for the tag of a release.
        """
        ref = self._prefix + name
        if ref == HEADS + MAIN:
            raise ConflictError("The branch 'main' cannot be deleted.", hint="Delete the repository instead.")
        with self._write_lock(key):
            state = self._references.state(key)
            if ref not in state.refs:
                raise no_revision(key, ref)
            releases = self._releases.refuse_deletion(key, state, ref)
            self._audit.append("delete-ref", key.subject, actor, ref=ref, commit=state.refs[ref])
            refs = {other: commit for other, commit in state.refs.items() if other != ref}
            self._references.save_state(key, replace(state, refs=refs, releases=releases))
