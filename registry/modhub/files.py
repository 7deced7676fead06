"""Files that appear whole or not at all, and their digests."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from modhub.errors import IntegrityError, StorageError
from modhub.text import encoding_of

CHUNK = 1 << 20
_FORCE = "replace it: --force, or force=True from Python"
_FRESH = 60.0
"""Seconds that a new file or directory may stay unlocked."""
# What network file systems, and those in user space, answer to a call that they do not know.
_UNSUPPORTED = {
    *(errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.EBADF),
    *(errno.EISDIR, errno.ENOLCK, errno.ENOTTY),
}
# From <fcntl.h> and <linux/fs.h>.
AT_FDCWD = -100
RENAME_EXCHANGE = 2


def sha256_of_bytes(content: bytes) -> str:
    """64 lower-case hex digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """64 lower-case hex digits; reads in chunks, so a file of any size is fine."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def confined(root: Path, relative: str) -> Path:
    """`root/relative`, refused when the path is absolute or leaves `root`."""
    path = PurePosixPath(relative)
    if (
        not relative
        or path.is_absolute()
        or "\\" in relative
        or "\0" in relative
        or any(part in ("..", ".", "") for part in relative.split("/"))
    ):
        raise IntegrityError(f"The path '{relative}' does not stay inside its repository.")
    return root / path


def fsync_directory(directory: Path) -> None:
    """Make renames inside `directory` survive a crash, on disks that can."""
    with _where_supported():
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _where_supported() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


@contextmanager
def new_file(path: Path, *, large: bool = False, mode: int = 0o666) -> Iterator[Path]:
    """A fresh file beside `path` to fill, which becomes `path` when the block ends well.

    It bears the suffix of `path`. Of a link the file that it leads to is written, and a file that is there
    keeps its mode; a new one has what the umask leaves of `mode`. Before a `large` one, what killed processes
    left for the same `path` is removed. Raises `StorageError`.
    """
    named, path = path, Path(os.path.realpath(path)) if os.path.islink(path) else path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if large:
            _remove_leftovers(path, f".{path.stem}.part.", path.suffix)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.part.", suffix=path.suffix)
    except OSError as error:
        raise _refused(named, error) from error
    scratch = Path(name)
    try:
        # For as long as the process lives.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield scratch
        with scratch.open("rb") as stream:
            os.fsync(stream.fileno())
        with _where_supported():
            scratch.chmod(_mode(path, mode))
        _place(scratch, path)
        fsync_directory(path.parent)
    except OSError as error:
        raise _refused(named, error) from error
    finally:
        os.close(handle)
        scratch.unlink(missing_ok=True)


def _mode(path: Path, new: int) -> int:
    """That of what is at `path`, or what the umask leaves of `new`."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return permitted(new)


def _place(scratch: Path, path: Path) -> None:
    try:
        os.replace(scratch, path)
    except OSError as error:
        # A file that is mounted by itself, as into a container, can only be written into.
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        with path.open("r+b") as stream:
            stream.write(scratch.read_bytes())
            stream.truncate()
            os.fsync(stream.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that readers see whole or not at all. Raises `StorageError`."""
    with new_file(path) as scratch:
        scratch.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def rewrite(path: Path, text: str) -> None:
    """Write `text`, whose lines end in \\n, with the line ends, byte order mark and encoding that the file at
    `path` has, if there is one. Raises `StorageError`."""
    try:
        before = path.read_bytes()
    except OSError:
        before = b""
    mark, encoding = encoding_of(before)
    with suppress(UnicodeDecodeError):
        if "\r\n" in before[len(mark) :].decode(encoding):
            text = text.replace("\n", "\r\n")
    write_bytes(path, mark + text.encode(encoding))


def write_files(root: Path, contents: Mapping[str, bytes]) -> None:
    """Write files by their paths below `root`, a directory that nobody reads yet (see `new_directory`).

    Raises `IntegrityError` for a path that leaves it.
    """
    for path, content in contents.items():
        file = confined(root, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def check_vacant(path: Path, *, force: bool = False) -> None:
    """Raises `StorageError` when `path` is a file, or a folder that is not empty and there is no `force`, or
    when nothing can be written there.

    `force`: what is in the folder may be replaced. Ask it before long work, not after.
    """
    exists = path.exists()
    if not exists or path.is_dir():
        place = Path(os.path.realpath(path))
        above = next(folder for folder in (place, *place.parents) if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            reason = "Permission denied" if above.is_dir() else f"'{above}' is a file"
            raise StorageError(
                f"'{path}' cannot be written: {reason}.",
                hint="Choose a place with room that you may write to.",
                path=path,
            )
    if exists and not (path.is_dir() and (force or not _entries(path))):
        raise StorageError(
            f"'{path}' exists already.",
            hint=f"Choose another directory, remove it, or {_FORCE}.",
        )


def check_new_file(path: Path, *, force: bool = False) -> None:
    """The same for a file: raises `StorageError` when something is there and there is no `force`, or when it
    cannot be written."""
    if path.is_dir() or (path.exists() and not force):
        raise StorageError(
            f"'{path}' exists already.",
            hint="Choose another file." if path.is_dir() else f"Choose another file, or {_FORCE}.",
        )
    check_vacant(path.parent, force=True)


def _entries(folder: Path, but: Path | None = None) -> list[Path]:
    """What is in a folder, other than `but` and what a disk puts into its topmost one."""
    return [path for path in folder.iterdir() if path.name != "lost+found" and path != but]


def _stays(folder: Path) -> bool:
    """Whether a folder can be filled, and not be replaced by another: it is the top of a disk, or somebody's
    current one, or nothing can be made beside it."""
    here = Path.cwd()
    return folder.is_dir() and (
        os.path.ismount(folder)
        or not os.access(folder.parent, os.W_OK | os.X_OK)
        or folder == here
        or folder in here.parents
    )


@contextmanager
def new_directory(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A fresh directory to fill, moved to `path` when the block ends well and removed when it does not.

    It is locked as long as its process lives: what killed ones left for the same `path` is removed. Of a link
    the directory that it leads to is written. One that cannot be replaced, such as the top of a disk, is
    filled at the end, file by file.

    On Linux `path` names the old or the new directory whenever this ends, elsewhere there is a moment without
    either. Raises `StorageError` for what `check_vacant` refuses.
    """
    check_vacant(path, force=force)
    place = Path(os.path.realpath(path))
    fills = _stays(place)
    home = place if fills else place.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(home / place.name, f".{place.name}.", ".part")
        scratch = Path(tempfile.mkdtemp(dir=home, prefix=f".{place.name}.", suffix=".part"))
    except OSError as error:
        raise _refused(path, error) from error
    lock = _locked(scratch)
    try:
        with _where_supported():
            scratch.chmod(_mode(place, 0o777))
        yield scratch
        # Somebody may have been faster.
        if fills:
            _fill(scratch, place, path, force=force)
        else:
            check_vacant(path, force=force)
            _swap(scratch, place)
    except StorageError as error:
        # What is written inside by these means is named as the place where it is to be.
        error.message = error.message.replace(f"'{scratch}", f"'{path}")
        raise
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def claimed(path: Path, what: Path) -> Iterator[None]:
    """Have the directory `path`, made where it is missing, for this process alone while the block lasts.

    Afterwards it goes, with what was made above it, if it is empty. Raises `StorageError` when another
    process has it and so is at work on `what`, or when it cannot be made; that of a killed one is free.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        handle = _claim(path, what)
    except OSError as error:
        raise _refused(what, error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            for folder in missing or [path]:
                folder.rmdir()
        if handle is not None:
            os.close(handle)


def _claim(path: Path, what: Path) -> int | None:
    """A handle that keeps others out of `path` until it is closed; None where the disk knows no locks."""
    for _ in range(100):
        path.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            # Another process was just done with it.
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(path.stat(), os.fstat(handle)):
                return handle
        except BlockingIOError:
            os.close(handle)
            break
        except FileNotFoundError:
            pass
        except OSError:
            os.close(handle)
            return None
        os.close(handle)
    raise StorageError(
        f"Another process is at work on '{what}'.", hint="Wait for it, or choose another directory."
    )


def _remove_leftovers(path: Path, prefix: str, suffix: str) -> None:
    """Remove what processes that are gone began for `path`: nobody locks it, and it is not new."""
    name = re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}{re.escape(suffix)}")
    for other in path.parent.iterdir():
        if not name.fullmatch(other.name) or other.is_symlink():
            continue
        lock = _locked(other)
        if lock is None:
            continue
        try:
            if time.time() - os.fstat(lock).st_mtime > _FRESH:
                if other.is_dir():
                    shutil.rmtree(other, ignore_errors=True)
                else:
                    other.unlink(missing_ok=True)
        finally:
            os.close(lock)


def _locked(place: Path) -> int | None:
    """A handle that locks a file or directory until it is closed; None when another holds it, or none can be
    had."""
    try:
        handle = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _swap(scratch: Path, path: Path) -> None:
    """Move `scratch` to `path`; an old directory there takes its place, or steps aside until that is done."""
    if not path.exists():
        os.replace(scratch, path)
        return
    if not path.is_symlink() and _exchange(scratch, path):
        return
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
    os.replace(path, aside)
    try:
        os.replace(scratch, path)
    except OSError:
        os.replace(aside, path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _fill(scratch: Path, place: Path, path: Path, *, force: bool) -> None:
    """Move what is in `scratch` into `place`, the folder around it, and remove what was there."""
    before = _entries(place, scratch)
    if before and not force:
        check_vacant(path)
    aside = Path(tempfile.mkdtemp(dir=scratch, suffix=".old"))
    moved: list[tuple[Path, Path]] = []
    try:
        for entry in before:
            os.replace(entry, aside / entry.name)
            moved.append((entry, aside / entry.name))
        for entry in _entries(scratch, aside):
            os.replace(entry, place / entry.name)
            moved.append((entry, place / entry.name))
    except OSError:
        for was, now in reversed(moved):
            with suppress(OSError):
                os.replace(now, was)
        raise


def _exchange(first: Path, second: Path) -> bool:
    """Let two directories trade their names at once; False when system or file system cannot, or refuse."""
    if sys.platform != "linux":
        return False
    # Python has no name for it; an older C library has none either.
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = os.fsencode(first.absolute()), os.fsencode(second.absolute())
    return bool(renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0)


def permitted(mode: int) -> int:
    """What the process's umask leaves of a mode."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mode & ~mask


def _refused(path: Path, error: OSError) -> StorageError:
    reason = error.strerror or str(error)
    hint = "Choose a place with room that you may write to."
    if error.errno == errno.ENAMETOOLONG:
        hint = "Choose a shorter name."
    return StorageError(f"'{path}' cannot be written: {reason}.", hint=hint, path=path)
