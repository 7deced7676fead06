"""Whose module serves a bare label.

Anybody may offer a class, and claim any figures for it. So a bare label is served by

1. the repository that the lock has for it, while a release of it does;
2. else by a repository in a trusted namespace: the user's own, one that the project or its lock names, or one
   that the user has listed; one that serves other classes of the composition before the others.

Where that leaves none, or several, the user is asked; where nobody can be asked, an error lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from modhub.errors import AmbiguousProviderError
from modhub.project.candidates import Candidates
from modhub.project.toml import Project, Want
from modhub.refs import Ref, RepositoryId
from modhub.reporter import SILENT, Reporter


@dataclass(frozen=True, slots=True)
class Trust:
    """Which namespaces a bare label may come from, and who can be asked about the others.

    `owns` says whether a repository is in a namespace of the user's; `namespaces` are in lower case.
    """

    owns: Callable[[RepositoryId], bool]
    namespaces: frozenset[str] = frozenset()
    reporter: Reporter = SILENT

    def covers(self, repository: RepositoryId) -> bool:
        return repository.namespace.lower() in self.namespaces or self.owns(repository)


def settle_providers(project: Project, candidates: Candidates, trust: Trust, *, locked: bool = True) -> None:
    """Leave each bare label one provider; `locked`: the lock's where it does.

    Raises `AmbiguousProviderError`.
    """
    named = {want.ref.repository for want in project.wants if want.ref.repository is not None}
    kept = candidates.prefer.providers
    trust = Trust(
        trust.owns,
        trust.namespaces | {place.namespace.lower() for place in {*named, *kept.values()}} | {*project.hubs},
        trust.reporter,
    )
    used = {str(repository).lower() for repository in named}
    bare = [want for want in project.wants if want.ref.repository is None]
    for want in sorted(bare, key=lambda want: (want.label not in kept, want.label)):
        candidates.settle(want, None)
        fitting = candidates.fitting_providers(want)
        if not fitting:
            # `explain` says why.
            continue
        place = kept.get(want.label) if locked else None
        same = [repository for repository in fitting if str(repository).lower() == str(place).lower()]
        provider = same[0] if same else _provider(want, fitting, used, trust)
        candidates.settle(want, provider)
        used.add(str(provider).lower())


def _provider(
    want: Want, fitting: Sequence[RepositoryId], used: Collection[str], trust: Trust
) -> RepositoryId:
    trusted = [repository for repository in fitting if trust.covers(repository)]
    for choice in ([each for each in trusted if str(each).lower() in used], trusted):
        if len(choice) == 1:
            return choice[0]
    label, choice = want.ref.label or want.label, trusted or list(fitting)
    refs = [str(Ref(repository, label)) for repository in choice]
    error = AmbiguousProviderError(want.label, refs, trusted=bool(trusted))
    answer = trust.reporter.choose(error.message, refs)
    if answer is None:
        raise error
    return choice[answer]
