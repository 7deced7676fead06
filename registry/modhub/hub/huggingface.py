"""huggingface.co and every other endpoint of its protocol, through `huggingface_hub`.

Nothing else in modhub imports that package.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

from modhub.errors import (
    AccessError,
    BusyError,
    ConflictError,
    HubError,
    IntegrityError,
    ModhubError,
    NotFoundError,
    OfflineError,
    RefError,
    StaleParentError,
)
from modhub.refs import RepositoryId, is_commit, is_sha256, is_text
from modhub.reporter import SILENT, Reporter
from modhub.store.model import MAIN, Add, Change, Copy, Delete, FileEntry, Refs, RepositorySummary

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile

__all__ = ["HuggingFaceHub"]

OFFICIAL = "https://huggingface.co"
# Below this a file travels inside the commit; above, that would cost four times its size in memory.
LFS_FROM_BYTES = 25_000_000
SIZE_LIMIT = 1 << 53
ATTEMPTS = 5
# Seconds before a request is repeated that a hub could not answer just then.
PAUSES = (0.5, 1.5, 4.0)
# A hub that wants to be left alone for longer is told of instead.
LONGEST_PAUSE = 15.0
# Seconds without a byte after which nothing is waited for any more; the client itself waits for ever.
SILENCE = 60.0
# A large commit may be checked for long before it is answered.
COMMIT_SILENCE = 600.0
# What the client raises over an answer of another form than it expects.
_MISREAD = (AttributeError, KeyError, IndexError, RecursionError, TypeError, ValueError)
# What the client's HTTP library calls a line that broke while it was in use.
_BROKEN = {"ReadError", "WriteError", "CloseError", "RemoteProtocolError"}
_Answer = TypeVar("_Answer")
_FROM_CACHE = "to read what is in the cache, pass --offline."
# What `modhub serve --read-only` says.
READ_ONLY = "This hub is read-only"
# A process-wide constant of the client is changed for the time of an upload.
_UPLOADING = threading.Lock()


class HuggingFaceHub:
    """A `Hub` behind an endpoint of the Hugging Face Hub protocol; None is huggingface.co.

    The token is the client's own business (`HF_TOKEN`, `hf auth login`); `token` overrides it, and False asks
    as nobody. Nothing is asked before the first call.

    What the endpoint says is checked here: commits are 40 hex digits, digests 64 or 40, sizes count bytes,
    names are text. Anything else raises `IntegrityError`: such words become names of files in the cache.
    """

    local = False

    def __init__(self, endpoint: str | None = None, *, token: str | bool | None = None) -> None:
        self._endpoint = (endpoint or OFFICIAL).rstrip("/")
        try:
            parts = urlsplit(self._endpoint)
            known = bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise _no_address(endpoint) from None
        if parts.username or parts.password:
            raise HubError(
                "The hub's address holds credentials.",
                hint="Put the token into HF_TOKEN, not into the address.",
            )
        if not known or parts.query or parts.fragment:
            raise _no_address(endpoint)
        self.address = "hf" if self._endpoint == OFFICIAL else self._endpoint
        self._token = token
        self._made: HfApi | None = None

    def _api(self) -> HfApi:
        if self._made is None:
            from huggingface_hub import HfApi, is_offline_mode

            from modhub import __version__

            if not is_offline_mode():
                _knock(self._endpoint)
            self._made = HfApi(
                endpoint=self._endpoint,
                token=self._token,
                library_name="modhub",
                library_version=__version__,
            )
        return self._made

    def find(
        self, tags: Sequence[str] = (), *, text: str = "", author: str = "", limit: int = 1000
    ) -> list[RepositorySummary]:
        found = []
        with self._errors():
            for info in self._api().list_models(
                filter=list(tags) or None,
                search=text or None,
                author=author or None,
                sort="last_modified",
                limit=limit,
                full=True,
            ):
                try:
                    repository = RepositoryId.parse(info.id)
                except RefError:
                    # huggingface.co has a few old names without a namespace; no ref can name them.
                    continue
                updated = info.last_modified.isoformat() if info.last_modified else ""
                found.append(
                    RepositorySummary(
                        repository,
                        tuple(info.tags or ()),
                        info.downloads if isinstance(info.downloads, int) else 0,
                        updated,
                        bool(info.private),
                        info.sha,
                    )
                )
        return found

    def refs(self, repository: RepositoryId) -> Refs:
        def ask() -> Refs:
            with self._errors(repository):
                refs = self._api().list_repo_refs(str(repository))
                return Refs(
                    branches={self._text(ref.name): self._commit(ref.target_commit) for ref in refs.branches},
                    tags={self._text(ref.name): self._commit(ref.target_commit) for ref in refs.tags},
                )

        return _patiently(ask)

    def commit_of(self, repository: RepositoryId, revision: str) -> str:
        def ask() -> str | None:
            with self._errors(repository, revision):
                sha: str | None = self._api().repo_info(str(repository), revision=revision).sha
                return sha

        commit = _patiently(ask)
        if commit is None:
            raise HubError(
                f"{self._endpoint} does not say which commit '{revision}' of '{repository}' is.",
                hint="Check the address; a sound hub says it.",
            )
        return self._commit(commit)

    def tree(self, repository: RepositoryId, commit: str) -> dict[str, FileEntry]:
        from huggingface_hub.hf_api import RepoFile

        found = {}
        with self._errors(repository, commit):
            for entry in self._api().list_repo_tree(str(repository), recursive=True, revision=commit):
                if isinstance(entry, RepoFile):
                    found[self._text(entry.path)] = self._file(entry)
        return found

    def lost(self, repository: RepositoryId, commit: str) -> frozenset[str]:
        """Only a hub of modhub's own says it."""
        if self.address == "hf":
            return frozenset()

        def ask() -> object:
            with self._errors(repository, commit):
                return self._api().repo_info(str(repository), revision=commit, files_metadata=True)

        said = getattr(_patiently(ask), "missing", ())
        return frozenset(self._text(path) for path in said) if isinstance(said, list) else frozenset()

    def _file(self, entry: RepoFile) -> FileEntry:
        size = entry.lfs.size if entry.lfs else entry.size
        if not isinstance(size, int) or not 0 <= size <= SIZE_LIMIT:
            raise self._nonsense("a file's size", size)
        if entry.lfs is None:
            return FileEntry(size, None, self._commit(entry.blob_id))
        sha256 = entry.lfs.sha256
        if not isinstance(sha256, str) or not is_sha256(sha256):
            raise self._nonsense("a sha256", sha256)
        return FileEntry(size, sha256)

    def _commit(self, said: object) -> str:
        """The id of a commit or of a file in git, both sha1."""
        if not isinstance(said, str) or not is_commit(said):
            raise self._nonsense("a git sha1", said)
        return said

    def _text(self, said: object) -> str:
        if not isinstance(said, str) or not is_text(said):
            raise self._nonsense("a name", said)
        return said

    def _nonsense(self, what: str, said: object) -> IntegrityError:
        # ascii: neither signs that steer a terminal nor those that cannot be printed get through.
        shown = ascii(said)
        shown = shown if len(shown) <= 200 else f"{shown[:197]}…"
        return IntegrityError(
            f"{self._endpoint} gives {shown} as {what}, which it is not.",
            hint="Nothing was kept. Check the address; a sound hub does not say that.",
        )

    def read(self, repository: RepositoryId, commit: str, path: str, *, limit: int = 16 << 20) -> bytes:
        def ask() -> bytes:
            content = bytearray()
            for chunk in self._chunks(repository, commit, path, 0):
                content += chunk
                if len(content) > limit:
                    raise HubError(
                        f"'{path}' in '{repository}' has more than {limit:,} bytes; no more are read.",
                        hint="Take another release, or tell who published it.",
                    )
            return bytes(content)

        return _patiently(ask)

    def download(
        self,
        repository: RepositoryId,
        commit: str,
        path: str,
        destination: BinaryIO,
        *,
        offset: int = 0,
        reporter: Reporter = SILENT,
    ) -> None:
        def some() -> OfflineError | None:
            """How the line broke after something had come; None once all is there."""
            nonlocal offset
            before = offset
            try:
                for chunk in self._chunks(repository, commit, path, offset):
                    destination.write(chunk)
                    reporter.advance(len(chunk))
                    offset += len(chunk)
            except OfflineError as error:
                if before == offset:
                    raise
                return error
            return None

        # A line that breaks is worth another try as long as something still comes.
        for _ in range(ATTEMPTS):
            try:
                broken = _patiently(some)
            except OfflineError as error:
                if offset == 0:
                    raise
                broken = error
                break
            if broken is None:
                return
        raise OfflineError(
            f"The connection to {self._endpoint} broke off in '{path}' of '{repository}'.",
            hint="Run the command again: it goes on from there.",
        ) from broken

    def _chunks(self, repository: RepositoryId, commit: str, path: str, offset: int) -> Iterator[bytes]:
        """The file's bytes from `offset` on, whether or not the other side understands `Range`."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

        url = hf_hub_url(str(repository), path, revision=commit, endpoint=self._endpoint)
        # Compressed on the way, byte ranges would count other bytes than ours.
        headers = {**self._api()._build_hf_headers(), "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with (
            self._errors(repository, commit, path),
            get_session().stream("GET", url, headers=headers, follow_redirects=True) as response,
        ):
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            skip = offset if response.status_code != 206 else 0
            for chunk in response.iter_bytes():
                if skip < len(chunk):
                    yield chunk[skip:]
                skip = max(0, skip - len(chunk))

    def create_repository(
        self, repository: RepositoryId, *, private: bool = False, exist_ok: bool = False
    ) -> None:
        def ask() -> None:
            with self._errors(repository):
                self._api().create_repo(str(repository), private=private, exist_ok=exist_ok)

        # Whether it was made is not known where the answer got lost.
        if exist_ok:
            _patiently(ask)
        else:
            ask()

    def commit(
        self,
        repository: RepositoryId,
        changes: Sequence[Change],
        message: str,
        *,
        parent: str | None = None,
        branch: str = MAIN,
        reporter: Reporter = SILENT,
    ) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

        tree = (
            self.tree(repository, parent or branch) if any(isinstance(one, Delete) for one in changes) else {}
        )
        operations: list[Any] = []
        for change in changes:
            if isinstance(change, Delete):
                folder = change.path not in tree
                operations.append(CommitOperationDelete(change.path, is_folder=folder))
            elif isinstance(change, Copy):
                operations.append(CommitOperationCopy(change.source, change.path, change.revision))
            else:
                operations.append(_addition(change))
        added = [one for one in operations if isinstance(one, CommitOperationAdd)]
        large = [one for one in added if one.upload_info.size > LFS_FROM_BYTES]

        def ask() -> str:
            with self._errors(repository, branch, silence=COMMIT_SILENCE), self._by_lfs(large):
                info = self._api().create_commit(
                    str(repository), operations, commit_message=message, parent_commit=parent, revision=branch
                )
            return self._commit(info.oid)

        # It may have landed though its answer got lost; then, with a parent, the second one is stale.
        made = ask() if parent is None else _patiently(ask)
        reporter.advance(sum(change.size for change in changes if isinstance(change, Add)))
        return made

    def restore(self, repository: RepositoryId, lost: Sequence[Add], *, reporter: Reporter = SILENT) -> None:
        added = [_addition(one) for one in lost]
        with self._errors(repository), self._by_lfs(added):
            self._api().preupload_lfs_files(str(repository), added)
        reporter.advance(sum(one.size for one in lost))

    @contextmanager
    def _by_lfs(self, added: Sequence[CommitOperationAdd]) -> Iterator[None]:
        """Send these files by LFS to a hub without Xet; huggingface.co keeps the client's own way."""
        with _quiet():
            if self.address == "hf" or not added:
                yield
                return
            from huggingface_hub import constants

            with _UPLOADING:
                before = constants.HF_HUB_DISABLE_XET
                constants.HF_HUB_DISABLE_XET = True
                try:
                    for one in added:
                        one._upload_mode = "lfs"
                    yield
                finally:
                    constants.HF_HUB_DISABLE_XET = before

    def create_tag(self, repository: RepositoryId, name: str, commit: str) -> None:
        def ask() -> None:
            with self._errors(repository, commit):
                self._api().create_tag(str(repository), tag=name, revision=commit)

        try:
            _patiently(ask)
        except ConflictError:
            if self.refs(repository).tags.get(name) != commit:
                raise

    @contextmanager
    def _errors(
        self,
        repository: RepositoryId | None = None,
        revision: str = "",
        path: str = "",
        *,
        silence: float | None = None,
    ) -> Iterator[None]:
        """Turn the client's errors into ours, each with a next step; so many seconds of silence are one."""
        try:
            with _limited(SILENCE if silence is None else silence):
                yield
        except ModhubError:
            raise
        except Exception as error:
            # The client wraps what went wrong with an upload by LFS.
            cause = error.__cause__ if type(error) is RuntimeError else None
            met = cause if isinstance(cause, Exception) else error
            mapped = _mapped(met, self._endpoint, repository, revision, path)
            if mapped is None:
                raise
            raise mapped from error


def _addition(change: Add) -> CommitOperationAdd:
    from huggingface_hub import CommitOperationAdd

    content = change.content
    return CommitOperationAdd(change.path, str(content) if isinstance(content, Path) else content)


def _patiently(ask: Callable[[], _Answer]) -> _Answer:
    """What `ask` gives, asked again after a pause where the hub was busy or the line broke."""
    for pause in PAUSES:
        try:
            return ask()
        except BusyError as error:
            asked_for = error.after or 0.0
            if asked_for > LONGEST_PAUSE:
                raise
            pause = max(pause, asked_for)
        except OfflineError as error:
            if not error.passing:
                raise
        time.sleep(pause)
    return ask()


@contextmanager
def _limited(silence: float) -> Iterator[None]:
    """Give the client's session a limit where it has none, for as long as this takes."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    session = get_session()
    before = session.timeout
    if before.read is not None:
        yield
        return
    session.timeout = silence
    try:
        yield
    finally:
        session.timeout = before


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars: the library never prints."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _mapped(
    error: Exception, endpoint: str, repository: RepositoryId | None, revision: str, path: str
) -> ModhubError | None:
    """The error of ours that says the same; None for one that is not about the hub."""
    from huggingface_hub import errors

    named = f"'{repository}' on {endpoint}" if repository else endpoint
    if isinstance(error, errors.OfflineModeIsEnabled):
        return OfflineError(
            "HF_HUB_OFFLINE is set.", hint="Unset it; to read what is in the cache, pass --offline."
        )
    if isinstance(error, errors.GatedRepoError):
        return AccessError(f"Access to {named} must be granted first.", hint=_at_the_gate(error, endpoint))
    if isinstance(error, errors.RevisionNotFoundError):
        return NotFoundError(
            f"There is no revision '{revision}' in {named}.",
            hint="Take one of its branches, tags or commits.",
            missing="revision",
        )
    if isinstance(error, errors.EntryNotFoundError):
        return NotFoundError(
            f"There is no file '{path}' in {named} at '{revision}'.",
            hint="Look at what it holds, or take another revision.",
            missing="file",
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401 and _sent_token(error):
        # For a repository, too: whoever is known is told 404 of one that they may not see.
        return AccessError(
            f"{endpoint} refuses the token: it is not valid, or not any more.",
            hint="Set HF_TOKEN to another, or run: hf auth login",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = "Check the name; if it is private, set HF_TOKEN or run: hf auth login"
        return NotFoundError(
            f"There is no repository {named}, or you may not see it.", hint=hint, missing="repository"
        )
    if isinstance(error, UnicodeEncodeError):
        return AccessError(
            "The token holds a character that no token has.",
            hint="Set HF_TOKEN to another, or run: hf auth login",
        )
    if isinstance(error, errors.HFValidationError):
        return HubError(f"{named} cannot be asked: {error}", hint="Check the name and the address.")
    if isinstance(status, int):
        # Of a page for browsers the client would show itself.
        said = _first_line(getattr(error, "server_message", None) or "")
        return _by_status(status, named, said, _asked_for(error))
    if _is_network(error):
        return _unreachable(endpoint, error)
    if isinstance(error, _MISREAD) or _http_names(error):
        # The client trusts that what it reads is what a hub writes.
        return HubError(
            f"{endpoint} does not answer as a hub does ({type(error).__name__}).",
            hint="Check the address; for a folder, name the folder.",
        )
    return None


def _no_address(text: str | None) -> HubError:
    return HubError(f"'{text}' is not a hub.", hint="Write it as https://host or http://host:port.")


def _knock(endpoint: str) -> None:
    """Raises `OfflineError` where nobody listens: the client would try again for half a minute."""
    parts = urlsplit(endpoint)
    if getproxies():
        # Whoever listens there is the proxy's to know.
        return
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=10).close()
    except (ConnectionRefusedError, socket.gaierror) as error:
        raise _unreachable(endpoint, error) from error
    except OSError:
        # A line that is slow or breaks is worth the client's patience.
        return


def _unreachable(endpoint: str, error: Exception) -> OfflineError:
    return OfflineError(
        f"{endpoint} cannot be reached ({_first_line(str(error)) or type(error).__name__}).",
        hint=f"Check the address and the network; {_FROM_CACHE}",
        passing=bool(_http_names(error) & _BROKEN) or isinstance(error, ConnectionResetError),
    )


def _by_status(status: int, named: str, said: str, after: float | None = None) -> ModhubError:
    because = f": {said}" if said else ""
    if status == 401:
        return AccessError(f"{named} wants to know who asks.", hint="Set HF_TOKEN, or run: hf auth login")
    if status == 403:
        hint = "Use a token that may do this."
        if said == READ_ONLY:
            hint = "Push to another hub: this one takes no changes, whatever the token."
        return AccessError(f"{named} refuses{because}.", hint=hint)
    if status == 404:
        return NotFoundError(
            f"{named} does not have that{because}.", hint="Check the name and the hub's address."
        )
    if status == 409:
        return ConflictError(f"It exists already on {named}{because}.", hint="Choose another name.")
    if status == 412:
        return StaleParentError(f"{named} changed meanwhile.", hint="Read it again and repeat the change.")
    if status == 429:
        while_ = "a minute" if after is None else f"{after:.0f} seconds"
        return BusyError(
            f"{named} asks for fewer requests.", hint=f"Wait {while_} and try again.", after=after
        )
    if status >= 500:
        message = f"{named} failed with status {status}{because}."
        if status in (502, 503, 504):
            return BusyError(message, hint="Try again a little later; it is not your doing.", after=after)
        return HubError(message, hint="Try again; it is not your doing.")
    return HubError(
        f"{named} refuses with status {status}{because}.",
        hint="If that says nothing to you, ask whoever runs the hub.",
    )


def _asked_for(error: Exception) -> float | None:
    """Seconds that an answer asks to wait, where it says so."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    after = headers.get("retry-after", "").strip()
    if not after.isdecimal():
        # huggingface.co: "api";r=0;t=55
        told = re.search(r";t=(\d{1,6})\b", headers.get("ratelimit", ""))
        after = told.group(1) if told else ""
    return float(after) if after else None


def _at_the_gate(error: Exception, endpoint: str) -> str:
    if not _sent_token(error):
        return "Set HF_TOKEN, or run: hf auth login"
    if endpoint == OFFICIAL:
        return "Ask for it on its page."
    # A hub of modhub's own lets nobody ask: its owner names the readers.
    return "Ask its owner: who may read it is theirs to say."


def _sent_token(error: Exception) -> bool:
    request = getattr(getattr(error, "response", None), "request", None)
    return "authorization" in getattr(request, "headers", {})


def _is_network(error: Exception) -> bool:
    return isinstance(error, ConnectionError | TimeoutError) or "TransportError" in _http_names(error)


def _http_names(error: Exception) -> set[str]:
    """What an error of the client's HTTP library is called, and what it is a kind of."""
    # httpx in 1.x of the client, its successor httpx2 in 2.x: told by name, as neither is ours to import.
    kinds = type(error).__mro__
    return {kind.__name__ for kind in kinds if kind.__module__.partition(".")[0] in ("httpx", "httpx2")}


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0][:200].rstrip(".")
    # A hub says it, and signs that steer a terminal are not its to send.
    return "".join(sign if sign.isprintable() else "?" for sign in line)
