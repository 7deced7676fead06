"""huggingface.co and every other endpoint of its protocol, through `huggingface_hub`.

Nothing else in modhub imports that package.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

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
    TokenRejectedError,
)
from modhub.hub.environment import check_network_settings, proxy_for
from modhub.hub.tokens import OFFICIAL, environment_token, is_same_hub, origin_of, stored_token
from modhub.refs import RepositoryId, is_commit, is_sha256, is_text
from modhub.reporter import SILENT, Reporter
from modhub.store.model import MAIN, Add, Change, Copy, Delete, FileEntry, Refs, RepositorySummary

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile


# Up to this size a file is sent inside the commit, which takes four times its size in memory.
LFS_FROM_BYTES = 25_000_000
SIZE_LIMIT = 1 << 53
ATTEMPTS = 5
# Seconds before the repetitions of a request that a busy hub did not answer.
PAUSES = (0.5, 1.5, 4.0)
# When a hub asks for a longer pause, `BusyError` is raised instead.
LONGEST_PAUSE = 15.0
# Read timeout in seconds; the client itself has none.
SILENCE = 60.0
# The server may check a large commit for long before it answers.
COMMIT_SILENCE = 600.0
# What the client raises over a response of another form than it expects.
_MISREAD = (AttributeError, KeyError, IndexError, RecursionError, TypeError, ValueError)
# Errors of the client's HTTP library for a connection that broke while in use.
_BROKEN = {"ReadError", "WriteError", "CloseError", "RemoteProtocolError"}
_Response = TypeVar("_Response")
_FROM_CACHE = "to read what is in the cache, pass --offline."
# `X-Error-Code` of `modhub serve --read-only`.
READ_ONLY_CODE = "ReadOnlyHub"
# During an upload a process-wide constant of the client is changed.
_UPLOADING = threading.Lock()
# The client's session, whose hooks change for the time of a request, is shared by all threads.
_HOOKS = threading.Lock()
_LOGGER = logging.getLogger("modhub")


class HuggingFaceHub:
    """A `Hub` behind an endpoint of the Hugging Face Hub protocol; None is huggingface.co.

    The token is the one that was given for this hub (see `modhub.hub.tokens`); `token` overrides it, False
    sends none. It goes to this endpoint alone, wherever the hub redirects to. A hub that rejects it is read
    without, and the logger "modhub" warns. No request is made before the first method call.

    Responses are checked: commits are 40 hex digits, digests 64 or 40, sizes count bytes, names are text.
    Anything else raises `IntegrityError`, since these values become names of files in the cache.
    """

    local = False

    def __init__(self, endpoint: str | None = None, *, token: str | bool | None = None) -> None:
        self._endpoint = (endpoint or OFFICIAL).rstrip("/")
        try:
            parts = urlsplit(self._endpoint)
            has_host = bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise _not_an_address(endpoint) from None
        if parts.username or parts.password:
            raise HubError(
                "The hub's address contains credentials.",
                hint="Leave them out, and run: modhub login ADDRESS",
            )
        if not has_host or parts.query or parts.fragment:
            raise _not_an_address(endpoint)
        self.address = "hf" if self._endpoint == OFFICIAL else self._endpoint
        self._token = token
        self._rejected = False
        self._clients: dict[bool, HfApi] = {}
        self._checked = False

    def _api(self, *, writing: bool = False) -> HfApi:
        anonymous = self._rejected and not writing
        if anonymous not in self._clients:
            from huggingface_hub import HfApi, is_offline_mode

            from modhub import __version__

            if not is_offline_mode():
                _check_reachable(self._endpoint)
            if self._token is None or self._token is True:
                self._token = _given_token(self._endpoint) or False
            self._clients[anonymous] = HfApi(
                endpoint=self._endpoint,
                token=False if anonymous else self._token,
                library_name="modhub",
                library_version=__version__,
            )
        return self._clients[anonymous]

    def _reading(self, request: Callable[[], _Response]) -> _Response:
        """What `request` returns, asked without the token where the hub rejects that."""
        try:
            return _retried(request)
        except TokenRejectedError as rejected:
            self._rejected = True
            try:
                answer = _retried(request)
            except (AccessError, NotFoundError):
                self._rejected = False
                raise rejected from None
        _LOGGER.warning(
            "%s rejected the token: it is invalid, expired or revoked. Reading without one.", self._endpoint
        )
        return answer

    def namespaces(self) -> frozenset[str] | None:
        """The user's whose token this is, and the organisations'; none without a token."""

        def request() -> object:
            with self._errors():
                api = self._api()
                return {} if self._rejected or not self._token else api.whoami()

        try:
            about = self._reading(request)
        except AccessError:
            # A token may be for less than saying whose it is.
            return frozenset()
        match about:
            case {"name": str(name), **rest}:
                organisations = rest.get("orgs")
                members = organisations if isinstance(organisations, list) else []
                return frozenset(
                    text.lower()
                    for text in (
                        name,
                        *(member.get("name") for member in members if isinstance(member, dict)),
                    )
                    if isinstance(text, str)
                )
        return frozenset()

    def find(self, tags: Sequence[str] = (), *, text: str = "", limit: int = 1000) -> list[RepositorySummary]:
        def request() -> list[RepositorySummary]:
            summaries = []
            with self._errors():
                for info in self._api().list_models(
                    filter=list(tags) or None,
                    search=text or None,
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
                    summaries.append(
                        RepositorySummary(
                            repository,
                            tuple(info.tags or ()),
                            info.downloads if isinstance(info.downloads, int) else 0,
                            updated,
                            bool(info.private),
                            info.sha,
                        )
                    )
            return summaries

        return self._reading(request)

    def refs(self, repository: RepositoryId) -> Refs:
        def request() -> Refs:
            with self._errors(repository):
                refs = self._api().list_repo_refs(str(repository))
                return Refs(
                    branches={self._text(ref.name): self._commit(ref.target_commit) for ref in refs.branches},
                    tags={self._text(ref.name): self._commit(ref.target_commit) for ref in refs.tags},
                )

        return self._reading(request)

    def commit_of(self, repository: RepositoryId, revision: str) -> str:
        def request() -> str | None:
            with self._errors(repository, revision):
                sha: str | None = self._api().repo_info(str(repository), revision=revision).sha
                return sha

        commit = self._reading(request)
        if commit is None:
            raise HubError(
                f"{self._endpoint} sent no commit for '{revision}' of '{repository}'.",
                hint="Check the hub's address.",
            )
        return self._commit(commit)

    def tree(self, repository: RepositoryId, commit: str) -> dict[str, FileEntry]:
        from huggingface_hub.hf_api import RepoFile

        def request() -> dict[str, FileEntry]:
            with self._errors(repository, commit):
                entries = self._api().list_repo_tree(str(repository), recursive=True, revision=commit)
                return {
                    self._text(entry.path): self._file(entry)
                    for entry in entries
                    if isinstance(entry, RepoFile)
                }

        return self._reading(request)

    def lost(self, repository: RepositoryId, commit: str) -> frozenset[str]:
        """Only `modhub serve` reports them."""
        if self.address == "hf":
            return frozenset()

        def request() -> object:
            with self._errors(repository, commit):
                return self._api().repo_info(str(repository), revision=commit, files_metadata=True)

        missing = getattr(self._reading(request), "missing", ())
        return frozenset(self._text(path) for path in missing) if isinstance(missing, list) else frozenset()

    def _file(self, entry: RepoFile) -> FileEntry:
        size = entry.lfs.size if entry.lfs else entry.size
        if not isinstance(size, int) or not 0 <= size <= SIZE_LIMIT:
            raise self._invalid("a file's size", size)
        if entry.lfs is None:
            return FileEntry(size, None, self._commit(entry.blob_id))
        sha256 = entry.lfs.sha256
        if not isinstance(sha256, str) or not is_sha256(sha256):
            raise self._invalid("a sha256", sha256)
        return FileEntry(size, sha256)

    def _commit(self, value: object) -> str:
        """The id of a commit or of a file in git, both sha1."""
        if not isinstance(value, str) or not is_commit(value):
            raise self._invalid("a git sha1", value)
        return value

    def _text(self, value: object) -> str:
        if not isinstance(value, str) or not is_text(value):
            raise self._invalid("a name", value)
        return value

    def _invalid(self, what: str, value: object) -> IntegrityError:
        # ascii: no terminal control characters, and nothing that cannot be printed.
        shown = ascii(value)
        shown = shown if len(shown) <= 200 else f"{shown[:197]}…"
        return IntegrityError(
            f"{self._endpoint} sent {shown}, which is not {what}.",
            hint="Nothing was stored. Check the hub's address.",
        )

    def read(self, repository: RepositoryId, commit: str, path: str, *, limit: int = 16 << 20) -> bytes:
        def request() -> bytes:
            content = bytearray()
            for chunk in self._chunks(repository, commit, path, 0):
                content += chunk
                if len(content) > limit:
                    raise HubError(
                        f"'{path}' in '{repository}' has more than {limit:,} bytes; no more are read.",
                        hint="Choose another release, or tell its publisher.",
                    )
            return bytes(content)

        return self._reading(request)

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
        def download_rest() -> OfflineError | None:
            """How the connection broke after some bytes; None once the file is complete."""
            nonlocal offset
            before = offset
            try:
                for chunk in self._chunks(repository, commit, path, offset, {"X-HF-Download-Counter": "1"}):
                    destination.write(chunk)
                    reporter.advance(len(chunk))
                    offset += len(chunk)
            except OfflineError as error:
                if before == offset:
                    raise
                return error
            return None

        # Each attempt that brings some bytes is followed by another.
        for _ in range(ATTEMPTS):
            try:
                broken = self._reading(download_rest)
            except OfflineError as error:
                if offset == 0:
                    raise
                broken = error
                break
            if broken is None:
                return
        raise OfflineError(
            f"The connection to {self._endpoint} was lost while downloading '{path}' of '{repository}'.",
            hint="Run the command again to resume.",
        ) from broken

    def _chunks(
        self,
        repository: RepositoryId,
        commit: str,
        path: str,
        offset: int,
        marks: Mapping[str, str] = MappingProxyType({}),
    ) -> Iterator[bytes]:
        """The file's bytes from `offset` on, whether or not the server supports `Range`."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

        url = hf_hub_url(str(repository), path, revision=commit, endpoint=self._endpoint)
        # Byte ranges of a compressed response would count other bytes.
        headers = {**self._api()._build_hf_headers(), **marks, "Accept-Encoding": "identity"}
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
        def request() -> None:
            with self._errors(repository):
                # Where nobody asks for a private one, the hub's organisations may be private by default.
                self._api(writing=True).create_repo(
                    str(repository), private=private or None, exist_ok=exist_ok
                )

        # When the response is lost it is unknown whether the repository was created.
        if exist_ok:
            _retried(request)
        else:
            request()

    def delete_repository(self, repository: RepositoryId) -> None:
        with self._errors(repository):
            self._api().delete_repo(str(repository), missing_ok=True)

    def commit(
        self,
        repository: RepositoryId,
        changes: Sequence[Change],
        message: str,
        *,
        parent: str | None = None,
        reporter: Reporter = SILENT,
    ) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

        tree = (
            self.tree(repository, parent or MAIN)
            if any(isinstance(change, Delete) for change in changes)
            else {}
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
        added = [operation for operation in operations if isinstance(operation, CommitOperationAdd)]
        large = [addition for addition in added if addition.upload_info.size > LFS_FROM_BYTES]

        def request() -> str:
            with self._errors(repository, MAIN, silence=COMMIT_SILENCE), self._by_lfs(large):
                info = self._api(writing=True).create_commit(
                    str(repository), operations, commit_message=message, parent_commit=parent, revision=MAIN
                )
            return self._commit(info.oid)

        # A repeated commit with a parent cannot land twice: the second is stale.
        commit = request() if parent is None else _retried(request)
        reporter.advance(sum(change.size for change in changes if isinstance(change, Add)))
        return commit

    def restore(self, repository: RepositoryId, lost: Sequence[Add], *, reporter: Reporter = SILENT) -> None:
        added = [_addition(file) for file in lost]
        with self._errors(repository), self._by_lfs(added):
            self._api(writing=True).preupload_lfs_files(str(repository), added)
        reporter.advance(sum(file.size for file in lost))

    @contextmanager
    def _by_lfs(self, added: Sequence[CommitOperationAdd]) -> Iterator[None]:
        """Send these files by LFS to a hub without Xet; for huggingface.co the client decides."""
        with _quiet():
            if self.address == "hf" or not added:
                yield
                return
            from huggingface_hub import constants

            with _UPLOADING:
                before = constants.HF_HUB_DISABLE_XET
                constants.HF_HUB_DISABLE_XET = True
                try:
                    for addition in added:
                        addition._upload_mode = "lfs"
                    yield
                finally:
                    constants.HF_HUB_DISABLE_XET = before

    def create_tag(self, repository: RepositoryId, name: str, commit: str) -> None:
        def request() -> None:
            with self._errors(repository, commit):
                self._api(writing=True).create_tag(str(repository), tag=name, revision=commit)

        try:
            _retried(request)
        except ConflictError:
            if self.refs(repository).tags.get(name) != commit:
                raise

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keep the token from other hosts: the client sends it wherever a page or an upload leads."""
        from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

        def strip(request: Any) -> None:
            sent = request.headers.get("authorization")
            if sent == f"Bearer {self._token}" and not is_same_hub(self._endpoint, str(request.url)):
                del request.headers["authorization"]

        session = get_session()
        with _HOOKS:
            hooks = session.event_hooks
            session.event_hooks = {**hooks, "request": [*hooks["request"], strip]}
        try:
            yield
        finally:
            with _HOOKS:
                hooks = session.event_hooks
                others = [hook for hook in hooks["request"] if hook is not strip]
                session.event_hooks = {**hooks, "request": others}

    @contextmanager
    def _errors(
        self,
        repository: RepositoryId | None = None,
        revision: str = "",
        path: str = "",
        *,
        silence: float | None = None,
    ) -> Iterator[None]:
        """Turn the client's errors into modhub's; `silence` is the read timeout in seconds."""
        if not self._checked:
            check_network_settings()
            self._checked = True
        try:
            with _limited(SILENCE if silence is None else silence), self._guarded():
                yield
        except ModhubError:
            raise
        except Exception as error:
            # The client wraps the errors of LFS uploads.
            cause = error.__cause__ if type(error) is RuntimeError else None
            original = cause if isinstance(cause, Exception) else error
            mapped = _mapped(original, self._endpoint, repository, revision, path)
            if mapped is None:
                raise
            raise mapped from error


def _addition(change: Add) -> CommitOperationAdd:
    from huggingface_hub import CommitOperationAdd

    content = change.content
    return CommitOperationAdd(change.path, str(content) if isinstance(content, Path) else content)


def _retried(request: Callable[[], _Response]) -> _Response:
    """What `request` returns, repeated after a pause where the hub was busy or the connection broke."""
    for pause in PAUSES:
        try:
            return request()
        except BusyError as error:
            retry_after = error.after or 0.0
            if retry_after > LONGEST_PAUSE:
                raise
            pause = max(pause, retry_after)
        except OfflineError as error:
            if not error.passing:
                raise
        time.sleep(pause)
    return request()


@contextmanager
def _limited(silence: float) -> Iterator[None]:
    """Set the read timeout of the client's session inside the block, where it has none."""
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
    """The `ModhubError` for a client's error; None for one that does not concern the hub."""
    from huggingface_hub import errors

    named = f"'{repository}' on {endpoint}" if repository else endpoint
    if isinstance(error, errors.OfflineModeIsEnabled):
        return OfflineError(
            "HF_HUB_OFFLINE is set.", hint="Unset it; to read what is in the cache, pass --offline."
        )
    if isinstance(error, errors.GatedRepoError):
        return AccessError(f"Access to {named} must be granted first.", hint=_gated_hint(error, endpoint))
    if isinstance(error, errors.RevisionNotFoundError):
        return NotFoundError(
            f"There is no revision '{revision}' in {named}.",
            hint="Use one of its branches, tags or commits.",
            missing="revision",
        )
    if isinstance(error, errors.EntryNotFoundError):
        return NotFoundError(
            f"There is no file '{path}' in {named} at '{revision}'.",
            hint="List its files, or use another revision.",
            missing="file",
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    login = _login_hint(endpoint)
    if status == 401 and _sent_token(error):
        # Also for a repository: with a valid token a private one is answered 404.
        return TokenRejectedError(
            f"{endpoint} rejected the token: it is invalid, expired or revoked.",
            hint=f"For another, {login}",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = f"Check the name; if it is private, {login}"
        return NotFoundError(
            f"There is no repository {named}, or you may not see it.", hint=hint, missing="repository"
        )
    if isinstance(error, UnicodeEncodeError):
        return AccessError(
            "The token contains an invalid character.",
            hint=f"For another, {login}",
        )
    if isinstance(error, errors.HFValidationError):
        return HubError(f"Invalid request to {named}: {error}", hint="Check the name and the address.")
    if isinstance(status, int):
        # The first line only: a server may answer with a whole HTML page.
        reason = _first_line(getattr(error, "server_message", None) or "")
        if status == 401:
            return AccessError(f"{named} requires authentication.", hint=f"To log in, {login}")
        return _by_status(
            status, named, reason, retry_after=_retry_after(error), read_only=_is_read_only(error)
        )
    if _is_network(error):
        return _unreachable(endpoint, error)
    if isinstance(error, _MISREAD) or _http_names(error):
        # The client does not check what a server sends.
        return HubError(
            f"{endpoint} does not answer like a hub ({type(error).__name__}).",
            hint="Check the address; for a directory, pass its path.",
        )
    return None


def _not_an_address(text: str | None) -> HubError:
    return HubError(f"'{text}' is not a hub.", hint="Write it as https://host or http://host:port.")


def _check_reachable(endpoint: str) -> None:
    """Raises `OfflineError` where no server listens: the client would retry for half a minute."""
    parts = urlsplit(endpoint)
    if proxy_for(endpoint) is not None:
        # Only the proxy can tell.
        return
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=10).close()
    except (ConnectionRefusedError, socket.gaierror) as error:
        raise _unreachable(endpoint, error) from error
    except OSError:
        # A slow connection is left to the client's retries.
        return


def _unreachable(endpoint: str, error: Exception) -> OfflineError:
    proxy = proxy_for(endpoint)
    through = "" if proxy is None else f" through the proxy of {proxy.variable}, {proxy.shown}"
    checked = "the address and the network" if proxy is None else f"{proxy.variable} and NO_PROXY"
    return OfflineError(
        f"{endpoint} cannot be reached{through} ({_first_line(str(error)) or type(error).__name__}).",
        hint=f"Check {checked}; {_FROM_CACHE}",
        passing=bool(_http_names(error) & _BROKEN) or isinstance(error, ConnectionResetError),
    )


def _by_status(
    status: int, named: str, reason: str, *, retry_after: float | None = None, read_only: bool = False
) -> ModhubError:
    because = f": {reason}" if reason else ""
    if status == 403:
        hint = "Use a token with the required access."
        if read_only:
            hint = "Push to another hub; this one accepts no changes."
        return AccessError(f"{named} refuses{because}.", hint=hint)
    if status == 404:
        return NotFoundError(f"{named} was not found{because}.", hint="Check the name and the hub's address.")
    if status == 409:
        return ConflictError(f"Already exists on {named}{because}.", hint="Choose another name.")
    if status == 412:
        return StaleParentError(f"{named} changed meanwhile.", hint="Read it again and repeat the change.")
    if status == 429:
        pause = "a minute" if retry_after is None else f"{retry_after:.0f} seconds"
        return BusyError(
            f"{named} limits the rate of requests.", hint=f"Wait {pause} and try again.", after=retry_after
        )
    if status >= 500:
        message = f"{named} failed with status {status}{because}."
        if status in (502, 503, 504):
            return BusyError(
                message, hint="Try again later; the fault is on the server's side.", after=retry_after
            )
        return HubError(message, hint="Try again; the fault is on the server's side.")
    return HubError(
        f"{named} rejected the request with status {status}{because}.",
        hint="Ask the hub's administrator.",
    )


def _is_read_only(error: Exception) -> bool:
    """Whether the server accepts no changes at all, whatever the token."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    return bool(headers.get("x-error-code") == READ_ONLY_CODE)


def _retry_after(error: Exception) -> float | None:
    """Seconds to wait, where the response says so."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    after = headers.get("retry-after", "").strip()
    if not after.isdecimal():
        # huggingface.co: "api";r=0;t=55
        match = re.search(r";t=(\d{1,6})\b", headers.get("ratelimit", ""))
        after = match.group(1) if match else ""
    return float(after) if after else None


def _gated_hint(error: Exception, endpoint: str) -> str:
    if not _sent_token(error):
        return f"To log in, {_login_hint(endpoint)}"
    if endpoint == OFFICIAL:
        return "Request access on its page."
    # `modhub serve` has no requests for access: the owner names the readers.
    return "Ask its owner to add you to its readers."


def _login_hint(endpoint: str) -> str:
    """How to give a token for that hub."""
    if endpoint == OFFICIAL:
        return "set HF_TOKEN or run: hf auth login"
    return f"run: modhub login {endpoint} (or set HF_TOKEN, and HF_ENDPOINT to that hub)"


def _given_token(endpoint: str) -> str | None:
    """The token that was given for the hub at `endpoint`."""
    from huggingface_hub import constants, get_token

    if not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        if token := environment_token(endpoint):
            return token
        if origin_of(endpoint) == origin_of(OFFICIAL):
            token = None
            if not os.environ.get("HF_TOKEN") and not os.environ.get("HUGGING_FACE_HUB_TOKEN"):
                token = get_token()
            else:
                # It is another hub's, and the client would take it.
                with suppress(OSError):
                    token = Path(constants.HF_TOKEN_PATH).read_text().strip()
            if token:
                return token
    return stored_token(endpoint)


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
    # It comes from the hub: no terminal control characters.
    return "".join(sign if sign.isprintable() else "?" for sign in line)
