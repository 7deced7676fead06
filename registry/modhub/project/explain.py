"""Why nothing fits, in one paragraph that names who disagrees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from modhub.catalog.releases import Release
from modhub.errors import ModhubError, NotFoundError, ResolutionError
from modhub.project.candidates import Universe
from modhub.project.model import ResolvedModule
from modhub.project.toml import Project, Want
from modhub.refs import RepositoryId

__all__ = ["explain"]

Solve = Callable[[Sequence[Want], int | None], tuple[ResolvedModule, ...] | None]
Nearest = Callable[[str], Sequence[str]]


def explain(project: Project, universe: Universe, solve: Solve, nearest: Nearest) -> ModhubError:
    """The error for a project that `solve(wants, max_trunks)` could not fulfil.

    A want that fails by itself is named alone; otherwise wants are dropped one by one while the rest still
    fails, which leaves a smallest set that disagrees.
    """
    for want in project.wants:
        alone = _alone(want, universe, nearest)
        if alone is not None:
            return alone
    limit = project.constraints.max_trunks
    core = list(project.wants)
    for want in project.wants:
        rest = [other for other in core if other is not want]
        if solve(rest, limit) is None:
            core = rest
    relaxed = solve(core, None)
    if relaxed is not None:
        return _too_many_trunks(core, relaxed, limit)
    return _disagreement(core, universe)


def _alone(want: Want, universe: Universe, nearest: Nearest) -> ModhubError | None:
    """What is wrong with `want` whatever stands beside it."""
    if want.ref.repository is None:
        return _without_provider(want, universe, nearest)
    repository = want.ref.repository
    allowed = universe.allowed(repository, [want.ref])
    if not allowed:
        return _without_release(want, repository, universe)
    found = [universe.module(want, repository, release) for release in allowed]
    reasons = [reason for reason in found if isinstance(reason, str)]
    if len(reasons) < len(found):
        return None
    label = want.ref.label or want.label
    if all(f"has no class '{label}'" in reason for reason in reasons):
        near = universe.nearest(label, repository, allowed[0])
        return NotFoundError(
            f"There is no class '{label}' in {repository} {allowed[0]}.",
            hint=f"Nearest there: {', '.join(near)}." if near else "It holds no module at all.",
        )
    return ResolutionError(
        f"'{want}' does not meet the constraint {_constraints(universe)}: {_listed(reasons, '; ')}.",
        hint="Relax [constraints] in modhub.toml, or ask another repository.",
    )


def _without_release(want: Want, repository: RepositoryId, universe: Universe) -> NotFoundError:
    wanted = f"matches '{want.ref.specifier}'" if str(want.ref.specifier) else "is not yanked"
    releases = universe.releases(repository)
    if not releases:
        return NotFoundError(
            f"{repository} has no release.",
            hint=f"Push one with: modhub push DIR {repository} --version 1.0.0",
        )
    yanked = [release for release in releases if release.yanked is not None]
    there = [f"{release} (yanked)" if release in yanked else str(release) for release in releases]
    taken = [r for r in yanked if r.version is not None and want.ref.specifier.contains(r.version, True)]
    hint = f"It has {_listed(there)}."
    if taken:
        hint += f" A yanked release must be pinned: {repository}/{want.ref.label}=={taken[0]}"
    return NotFoundError(f"{repository} has no release that {wanted}.", hint=hint)


def _without_provider(want: Want, universe: Universe, nearest: Nearest) -> ModhubError | None:
    label = want.ref.label or want.label
    reasons = list(universe.unreadable(label))
    for repository in universe.providers(label):
        allowed = universe.allowed(repository, [want.ref])
        if not allowed:
            reasons.append(_without_release(want, repository, universe).message.rstrip("."))
        for release in allowed:
            found = universe.module(want, repository, release)
            if isinstance(found, ResolvedModule):
                return None
            reasons.append(found)
    if all(f"has no class '{label}'" in reason for reason in reasons):
        near = nearest(label)
        return NotFoundError(
            f"No repository on this hub has a class '{label}'.",
            hint=f"Nearest: {', '.join(near)}." if near else "See what there is with: modhub search",
            missing="class",
        )
    return ResolutionError(
        f"No provider of '{want}' will do: {_listed(reasons, '; ')}.",
        hint=f"{_relaxed(universe)}, or name a repository.",
    )


def _too_many_trunks(
    core: Sequence[Want], found: tuple[ResolvedModule, ...], limit: int | None
) -> ResolutionError:
    where = {module.want: f"trunk {module.trunk.sha256[:12]} of {module.repository}" for module in found}
    return ResolutionError(
        f"{_quoted(core)} need more than max-trunks = {limit} trunks together: "
        + "; ".join(f"'{want.label}' stands on {where[want]}" for want in core)
        + ".",
        hint="Raise max-trunks in modhub.toml, or take these classes from one repository.",
    )


def _disagreement(core: Sequence[Want], universe: Universe) -> ResolutionError:
    alone = []
    for want in core:
        named = want.ref.repository
        places = universe.providers(want.ref.label or "") if named is None else (named,)
        names = [
            f"{place} {release}" if named is None else str(release)
            for place in places
            for release in _fitting(want, place, universe)
        ]
        alone.append(f"'{want}' is met by {_listed(names)}")
    return ResolutionError(
        f"{_quoted(core)} cannot be met together, because all modules of one repository come from one "
        f"release, so that they share a trunk: {', while '.join(alone)}.",
        hint="Relax one of them, or take one of the classes from another repository.",
    )


def _fitting(want: Want, repository: RepositoryId, universe: Universe) -> list[Release]:
    return [
        release
        for release in universe.allowed(repository, [want.ref])
        if isinstance(universe.module(want, repository, release), ResolvedModule)
    ]


def _relaxed(universe: Universe) -> str:
    """What could be less strict: `[constraints]` where there are some, else what the ref itself asks for."""
    return "Relax [constraints] in modhub.toml" if universe.constraints.to_dict() else "Allow other releases"


def _constraints(universe: Universe) -> str:
    return ", ".join(f"{key} = {value}" for key, value in universe.constraints.to_dict().items())


def _quoted(wants: Iterable[Want]) -> str:
    return _listed([f"'{want}'" for want in wants], limit=100)


def _listed(items: Sequence[str], separator: str = ", ", *, limit: int = 8) -> str:
    """a, b and c; no more than `limit` of them by name."""
    shown = list(items[:limit])
    if len(items) > limit:
        shown.append(f"{len(items) - limit} more")
    if separator != ", " or len(shown) < 2:
        return separator.join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
