"""The compose page: pick modules, hear the resolver, take `modhub.toml` home."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from starlette.responses import RedirectResponse, Response

from modhub.catalog.releases import Release, newest_release
from modhub.errors import ModhubError, RefError
from modhub.manifest import ModuleEntry, ModuleManifest, RepositoryManifest, Sizes, at_least, standing
from modhub.manifest.card import ref_of
from modhub.project.resolver import Resolution, resolve
from modhub.project.toml import Project, Want, add_want, new_project
from modhub.refs import Ref, RepositoryId
from modhub.server.errors import to_http_error
from modhub.server.http.request import Request
from modhub.server.http.routing import Routes
from modhub.server.web.render import address, page
from modhub.server.web.repository_view import VisibleRepositories

__all__ = ["routes"]

routes = Routes()
PICKS_LIMIT = 200
FOUND_LIMIT = 40
NAME = "my-classifier"
FLOAT_BYTES = 4


@routes.get("/compose")
def compose(request: Request) -> Response:
    picks, searched = _picks(request), request.parameter("q")[:200].strip()
    if dropped := request.parameters("without"):
        # An address that says what is picked, and not how it came to be.
        kept = [pick for pick in picks if pick not in dropped]
        return RedirectResponse(address(request, "compose", pick=kept, q=searched), 303)
    catalogue = VisibleRepositories(request.state.store, request.principal)
    wants, trouble = _wants(picks)
    text = _toml(wants) if wants else ""
    resolution, estimate = None, None
    if wants and not trouble:
        try:
            project = Project.from_toml(text)
            resolution = resolve(project, catalogue, nearest=catalogue.nearest)
            estimate = _estimate(catalogue, resolution)
        except ModhubError as error:
            trouble = to_http_error(error).message
    found, near = _found(catalogue, searched), []
    if searched and not found:
        with suppress(RefError):
            near = catalogue.nearest(searched)
    passes = frozenset() if resolution is None else resolution.trunks
    return page(
        request,
        "compose.html",
        title="Compose a classifier",
        picks=picks,
        too_many=len(request.parameters("pick")) > PICKS_LIMIT,
        limit=PICKS_LIMIT,
        searched=searched,
        found=[_to_choose(request, catalogue, picks, one) for one in found[:FOUND_LIMIT]],
        number=len(found),
        near=[(name, address(request, "compose", pick=picks, q=name)) for name in near],
        passes=passes,
        trouble=trouble,
        resolution=resolution,
        closed=_closed(catalogue, resolution) if resolution else [],
        estimate=estimate,
        toml=text,
        download=address(request, "compose", "modhub.toml", pick=picks),
    )


@routes.get("/compose/modhub.toml")
def download(request: Request) -> Response:
    wants, trouble = _wants(_picks(request))
    if trouble:
        raise RefError(trouble)
    headers = {"Content-Disposition": 'attachment; filename="modhub.toml"'}
    return Response(_toml(wants), headers=headers, media_type="application/toml; charset=utf-8")


@dataclass(frozen=True, slots=True)
class _Estimate:
    """Bounds, for one image: multiply-adds, and bytes of weights. Modules of one trunk share a pass, and what
    they share is computed once; how much that is, only composing them tells."""

    trunks: int
    flops: tuple[int, int]
    parent_flops: int
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A module to choose. `sizes` are None where its own manifest cannot be read."""

    ref: str
    href: str
    release: Release
    entry: ModuleEntry
    at_least: float | None
    trunk: str
    sizes: Sizes | None
    license: str | None
    picked: bool


def _picks(request: Request) -> list[str]:
    given = [pick.strip()[:400] for pick in request.parameters("pick")[:PICKS_LIMIT]]
    return list(dict.fromkeys(pick for pick in given if pick))


def _wants(picks: Sequence[str]) -> tuple[list[Want], str]:
    """The wants, and what is wrong with the first pick that is none. A pick is `REF` or `label = REF`."""
    wants: list[Want] = []
    for pick in picks:
        label, equals, ref = pick.partition(" = ")
        try:
            want = Want.parse(label.strip(), ref) if equals else Want.of(Ref.parse(pick))
            Project(NAME, (*wants, want))
        except ModhubError as error:
            return wants, str(error)
        wants.append(want)
    return wants, ""


def _toml(wants: Sequence[Want]) -> str:
    return add_want(new_project(NAME), *wants)


@dataclass(frozen=True, slots=True)
class _Provider:
    """A module that answers, and where it stands."""

    repository: RepositoryId
    release: Release
    manifest: RepositoryManifest
    entry: ModuleEntry


def _found(catalogue: VisibleRepositories, label: str) -> list[_Provider]:
    """Modules that answer to `label`, the best measured first, as `modhub search` has them."""
    found: list[_Provider] = []
    try:
        providers = catalogue.providers(label) if label else ()
    except RefError:
        return []
    for repository in providers:
        try:
            release = newest_release(catalogue.releases(repository))
            if release is None:
                continue
            manifest = catalogue.manifest(repository, release.commit)
        except ModhubError:
            # One bad repository must not hide the others.
            continue
        found += [_Provider(repository, release, manifest, entry) for entry in manifest.matching(label)]
    return sorted(found, key=lambda one: standing(one.entry.metrics, one.entry.sample), reverse=True)


def _to_choose(
    request: Request, catalogue: VisibleRepositories, picks: Sequence[str], one: _Provider
) -> _Found:
    repository, entry = one.repository, one.entry
    ref, sizes = ref_of(str(repository), entry), None
    with suppress(ModhubError):
        sizes = catalogue.view(repository).module(one.release.commit, entry).sizes
    return _Found(
        ref=ref,
        href=address(request, repository.namespace, repository.name, "modules", entry.slug),
        release=one.release,
        entry=entry,
        at_least=at_least(entry.metrics, entry.sample),
        trunk=one.manifest.trunk_of(entry).sha256,
        sizes=sizes,
        license=one.manifest.license,
        picked=ref in picks,
    )


def _closed(catalogue: VisibleRepositories, resolution: Resolution) -> list[str]:
    """Repositories of the answer that are not for everybody."""
    used = dict.fromkeys(module.repository for module in resolution.modules)
    settings = [(repository, catalogue.view(repository).record.settings) for repository in used]
    return [str(repository) for repository, one in settings if one.private or one.gated]


def _estimate(catalogue: VisibleRepositories, resolution: Resolution) -> _Estimate:
    by_trunk: dict[str, list[ModuleManifest]] = {}
    for module in resolution.modules:
        details = catalogue.view(module.repository).module(module.release.commit, module.entry)
        by_trunk.setdefault(module.trunk.sha256, []).append(details)
    flops, parameters = [0, 0], [0, 0]
    for modules in by_trunk.values():
        costs = [one.sizes.flops for one in modules]
        kept = [one.sizes.kept_parameters for one in modules]
        flops[0] += max(costs)
        flops[1] += min(sum(costs), modules[0].sizes.parent_flops)
        parameters[0] += max(kept)
        parameters[1] += min(sum(kept), modules[0].sizes.parameters)
    return _Estimate(
        trunks=len(by_trunk),
        flops=(flops[0], flops[1]),
        parent_flops=sum(modules[0].sizes.parent_flops for modules in by_trunk.values()),
        size=(parameters[0] * FLOAT_BYTES, parameters[1] * FLOAT_BYTES),
    )
