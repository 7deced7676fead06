"""The search, as a provider that resolvelib asks.

resolvelib keeps what it learned after backtracking: a candidate that failed once is not tried again. That is
sound only when a candidate says everything that made it fail; a release that failed beside one neighbour may
do beside another (`max-trunks` makes such cases). So a candidate here is the whole path of picks up to its
step, and requires the next step to go on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from resolvelib import AbstractProvider, BaseReporter, ResolutionImpossible, Resolver

from modhub.catalog.releases import Release
from modhub.project.candidates import Candidates
from modhub.project.model import Preferences, ResolvedModule
from modhub.project.toml import Want
from modhub.refs import RepositoryId

ROUNDS = 10_000_000
"""What resolvelib is allowed; `Candidates.steps` ends a search long before."""


@dataclass(frozen=True, slots=True)
class Step:
    """One decision: the release of a named repository, or the provider of a bare label."""

    wants: tuple[Want, ...]
    repository: RepositoryId | None


@dataclass(frozen=True, slots=True, eq=False)
class Pick:
    """A release and the modules it contributes to one step; made once per search, compared by identity.

    `age` counts the newer releases of the repository that would have done; `far` says that its files cannot
    be read now.
    """

    repository: RepositoryId
    release: Release
    age: int
    far: bool
    modules: tuple[ResolvedModule, ...]


@dataclass(frozen=True)
class Path:
    """The picks of steps 0, 1, …; as a requirement: the next step goes on from here."""

    picks: tuple[Pick, ...] = ()

    @cached_property
    def releases(self) -> dict[RepositoryId, Release]:
        return {pick.repository: pick.release for pick in self.picks}

    @cached_property
    def trunks(self) -> frozenset[str]:
        return frozenset(module.trunk.sha256 for pick in self.picks for module in pick.modules)


@dataclass(frozen=True, slots=True)
class Follow:
    """The requirement that step `len(path.picks)` goes on from `path`."""

    path: Path


class Spelling:
    """Of `repositories` that differ in case the first by name stands for all; others stay as they are."""

    def __init__(self, repositories: Iterable[RepositoryId]) -> None:
        self.known = {
            str(repository).lower(): repository for repository in sorted(repositories, reverse=True)
        }

    def __call__(self, repository: RepositoryId) -> RepositoryId:
        return self.known.get(str(repository).lower(), repository)


def steps_of(wants: Iterable[Want], prefer: Preferences) -> tuple[Step, ...]:
    """Named repositories by name, then bare labels by label, those that the lock has first.

    Spellings that differ in case name one repository.
    """
    wants = tuple(wants)
    spelled = Spelling(want.ref.repository for want in wants if want.ref.repository is not None)
    named: dict[RepositoryId, list[Want]] = {}
    bare = []
    for want in wants:
        if want.ref.repository is None:
            bare.append(want)
        else:
            named.setdefault(spelled(want.ref.repository), []).append(want)
    return (
        *(Step(tuple(named[repository]), repository) for repository in sorted(named)),
        *(
            Step((want,), None)
            for want in sorted(bare, key=lambda want: (want.label not in prefer.providers, want.label))
        ),
    )


def search(
    wants: Sequence[Want], candidates: Candidates, max_trunks: int | None
) -> tuple[ResolvedModule, ...] | None:
    """One module per want, in the order of the steps, or None when no choice fulfils all of them.

    Raises `ResolutionError` when that is not known after `candidates.steps` steps.
    """
    provider = _Provider(steps_of(wants, candidates.prefer), candidates, max_trunks)
    if not provider.steps:
        return ()
    try:
        result = Resolver(provider, BaseReporter()).resolve([Follow(Path())], max_rounds=ROUNDS)
    except ResolutionImpossible:
        return None
    last = result.mapping[len(provider.steps) - 1]
    return tuple(module for pick in last.picks for module in pick.modules)


class _Provider(AbstractProvider[Follow, Path, int]):
    def __init__(self, steps: tuple[Step, ...], candidates: Candidates, max_trunks: int | None) -> None:
        self.steps = steps
        self.candidates = candidates
        self.max_trunks = max_trunks
        self.named = {step.repository: step for step in steps if step.repository is not None}
        self.spelled = Spelling(self.named)
        self.prefer = Preferences(
            {self.spelled(repository): commit for repository, commit in candidates.prefer.commits.items()},
            {label: self.spelled(repository) for label, repository in candidates.prefer.providers.items()},
        )
        self.picks = {step: tuple(self._picks(step)) for step in steps}

    def identify(self, requirement_or_candidate: Follow | Path) -> int:
        if isinstance(requirement_or_candidate, Follow):
            return len(requirement_or_candidate.path.picks)
        return len(requirement_or_candidate.picks) - 1

    def get_preference(self, identifier: int, *_: Any, **__: Any) -> int:
        return identifier

    def find_matches(
        self,
        identifier: int,
        requirements: Mapping[int, Iterator[Follow]],
        incompatibilities: Mapping[int, Iterator[Path]],
    ) -> list[Path]:
        failed = {path.picks for path in incompatibilities[identifier]}
        (path,) = {requirement.path for requirement in requirements[identifier]}
        options = [Path((*path.picks, pick)) for pick in self._ordered(self.steps[identifier], path)]
        return [option for option in options if option.picks not in failed and self._open(option)]

    def is_satisfied_by(self, requirement: Follow, candidate: Path) -> bool:
        return candidate.picks[:-1] == requirement.path.picks

    def get_dependencies(self, candidate: Path) -> list[Follow]:
        return [Follow(candidate)] if len(candidate.picks) < len(self.steps) else []

    def _picks(self, step: Step) -> Iterator[Pick]:
        """Every pick of a step that its wants and the constraints allow, by repository, newest first."""
        repositories = (
            self.candidates.providers(step.wants[0]) if step.repository is None else (step.repository,)
        )
        for repository in map(self.spelled, repositories):
            age = 0
            for release in self._allowed(step, repository):
                modules = [self.candidates.module(want, repository, release) for want in step.wants]
                fitting = tuple(module for module in modules if isinstance(module, ResolvedModule))
                if len(fitting) == len(modules):
                    far = not all(map(self.candidates.at_hand, fitting))
                    yield Pick(repository, release, age, far, fitting)
                    age += 1

    def _allowed(self, step: Step, repository: RepositoryId) -> tuple[Release, ...]:
        if step.repository is None and (named := self.named.get(repository)):
            # A want that names the repository settles the release, a yanked one too if it pins that.
            return self.candidates.allowed(repository, (*step.wants, *named.wants))
        return self.candidates.allowed(repository, step.wants)

    def _possible(self, step: Step, path: Path) -> Iterator[Pick]:
        for pick in self.picks[step]:
            self.candidates.spend()
            if path.releases.get(pick.repository, pick.release) != pick.release:
                continue
            trunks = path.trunks | {module.trunk.sha256 for module in pick.modules}
            if self.max_trunks is None or len(trunks) <= self.max_trunks:
                yield pick

    def _ordered(self, step: Step, path: Path) -> list[Pick]:
        def rank(pick: Pick) -> tuple[Any, ...]:
            locked = self.prefer.commits.get(pick.repository) == pick.release.commit
            other = pick.release != self.candidates.kept(pick.repository)
            if step.repository is not None:
                return (not locked, other, pick.far, pick.age)
            (module,) = pick.modules
            return (
                not (locked and self.prefer.providers.get(module.want.label) == pick.repository),
                other,
                pick.far,
                0 if pick.repository in path.releases else pick.age,
                module.trunk.sha256 not in path.trunks,
                pick.repository,
            )

        return sorted(self._possible(step, path), key=rank)

    def _open(self, path: Path) -> bool:
        """Whether each step still to come has a pick left; cuts dead branches long before their end."""
        return all(any(self._possible(step, path)) for step in self.steps[len(path.picks) :])
