"""The compose page: pick modules, resolve them, download `modhub.toml`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from starlette.responses import RedirectResponse, Response

from modhub.errors import ModhubError, RefError
from modhub.manifest import ModuleManifest
from modhub.project.resolver import Resolution, Trust, resolve
from modhub.project.toml import Project, Want, add_want, new_project
from modhub.refs import Ref
from modhub.server.errors import to_http_error
from modhub.server.http.request import Request
from modhub.server.http.routing import Routes
from modhub.server.web.choices import Match, choice_of, matches_in, rank
from modhub.server.web.render import address, page
from modhub.server.web.repository_view import READING_SECONDS, VisibleRepositories

routes = Routes()
PICKS_LIMIT = 200
CHOICES_LIMIT = 40
NAME = "my-classifier"
FLOAT_BYTES = 4
STEPS = 100_000
"""Of the resolver: about a second of one core."""


@routes.get("/compose")
def compose(request: Request) -> Response:
    picks, searched = _picks(request), request.parameter("q")[:200].strip()
    if dropped := request.parameters("without"):
        # The address of the picks alone, to bookmark.
        kept = [pick for pick in picks if pick not in dropped]
        return RedirectResponse(address(request, "compose", pick=kept, q=searched), 303)
    until = time.monotonic() + READING_SECONDS
    catalogue = VisibleRepositories(request.store, request.principal, until)
    wants, trouble = _wants(picks)
    text = _toml(wants) if wants else ""
    resolution, estimate = None, None
    if wants and not trouble:
        try:
            project = Project.from_toml(text)
            trust = Trust(lambda repository: repository.namespace.lower() in request.principal.namespaces)
            resolution = resolve(project, catalogue, nearest=catalogue.nearest, trust=trust, steps=STEPS)
            estimate = _estimate(catalogue, resolution)
        except ModhubError as error:
            trouble = to_http_error(error).message
    matches, near = _matches(catalogue, searched), []
    if searched and not matches:
        with suppress(RefError):
            near = catalogue.nearest(searched)
    trunks = frozenset() if resolution is None else resolution.trunks
    return page(
        request,
        "compose.html",
        title="Compose a classifier",
        picks=picks,
        too_many=len(request.parameters("pick")) > PICKS_LIMIT,
        limit=PICKS_LIMIT,
        searched=searched,
        choices=[choice_of(request, catalogue, match, picks) for match in matches[:CHOICES_LIMIT]],
        number=len(matches),
        near=[(name, address(request, "compose", pick=picks, q=name)) for name in near],
        trunks=trunks,
        trouble=trouble,
        resolution=resolution,
        restricted=_restricted(catalogue, resolution) if resolution else [],
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
    """Bounds for one image: multiply-adds, and bytes of weights.

    Modules of one trunk share a forward pass and compute shared channels once; composing gives exact numbers.
    """

    trunks: int
    flops: tuple[int, int]
    parent_flops: int
    size: tuple[int, int]


def _picks(request: Request) -> list[str]:
    picks = [pick.strip()[:400] for pick in request.parameters("pick")[:PICKS_LIMIT]]
    return list(dict.fromkeys(pick for pick in picks if pick))


def _wants(picks: Sequence[str]) -> tuple[list[Want], str]:
    """The wants, and the error of the first invalid pick. A pick is `REF` or `label = REF`."""
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


def _matches(catalogue: VisibleRepositories, label: str) -> list[Match]:
    """Modules of the class `label`, in the order of `modhub search`."""
    try:
        providers = catalogue.providers(label) if label else ()
    except RefError:
        return []
    return sorted(matches_in(catalogue, providers, label=label), key=rank, reverse=True)


def _restricted(catalogue: VisibleRepositories, resolution: Resolution) -> list[str]:
    """Private and gated repositories of the resolution."""
    used = dict.fromkeys(module.repository for module in resolution.modules)
    settings = [(repository, catalogue.view(repository).record.settings) for repository in used]
    return [str(repository) for repository, access in settings if access.private or access.gated]


def _estimate(catalogue: VisibleRepositories, resolution: Resolution) -> _Estimate:
    by_trunk: dict[str, list[ModuleManifest]] = {}
    for module in resolution.modules:
        details = catalogue.view(module.repository).module(module.release.commit, module.entry)
        by_trunk.setdefault(module.trunk.sha256, []).append(details)
    flops, parameters = [0, 0], [0, 0]
    for modules in by_trunk.values():
        costs = [details.sizes.flops for details in modules]
        kept = [details.sizes.kept_parameters for details in modules]
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
