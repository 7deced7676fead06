"""Pull requests of a store: a reference `refs/pr/<n>` and a record of what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from modhub.errors import ConflictError, NotFoundError
from modhub.store.changes import StoreChange
from modhub.store.model import MAIN
from modhub.store.records import HEADS, CommitRecord, PullRequest, RepositoryKey, now
from modhub.store.references import RepositoryState
from modhub.store.tree import Tree, TreeFile

if TYPE_CHECKING:
    from modhub.store.store import Store


class PullRequests:
    """The pull requests of all repositories of `store`. Raises `NotFoundError` for an unknown number."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def open(self, key: RepositoryKey, *, title: str, description: str = "", actor: str = "") -> PullRequest:
        """A new one, starting at the newest commit of main."""
        with self._store.write_lock(key):
            pull, state = self._opened(key, title, description, actor, MAIN)
            self._audit(key, pull)
            self._store.references.save_state(key, state)
        return pull

    def propose(
        self,
        key: RepositoryKey,
        changes: Sequence[StoreChange],
        *,
        title: str,
        description: str = "",
        actor: str = "",
        target: str = MAIN,
        parent: str | None = None,
    ) -> tuple[PullRequest, CommitRecord]:
        """A new one with `changes` to `target` as its first commit. Raises what `Commits.create` raises."""
        with self._store.blobs.writing():
            changes = self._store.commits.store_contents(key, changes)
            with self._store.write_lock(key):
                pull, state = self._opened(key, title, description, actor, target)
                tree = self._store.commits.apply(key, pull.base, changes, ref=target, parent=parent)
                self._audit(key, pull)
                commit = self._store.commits.append(
                    key,
                    state,
                    pull.ref,
                    (pull.base,),
                    tree,
                    title=title,
                    description=description,
                    actor=actor,
                    sent=changes,
                )
        return pull, commit

    def _opened(
        self, key: RepositoryKey, title: str, description: str, actor: str, target: str
    ) -> tuple[PullRequest, RepositoryState]:
        """A new pull request, and the state that has it."""
        state = self._store.references.state(key)
        pull = PullRequest(
            number=1 + max((pull.number for pull in state.pulls), default=0),
            title=title,
            description=description,
            author=actor,
            created=now(),
            target=target,
            base=self._store.reader.resolve(key, HEADS + target),
        )
        return pull, replace(state, refs={**state.refs, pull.ref: pull.base}, pulls=(*state.pulls, pull))

    def _audit(self, key: RepositoryKey, pull: PullRequest) -> None:
        subject, title = key.subject, pull.title[:200]
        self._store.audit.append("open-pull-request", subject, pull.author, number=pull.number, title=title)

    def all(self, key: RepositoryKey) -> tuple[PullRequest, ...]:
        """Oldest first."""
        return self._store.references.state(key).pulls

    def get(self, key: RepositoryKey, number: int) -> PullRequest:
        return _numbered(key, self._store.references.state(key), number)

    def conflicts(self, key: RepositoryKey, number: int) -> list[str]:
        """Paths that the pull request and its target changed differently since it was opened."""
        return self._merged(key, self.get(key, number))[1]

    def merge(
        self, key: RepositoryKey, number: int, *, actor: str = "", description: str = ""
    ) -> CommitRecord:
        """Its changes as one commit on its target. Raises `ConflictError` naming the conflicting files."""
        with self._store.write_lock(key):
            state = self._store.references.state(key)
            pull = _numbered(key, state, number)
            if pull.status != "open":
                raise ConflictError(
                    f"Pull request {number} of '{key}' is {pull.status}.",
                    hint="Open another." if pull.status == "merged" else "Reopen it first.",
                )
            tree, conflicts = self._merged(key, pull)
            if conflicts:
                raise ConflictError(
                    f"Pull request {number} of '{key}' and '{pull.target}' changed the same files: "
                    f"{', '.join(conflicts[:10])}.",
                    hint="Commit the resolved files to the pull request's branch first.",
                )
            ref = HEADS + pull.target
            done = _with(state, _event(replace(pull, status="merged"), "status-change", actor, "merged"))
            return self._store.commits.append(
                key,
                done,
                ref,
                (state.refs[ref], state.refs[pull.ref]),
                tree,
                title=f"{pull.title} (#{number})",
                description=description,
                actor=actor,
            )

    def change_status(self, key: RepositoryKey, number: int, status: str, *, actor: str = "") -> PullRequest:
        """Close (`closed`) or reopen (`open`) it. Raises `ConflictError` when it is merged."""

        def change(pull: PullRequest) -> PullRequest:
            if pull.status == "merged":
                raise ConflictError(f"Pull request {number} of '{key}' is merged.", hint="Open another.")
            return _event(replace(pull, status=status), "status-change", actor, status)

        return self._change(key, number, actor, f"{status}-pull-request", change)

    def comment(self, key: RepositoryKey, number: int, text: str, *, actor: str = "") -> PullRequest:
        """Add a comment to its events."""
        return self._change(
            key, number, actor, "comment-pull-request", lambda pull: _event(pull, "comment", actor, text)
        )

    def rename(self, key: RepositoryKey, number: int, title: str, *, actor: str = "") -> PullRequest:
        """Give it another title."""
        return self._change(
            key,
            number,
            actor,
            "rename-pull-request",
            lambda pull: _event(
                replace(pull, title=title), "title-change", actor, title, **{"from": pull.title}
            ),
        )

    def change_comment(
        self, key: RepositoryKey, number: int, place: int, text: str, *, hidden: bool = False, actor: str = ""
    ) -> PullRequest:
        """Replace the text of a comment, its event number `place`; 0 is the description. Or hide it."""

        def change(pull: PullRequest) -> PullRequest:
            if place == 0:
                return replace(pull, description=text)
            marks = {"content": text, "hidden" if hidden else "edited": "true"}
            event = {**pull.events[place - 1], **marks}
            return replace(pull, events=(*pull.events[: place - 1], event, *pull.events[place:]))

        return self._change(key, number, actor, "edit-comment", change)

    def _change(
        self,
        key: RepositoryKey,
        number: int,
        actor: str,
        action: str,
        change: Callable[[PullRequest], PullRequest],
    ) -> PullRequest:
        with self._store.write_lock(key):
            state = self._store.references.state(key)
            pull = change(_numbered(key, state, number))
            self._store.audit.append(action, key.subject, actor, number=number)
            self._store.references.save_state(key, _with(state, pull))
        return pull

    def _merged(self, key: RepositoryKey, pull: PullRequest) -> tuple[Tree, list[str]]:
        """The target's files with the pull request's changes, and the paths both changed differently."""
        base, ours, theirs = (
            self._store.reader.tree(key, revision) for revision in (pull.base, HEADS + pull.target, pull.ref)
        )
        put: dict[str, TreeFile] = {}
        deleted: list[str] = []
        conflicts = []
        for path in sorted({*base, *theirs}):
            proposed = theirs.get(path)
            if proposed == base.get(path) or proposed == ours.get(path):
                continue
            if ours.get(path) != base.get(path):
                conflicts.append(path)
            elif proposed is None:
                deleted.append(path)
            else:
                put[path] = proposed
        return (ours if conflicts else ours.changed(put, deleted)), conflicts


def _numbered(key: RepositoryKey, state: RepositoryState, number: int) -> PullRequest:
    for pull in state.pulls:
        if pull.number == number:
            return pull
    raise NotFoundError(
        f"There is no pull request {number} in '{key}'.",
        hint=f"Use one of its {len(state.pulls)}, or open one.",
        missing="revision",
    )


def _with(state: RepositoryState, changed: PullRequest) -> RepositoryState:
    pulls = tuple(changed if pull.number == changed.number else pull for pull in state.pulls)
    return replace(state, pulls=pulls)


def _event(pull: PullRequest, kind: str, actor: str, content: str, **more: str) -> PullRequest:
    event = {"type": kind, "author": actor, "date": now(), "content": content, **more}
    return replace(pull, events=(*pull.events, event))
