"""Everything that can go wrong, as one tree.

    ModhubError                     what was found, where, and what to do next
    ├── RefError                    a ref, version, label or digest that does not parse
    │   └── AmbiguousClassError     a name that several classes answer to
    ├── ManifestError               a file that does not say what its format asks for
    │   └── SchemaVersionError      written by a newer modhub
    ├── IntegrityError              content that is not what was recorded of it
    │   ├── MissingFileError        a file that a manifest lists is not there
    │   ├── SizeMismatchError       a file of another size than recorded
    │   └── DigestMismatchError     content with another digest than recorded
    ├── NetworkImportError          a model that cannot become data
    │   └── UnsupportedOperatorError
    ├── ParentError                 a parent whose weights, labels or input are inconsistent
    ├── DataError                   images or labels that cannot be used
    ├── DeviceError                 a device to compute on that is not there
    ├── CompositionError            modules that do not go together
    │   ├── BudgetError             a budget that cannot be met
    │   └── MethodError             a decomposition method that fails, or makes what no composer could use
    ├── ExportError                 a classifier that cannot be written in the wanted format
    ├── HubError                    a hub that cannot do what was asked
    │   ├── NotFoundError           repository, release, class or file is missing
    │   │   ├── ClassNotFoundError      no module has that class
    │   │   └── ReleaseNotFoundError    no usable release matches the specifier
    │   ├── ConflictError           somebody else was faster, or it exists already
    │   │   └── StaleParentError    the branch moved since its commit was read
    │   ├── ReleaseError            a release would be deleted, moved, hidden or published twice
    │   ├── AccessError             not allowed
    │   │   └── TokenRejectedError  an access token that the hub does not know
    │   ├── BusyError               not now: a little later it may
    │   └── OfflineError            needed from the network, and the network is not to be used or not there
    ├── ResolutionError             no versions satisfy every requirement
    │   └── AmbiguousProviderError  a bare label that none, or several, of the trusted namespaces serve
    ├── StorageError                the disk refused
    └── MissingDependencyError      an optional package is needed

Every error carries `message` (one sentence: what was found and where) and `hint` (what to do next, may be
empty). The command line prints both and exits with 1; a library user reads `str(error)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class ModhubError(Exception):
    """Base of every error a user can cause or meet.

    `message` is one sentence without a trailing newline; `hint` is the next thing to do or type.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Subclasses are made of other things than `args`; what they keep goes along as it is.
        return _remade, (type(self), self.args), self.__dict__


def _remade(kind: type[ModhubError], args: tuple[object, ...]) -> ModhubError:
    """A `ModhubError` from another process, before its attributes."""
    return kind.__new__(kind, *args)


@contextmanager
def hinting(hint: str) -> Iterator[None]:
    """Every `ModhubError` that leaves the block without a hint bears this one. A decorator, too.

    What checks a value cannot know where it came from; whoever reads a file knows how to get another.
    """
    try:
        yield
    except ModhubError as error:
        if not error.hint:
            error.hint = hint
        raise


class RefError(ModhubError):
    """A ref, version, label, repository id or digest does not parse."""


class AmbiguousClassError(RefError):
    """`name` fits the classes `candidates` of `place` equally well."""

    def __init__(self, name: str, place: str, candidates: Sequence[str]) -> None:
        listed = ", ".join(f"'{candidate}'" for candidate in candidates[:10])
        super().__init__(
            f"'{name}' is ambiguous in {place}: it may be {listed}{', …' if len(candidates) > 10 else ''}.",
            hint="Write the name exactly as one of these.",
        )
        self.name = name
        self.place = place
        self.candidates = tuple(candidates)


class ManifestError(ModhubError):
    """A manifest, card, composition or lock file does not follow its format."""


class SchemaVersionError(ManifestError):
    """A file was written by a newer modhub than this one."""


class IntegrityError(ModhubError):
    """Content differs from what was recorded of it, or the record is no digest or size."""


class MissingFileError(IntegrityError):
    """A file that a manifest lists is not there. `place` names it as the message does."""

    def __init__(self, place: str, *, hint: str = "") -> None:
        super().__init__(f"{place} is missing.", hint=hint)
        self.place = place


class SizeMismatchError(IntegrityError):
    """`place` has `actual` bytes where `expected` are recorded."""

    def __init__(self, place: str, *, expected: int, actual: int, hint: str = "") -> None:
        super().__init__(f"{place} has {actual:,} bytes, expected {expected:,}.", hint=hint)
        self.place = place
        self.expected = expected
        self.actual = actual


class DigestMismatchError(IntegrityError):
    """The content of `place` has the digest `actual` where `expected` is recorded.

    `algorithm` is "sha256" or "git sha1"; digests are lower-case hex, shortened to 12 digits in the message.
    """

    def __init__(self, place: str, *, algorithm: str, expected: str, actual: str, hint: str = "") -> None:
        super().__init__(f"{place} has the {algorithm} {actual[:12]}…, expected {expected[:12]}….", hint=hint)
        self.place = place
        self.algorithm = algorithm
        self.expected = expected
        self.actual = actual


class NetworkImportError(ModhubError):
    """A `torch.nn.Module` cannot be turned into a graph."""


class UnsupportedOperatorError(NetworkImportError):
    """The model uses an operator outside the allow-list."""

    def __init__(self, operator: str, layer: str, *, hint: str = "") -> None:
        where = f"in layer '{layer}'" if layer else "at the top level of the model"
        super().__init__(
            f"The operator '{operator}' {where} is not one that modhub can store as data.",
            hint=hint or "Rewrite that layer with the operators listed in docs/architectures.md.",
        )
        self.operator = operator
        self.layer = layer


class ParentError(ModhubError):
    """The parent classifier's weights, labels, head or input description are inconsistent."""


class DataError(ModhubError):
    """A data set or an image cannot be read or used."""


class DeviceError(ModhubError):
    """The device that was asked for is not on this machine, or is none."""


class CompositionError(ModhubError):
    """The wanted modules cannot stand in one classifier."""


class BudgetError(CompositionError):
    """No composition meets the wanted budget; the message says what could be reached."""


class MethodError(CompositionError):
    """A decomposition method, which may be anyone's, fails or makes what no composer could use."""


class ExportError(ModhubError):
    """The composed classifier cannot be written in the wanted format, or the written file disagrees."""


class HubError(ModhubError):
    """The hub cannot do what was asked, or its response is invalid."""


class NotFoundError(HubError):
    """A repository, release, class or file is not on the hub.

    `missing` says what: "repository", "revision", "file", "class", or "" when the hub does not tell.
    """

    def __init__(self, message: str, *, hint: str = "", missing: str = "") -> None:
        super().__init__(message, hint=hint)
        self.missing = missing


class ClassNotFoundError(NotFoundError):
    """No module has the class `label`: in `place` (as a sentence names it), or on the whole hub where that is
    empty. `nearest` are classes there whose names look like it."""

    def __init__(self, label: str, place: str = "", *, nearest: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(
            f"There is no class '{label}' in {place}."
            if place
            else f"No repository on this hub has a class '{label}'.",
            hint=f"Nearest: {', '.join(nearest)}." if nearest else hint,
            missing="class",
        )
        self.label = label
        self.place = place
        self.nearest = tuple(nearest)


class ReleaseNotFoundError(NotFoundError):
    """None of the `releases` of `repository` is allowed by `specifier`; empty, that means an active one.

    `pin` is the ref that would use a yanked release which the specifier allows.
    """

    def __init__(self, repository: str, specifier: str, releases: Sequence[str], *, pin: str = "") -> None:
        wanted = f" that matches '{specifier}'" if specifier else ""
        hint = f"Push one with: modhub push DIR {repository} --version 1.0.0"
        if releases:
            hint = f"Releases: {', '.join(releases[:20])}{', …' if len(releases) > 20 else ''}."
        if pin:
            hint += f" A yanked release must be pinned: {pin}"
        super().__init__(
            f"'{repository}' has no {'active ' if releases and not specifier else ''}release{wanted}.",
            hint=hint,
            missing="revision",
        )
        self.repository = repository
        self.specifier = specifier
        self.releases = tuple(releases)
        self.pin = pin


class ConflictError(HubError):
    """The branch moved meanwhile, or the thing to create exists already."""


class StaleParentError(ConflictError):
    """A commit was made for a state of the branch that is no longer its newest."""


class ReleaseError(HubError):
    """A change would delete, move, hide or duplicate the release `release` (its tag) of `repository`."""

    def __init__(self, message: str, *, repository: str, release: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.repository = repository
        self.release = release


class AccessError(HubError):
    """The hub knows who asks and refuses, or wants to know who asks."""


class TokenRejectedError(AccessError):
    """The token is invalid, expired or revoked; what is public can be read without."""


class BusyError(HubError):
    """The hub cannot answer just now; `after` are the seconds that it asks to wait, if it says so."""

    def __init__(self, message: str, *, hint: str = "", after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.after = after


class OfflineError(HubError):
    """The network is needed and is off or not there.

    `passing`: the line broke while it was in use, and may hold the next time.
    """

    def __init__(self, message: str, *, hint: str = "", passing: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.passing = passing


class ResolutionError(ModhubError):
    """No set of releases satisfies every requirement; the message names those that disagree."""


class AmbiguousProviderError(ResolutionError):
    """The class `label` is offered by the modules `candidates` (refs): by several in trusted namespaces, or
    by those in other namespaces only."""

    def __init__(self, label: str, candidates: Sequence[str], *, trusted: bool) -> None:
        listed = ", ".join(candidates[:10]) + (", …" if len(candidates) > 10 else "")
        by_name = "Name one of them by its ref"
        super().__init__(
            f"'{label}' is offered by {len(candidates)} repositories: {listed}."
            if trusted
            else f"'{label}' is offered only in namespaces that are not trusted: {listed}.",
            hint=by_name + ("." if trusted else ", or list a namespace that you trust in MODHUB_TRUSTED."),
        )
        self.label = label
        self.candidates = tuple(candidates)
        self.trusted = trusted


class StorageError(ModhubError):
    """The disk refused: `path` is not writable, the disk is full, or something else is in its place.

    `path` is None where no single file or directory is meant.
    """

    def __init__(self, message: str, *, hint: str = "", path: Path | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class MissingDependencyError(ModhubError):
    """An optional package is not installed."""

    def __init__(self, package: str, *, purpose: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed.",
            hint=f"Install it with: pip install 'modhub[{extra}]'",
        )
        self.package = package
