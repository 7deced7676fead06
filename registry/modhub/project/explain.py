"""Why nothing fits, in one paragraph that names who disagrees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from modhub.catalog.releases import Release, allowed_releases, no_release
from modhub.errors import ClassNotFoundError, ModhubError, ReleaseNotFoundError, ResolutionError
from modhub.project.candidates import Candidates
from modhub.project.model import ResolvedModule
from modhub.project.rejections import Disallowed, Rejection, only_classes_missing
from modhub.project.toml import Project, Want
from modhub.refs import RepositoryId

Solve = Callable[[Sequence[Want], int | None], tuple[ResolvedModule, ...] | None]
Nearest = Callable[[str], Sequence[str]]


def explain(project: Project, candidates: Candidates, solve: Solve, nearest: Nearest) -> ModhubError:
    """The error for a project that `solve(wants, max_trunks)` could not fulfil.

    A want that fails by itself is named alone; otherwise wants are dropped one by one while the rest still
    fails, which leaves a smallest set that disagrees.
    """
    for want in project.wants:
        alone = _alone(want, candidates, nearest)
        if alone is not None:
            return alone
    limit = project.constraints.max_trunks
    core = list(project.wants)
    try:
        for want in project.wants:
            rest = [other for other in core if other is not want]
            if solve(rest, limit) is None:
                core = rest
        relaxed = solve(core, None)
    except ResolutionError:
        # The steps are used up; what failed before fails all the same.
        return ResolutionError(f"{_quoted(core)} cannot be met together.", hint="Relax one of them.")
    if relaxed is not None:
        return _too_many_trunks(core, relaxed, limit)
    return _disagreement(core, candidates)


def _alone(want: Want, candidates: Candidates, nearest: Nearest) -> ModhubError | None:
    """What is wrong with `want` whatever stands beside it."""
    if want.ref.repository is None:
        return _without_provider(want, candidates, nearest)
    repository = want.ref.repository
    allowed = candidates.allowed(repository, [want])
    if not allowed:
        return _without_release(want, repository, candidates)
    answers = [candidates.module(want, repository, release) for release in allowed]
    reasons = [answer for answer in answers if isinstance(answer, Rejection)]
    if len(reasons) < len(answers):
        return None
    label = want.ref.label or want.label
    if only_classes_missing(reasons):
        near = candidates.nearest(label, repository, allowed[0])
        return ClassNotFoundError(label, f"{repository} {allowed[0]}", nearest=near)
    return ResolutionError(
        f"'{want}' does not meet the constraint {_constraints(candidates)}: {_listed(reasons, '; ')}.",
        hint="Relax [constraints] in modhub.toml, or ask another repository.",
    )


def _without_release(want: Want, repository: RepositoryId, candidates: Candidates) -> ReleaseNotFoundError:
    published = candidates.published(repository)
    for release in allowed_releases(published, want.ref.specifier):
        # Offline this says that the cache lacks it.
        candidates.manifest(repository, release.commit)
    return no_release(repository, published, want.ref.specifier, want.ref.label)


def _without_provider(want: Want, candidates: Candidates, nearest: Nearest) -> ModhubError | None:
    label = want.ref.label or want.label
    reasons = list(candidates.unreadable(want))
    for repository in candidates.providers(want):
        allowed = candidates.allowed(repository, [want])
        if not allowed:
            error = _without_release(want, repository, candidates)
            reasons.append(Disallowed(repository, None, error))
        for release in allowed:
            answer = candidates.module(want, repository, release)
            if isinstance(answer, ResolvedModule):
                return None
            reasons.append(answer)
    if only_classes_missing(reasons):
        return ClassNotFoundError(label, nearest=nearest(label), hint="See what there is with: modhub search")
    return ResolutionError(
        f"No provider of '{want}' will do: {_listed(reasons, '; ')}.",
        hint=f"{_relaxed(candidates)}, or name a repository.",
    )


def _too_many_trunks(
    core: Sequence[Want], modules: tuple[ResolvedModule, ...], limit: int | None
) -> ResolutionError:
    where = {module.want: f"trunk {module.trunk.sha256[:12]} of {module.repository}" for module in modules}
    return ResolutionError(
        f"{_quoted(core)} need more than max-trunks = {limit} trunks together: "
        + "; ".join(f"'{want.label}' stands on {where[want]}" for want in core)
        + ".",
        hint="Raise max-trunks in modhub.toml, or take these classes from one repository.",
    )


def _disagreement(core: Sequence[Want], candidates: Candidates) -> ResolutionError:
    alone = []
    for want in core:
        named = want.ref.repository
        places = candidates.providers(want) if named is None else (named,)
        names = [
            f"{place} {release}" if named is None else str(release)
            for place in places
            for release in _fitting(want, place, candidates)
        ]
        alone.append(f"'{want}' is met by {_listed(names)}")
    return ResolutionError(
        f"{_quoted(core)} cannot be met together, because all modules of one repository come from one "
        f"release, so that they share a trunk: {', while '.join(alone)}.",
        hint="Relax one of them, or take one of the classes from another repository.",
    )


def _fitting(want: Want, repository: RepositoryId, candidates: Candidates) -> list[Release]:
    return [
        release
        for release in candidates.allowed(repository, [want])
        if isinstance(candidates.module(want, repository, release), ResolvedModule)
    ]


def _relaxed(candidates: Candidates) -> str:
    """What could be less strict: `[constraints]` where there are some, else what the ref itself asks for."""
    return (
        "Relax [constraints] in modhub.toml" if candidates.constraints.to_dict() else "Allow other releases"
    )


def _constraints(candidates: Candidates) -> str:
    return ", ".join(f"{key} = {value}" for key, value in candidates.constraints.to_dict().items())


def _quoted(wants: Iterable[Want]) -> str:
    return _listed([f"'{want}'" for want in wants], limit=100)


def _listed(items: Sequence[object], separator: str = ", ", *, limit: int = 8) -> str:
    """a, b and c; no more than `limit` of them by name."""
    shown = [str(item) for item in items[:limit]]
    if len(items) > limit:
        shown.append(f"{len(items) - limit} more")
    if separator != ", " or len(shown) < 2:
        return separator.join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
