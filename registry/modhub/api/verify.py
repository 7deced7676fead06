"""Whether modules or a build are what their manifests record. Only builds and networks need torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modhub.api.catalogs import open_catalog
from modhub.api.project_files import read_project
from modhub.api.pull import pull_refs
from modhub.api.trunks import check_artifact_trunks, check_trunks
from modhub.catalog.catalog import Catalog
from modhub.errors import IntegrityError, MissingFileError, NotFoundError
from modhub.files import confined
from modhub.manifest import (
    AGAIN,
    MANIFEST_NAME,
    FileInfo,
    ModuleEntry,
    ModuleManifest,
    RepositoryManifest,
    TrunkInfo,
)
from modhub.project.lock import LOCK_NAME, Lock
from modhub.project.toml import PROJECT_NAME
from modhub.refs import Ref
from modhub.reporter import SILENT, Reporter
from modhub.results import Result

if TYPE_CHECKING:
    from modhub.composition import ComposedClassifier


_BUILD_NAME = "build.json"
_AGAIN = "Compose it again."


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Verified(Result):
    """How many `files` were checked, and of how many `modules` or classes they are."""

    target: str
    files: int
    modules: int


def verify(
    target: str,
    *,
    networks: bool = False,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> Verified:
    """Check a directory of modules, a build, or the modules that a ref names: see `modhub verify --help`.

    Each trunk's graph and the shapes of its weights are a network within the limits, and cost what the
    manifest says. `networks` also builds each network, and counts what each module costs.

    Raises `IntegrityError`, `ManifestError` or `RefError` naming the first file that is wrong.
    """
    directory = Path(target)
    if not directory.is_dir():
        pulled = pull_refs(open_catalog(hub, offline=offline), [Ref.parse(target)], reporter)
        for part in pulled:
            _check_entries(part.manifest, [(module.entry, module.manifest) for module in part.modules])
            check_trunks(part.manifest, [module.entry for module in part.modules], part.locate, claims=True)
            if networks:
                slugs = [module.entry.slug for module in part.modules]
                _check_networks(part.manifest, part.locate, slugs, reporter)
        return Verified(
            target=target,
            files=sum(len(part.files) for part in pulled),
            modules=sum(len(part.modules) for part in pulled),
        )
    if (directory / MANIFEST_NAME).is_file():
        files, modules = _verify_artifact(directory, networks, reporter)
        return Verified(target=target, files=files, modules=modules)
    if (directory / _BUILD_NAME).is_file():
        files, modules = _verify_build(directory, reporter)
        return Verified(target=target, files=files, modules=modules)
    raise NotFoundError(
        f"'{directory}' holds neither {MANIFEST_NAME} nor {_BUILD_NAME}.",
        hint="Name a ref, or a directory that 'modhub decompose', 'pull --out' or 'compose' wrote.",
    )


def _verify_artifact(directory: Path, networks: bool, reporter: Reporter) -> tuple[int, int]:
    path = directory / MANIFEST_NAME
    manifest = RepositoryManifest.from_bytes(path.read_bytes(), f"'{path}'")
    files = list(_files_of(manifest))
    for file in reporter.track(files, "verify"):
        place = confined(directory, file.path)
        file.check(place, f"'{place}'", hint=AGAIN)
    _check_entries(
        manifest, [(entry, confined(directory, entry.manifest.path)) for entry in manifest.modules]
    )
    check_artifact_trunks(directory)
    if networks:
        _check_networks(manifest, lambda info: confined(directory, info.path), None, reporter)
    return 1 + len(files), len(manifest.modules)


def _check_networks(
    manifest: RepositoryManifest,
    locate: Callable[[FileInfo], Path],
    slugs: list[str] | None,
    reporter: Reporter,
) -> None:
    # Only here: counting files needs no torch.
    from modhub.artifact.claims import check_costs
    from modhub.artifact.read import read_modules

    for modules in read_modules(manifest, locate, slugs):
        check_costs(modules, reporter)


def _verify_build(directory: Path, reporter: Reporter) -> tuple[int, int]:
    # Whoever has a build has torch, too.
    from modhub.composition.build import load_build

    with reporter.step("verify"):
        # Loading checks the digest of every file that build.json names.
        classifier = load_build(directory)
        origin = _verify_origin(directory, classifier)
    return 2 + 2 * len(classifier.trunk_passes) + origin, len(classifier.labels)


def _verify_origin(directory: Path, classifier: ComposedClassifier) -> int:
    """How many files say what a build was made of, each checked against the others and the classifier."""
    from modhub.api.builds import OPTIONS_NAME, BuildOptions

    names = (PROJECT_NAME, LOCK_NAME, OPTIONS_NAME)
    if not any((directory / name).exists() for name in (*names, "modules")):
        # What Python's save() writes has none of them.
        return 0
    for name in names:
        if not (directory / name).is_file():
            raise MissingFileError(f"'{directory / name}'", hint=_AGAIN)
    path = directory / LOCK_NAME
    lock = Lock.from_bytes(path.read_bytes(), str(path), hint=_AGAIN)
    if not lock.fulfils(read_project(directory)):
        raise IntegrityError(f"'{path}' is not the lock of the {PROJECT_NAME} beside it.", hint=_AGAIN)
    if tuple(module.want.label for module in lock.modules) != classifier.labels:
        raise IntegrityError(f"'{path}' has other labels than {_BUILD_NAME}.", hint=_AGAIN)
    if BuildOptions.read(directory / OPTIONS_NAME).reject != classifier.reject:
        raise IntegrityError(
            f"'{directory / OPTIONS_NAME}' does not say the same as {_BUILD_NAME}: 'reject' differs.",
            hint=_AGAIN,
        )
    for number, module in enumerate(lock.modules):
        place = directory / "modules" / f"{number}.json"
        module.files[0].check(place, f"'{place}'", hint=_AGAIN)
        about = ModuleManifest.from_bytes(place.read_bytes(), str(place), hint=_AGAIN)
        if (about.label, about.trunk.sha256, (about.tensors,)) != (
            module.module,
            module.trunk,
            module.files[1:],
        ):
            raise IntegrityError(f"'{place}' does not say what {LOCK_NAME} says.", hint=_AGAIN)
    expected = {f"{number}.json" for number in range(len(lock.modules))}
    for place in sorted((directory / "modules").iterdir()):
        if place.name not in expected:
            raise IntegrityError(f"'{place}' is of none of the build's modules.", hint="Remove it.")
    return len(names) + len(expected)


def _check_entries(manifest: RepositoryManifest, entries: list[tuple[ModuleEntry, Path]]) -> None:
    for entry, path in entries:
        manifest.check(entry, ModuleManifest.from_bytes(path.read_bytes(), entry.manifest.path))


def _files_of(manifest: RepositoryManifest) -> Iterator[FileInfo]:
    trunks: dict[str, TrunkInfo] = {}
    for entry in manifest.modules:
        trunk = manifest.trunk_of(entry)
        trunks[trunk.sha256] = trunk
        yield entry.manifest
        yield entry.tensors
    for trunk in trunks.values():
        if trunk.repository is None:
            yield from trunk.files
