"""From what is wanted to one release per repository.

The rules, in the order in which they decide:

1. All modules of one repository, however its case is written, come from one release, so that they share a
   trunk.
2. What the lock has stays while a want that it served is still there and allows it: a release that was yanked
   or is no longer listed, and the commit that a branch was.
   A yanked release counts only when a want of that repository pins it (`==1.0.0`, `@v1.0.0`, `@<commit>`);
   pre-releases as PEP 440 has it.
3. `Constraints` hold for every module: licence, recorded recall, and the number of trunks together.
4. Repositories that wants name come first, by name; each takes what the lock had, else its newest release.
5. Then bare labels, by label, those of the lock first, from the provider that `modhub.project.providers`
   chooses; without `trust`, from the provider the lock had, else one whose trunk the composition has already,
   else the first by name. What publishers claim of their modules is ignored. The newest release of a provider
   comes before its older ones. Providers are repositories whose newest release has the class, and the lock's;
   for a label with a specifier that none of these meets, every repository of which an active older release
   does.
6. Offline, releases whose manifest is not in the cache are passed over, and of the others those come first
   of which the cache has every file.

The answer is the first in that order that can be completed; it does not depend on the order of the wants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modhub.catalog.releases import FileSource
from modhub.project.candidates import STEPS, Candidates
from modhub.project.explain import explain
from modhub.project.model import Catalogue, Preferences, Resolution, ResolvedModule
from modhub.project.providers import Trust, settle_providers
from modhub.project.search import search
from modhub.project.toml import Project, Want

__all__ = ["Catalogue", "Preferences", "Resolution", "ResolvedModule", "Trust", "resolve"]


def resolve(
    project: Project,
    catalogue: Catalogue,
    *,
    prefer: Preferences | None = None,
    nearest: Callable[[str], Sequence[str]] = lambda _: (),
    trust: Trust | None = None,
    steps: int = STEPS,
    offline: bool = False,
    cached: Callable[[FileSource], bool] = lambda source: False,
) -> Resolution:
    """Pick a release for every repository and a provider for every bare label.

    `nearest` is asked which classes look like a bare label that nobody provides, for the error's hint.
    `trust` says which providers of bare labels count; None: all of them do. The search looks at `steps`
    releases at most. `offline`: `catalogue` raises `OfflineError` for what the cache lacks; `cached` says
    which files it has.

    Raises `NotFoundError` for a repository, version or class that does not exist, `AmbiguousProviderError`
    for a bare label that none or several of the trusted namespaces serve, and `ResolutionError` when what
    exists cannot stand together; the message names the wants that disagree, or says that the steps are
    used up. A repository that a want names raises what is wrong with it; one that only offers a bare label
    and cannot be read is passed over.
    """
    candidates = Candidates(catalogue, project, prefer, steps=steps, offline=offline, cached=cached)

    def solve(wants: Sequence[Want], max_trunks: int | None) -> tuple[ResolvedModule, ...] | None:
        return search(wants, candidates, max_trunks)

    def solve_settled(*, locked: bool) -> tuple[ResolvedModule, ...] | None:
        while True:
            if trust is not None:
                settle_providers(project, candidates, trust, locked=locked)
            modules = solve(project.wants, project.constraints.max_trunks)
            if modules is None or not candidates.rule_out(modules):
                return modules

    modules = solve_settled(locked=True)
    if modules is None and trust is not None and candidates.prefer.providers:
        # The lock's providers no longer go together; others may.
        modules = solve_settled(locked=False)
    if modules is None:
        raise explain(project, candidates, solve, nearest)
    by_label = {module.want.label: module for module in modules}
    return Resolution(
        tuple(by_label[want.label] for want in project.wants),
        tuple(module for module in modules if candidates.unlisted(module)),
    )
