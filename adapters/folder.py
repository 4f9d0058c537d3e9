"""A folder in which strangers name the files: every name is checked, and nothing outside of the folder is ever touched.

Files are opened step by step, relative to descriptors of the folders above them, and no symbolic link is followed: whoever puts one into
the folder, or swaps a folder for one meanwhile, reaches nothing. Functions block; call them in a thread.
"""

import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from homeport.errors import Conflict, InvalidRequest, NotFound, PayloadTooLarge, Unavailable

MAX_PATH_LENGTH = 500
MAX_NAME_BYTES = 255
MAX_DEPTH = 10
MAX_FILE_BYTES = 5 * 1024 * 1024
MAX_FILES = 2000
MAX_BYTES = 256 * 1024 * 1024
# A file is written under such a name first, and then takes the place of the old one. No other may have it.
PART_PREFIX = ".homeport-"
PART_LIFE_S = 3600.0
# Names that stand for devices on Windows, where a folder may be looked at or copied to.
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file: its path within the folder, with slashes."""

    path: str
    size_bytes: int
    modified_at: datetime


class Folder:
    """``base`` is a folder that is there and private; the names below it lead to the folder that is meant, which is made when needed."""

    def __init__(self, base: Path, *names: str) -> None:
        self._base = base
        self._names = names

    def list(self) -> list[FileEntry]:
        """All files in it and below, by path, at most MAX_FILES; whatever is no plain file is left out."""
        with self._open(make=False) as root:
            if root is None:
                return []
            return sorted(_walk(root, "", 0, [MAX_FILES]), key=lambda entry: entry.path)

    def read(self, path: str) -> bytes:
        """The content of a file. Raises InvalidRequest for a path that cannot be one, NotFound, PayloadTooLarge."""
        *folders, name = check_path(path)
        with self._open(make=False) as root, _descend(root, folders, path, make=False) as folder:
            if folder is None:
                raise _not_found(path)
            return _read(folder, name, path)

    def write(self, path: str, content: bytes) -> FileEntry:
        """Write a file, in place of one that is there; it is whole or not there at all. Folders on the way are made.

        Raises InvalidRequest for a path that cannot be one, Conflict where something else stands there, PayloadTooLarge for a file or a
        folder that would be too large.
        """
        *folders, name = check_path(path)
        if len(content) > MAX_FILE_BYTES:
            raise PayloadTooLarge(f"A file has at most {MAX_FILE_BYTES // 1024**2} MB.", code="FILE_TOO_LARGE")
        with self._open(make=True) as root:
            if root is None:
                raise _not_found(path)
            # Of several that write, each would find room.
            fcntl.flock(root, fcntl.LOCK_EX)
            _check_room(root, "/".join((*folders, name)), len(content))
            with _descend(root, folders, path, make=True) as folder:
                if folder is None:
                    raise _not_found(path)
                written = _write(folder, name, path, content)
        return FileEntry("/".join((*folders, name)), written.st_size, _time(written))

    @contextmanager
    def _open(self, *, make: bool) -> Iterator[int | None]:
        """The folder's descriptor; None when it is not there."""
        with _translated("the folder"):
            base = os.open(self._base, _FOLDER)
        try:
            with _descend(base, self._names, "the folder", make=make) as folder:
                yield folder
        finally:
            os.close(base)


def check_path(path: str) -> list[str]:
    """The names in a path that is relative to a folder, such as ``notes/today.md``. Raises InvalidRequest."""
    if len(path) > MAX_PATH_LENGTH:
        raise InvalidRequest(f"A path has at most {MAX_PATH_LENGTH} characters.", code="INVALID_PATH")
    names = path.removeprefix("./").split("/")
    if len(names) > MAX_DEPTH:
        raise InvalidRequest(f"A path has at most {MAX_DEPTH} names.", code="INVALID_PATH")
    for name in names:
        if not _is_name(name):
            raise InvalidRequest(
                f"'{path[:80]}' is no path within the folder: write it like notes/today.md, without a slash at the start or the end, "
                'without .. and without \\ : * ? " < > | in its names.',
                code="INVALID_PATH",
            )
    return names


def _is_name(name: str) -> bool:
    if not name or name in (".", "..") or _FORBIDDEN.search(name) or _RESERVED.fullmatch(name):
        return False
    if name[-1] in ". " or name[0] == " " or name.lower().startswith(PART_PREFIX):
        return False
    try:
        return len(name.encode("utf-8")) <= MAX_NAME_BYTES
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


@contextmanager
def _descend(start: int | None, names: "list[str] | tuple[str, ...]", path: str, *, make: bool) -> Iterator[int | None]:
    """The descriptor of a folder below ``start``; None when it is not there. Raises Conflict where something is no folder."""
    if start is None:
        yield None
        return
    descriptors: list[int] = []
    try:
        current: int | None = start
        for name in names:
            current = _open_folder(current, name, path, make=make)
            if current is None:
                break
            descriptors.append(current)
        yield current
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _open_folder(parent: int | None, name: str, path: str, *, make: bool) -> int | None:
    with _translated(path):
        if make:
            with suppress(FileExistsError):  # opening it tells whether it is a folder
                os.mkdir(name, 0o700, dir_fd=parent)
        try:
            return os.open(name, _FOLDER, dir_fd=parent)
        except FileNotFoundError:
            return None


def _read(folder: int, name: str, path: str) -> bytes:
    with _translated(path):
        # Not blocking: what stands there may be a pipe that nobody writes to.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _no_file(path)
            content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise PayloadTooLarge(f"'{path[:80]}' has more than the {MAX_FILE_BYTES // 1024**2} MB that are read.", code="FILE_TOO_LARGE")
    return content


def _write(folder: int, name: str, path: str, content: bytes) -> os.stat_result:
    part = f"{PART_PREFIX}{secrets.token_hex(8)}"
    with _translated(path):
        with suppress(FileNotFoundError):  # it is new
            if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise _no_file(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(part, flags, 0o600, dir_fd=folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
                written = os.fstat(descriptor)
            os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(part, dir_fd=folder)
            raise
        os.fsync(folder)
    return written


def _check_room(root: int, path: str, size_bytes: int) -> None:
    entries = [entry for entry in _walk(root, "", 0, [MAX_FILES + 1]) if entry.path != path]
    if len(entries) >= MAX_FILES:
        raise PayloadTooLarge(f"The folder holds {MAX_FILES} files already; no more can be added.", code="FOLDER_FULL")
    if sum(entry.size_bytes for entry in entries) + size_bytes > MAX_BYTES:
        raise PayloadTooLarge(f"The folder would hold more than {MAX_BYTES // 1024**2} MB.", code="FOLDER_FULL")


def _walk(folder: int, prefix: str, depth: int, left: list[int]) -> Iterator[FileEntry]:
    """The files below a folder, until none are ``left``. Parts of files that were never finished are removed."""
    with _translated("the folder"), os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if left[0] <= 0:
            return
        if entry.is_dir(follow_symlinks=False):
            if depth < MAX_DEPTH and (below := _open_below(folder, entry.name)) is not None:
                try:
                    yield from _walk(below, f"{prefix}{entry.name}/", depth + 1, left)
                finally:
                    os.close(below)
        elif (found_file := _stat(folder, entry.name)) is not None:
            if entry.name.startswith(PART_PREFIX):
                _remove_old_part(folder, entry.name, found_file)
            elif _is_name(entry.name):
                left[0] -= 1
                yield FileEntry(f"{prefix}{entry.name}", found_file.st_size, _time(found_file))


def _open_below(folder: int, name: str) -> int | None:
    try:
        return os.open(name, _FOLDER, dir_fd=folder) if _is_name(name) else None
    except OSError:
        return None  # it was removed or swapped meanwhile, or cannot be read


def _stat(folder: int, name: str) -> os.stat_result | None:
    """What stands there, if it is a plain file."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _remove_old_part(folder: int, name: str, part: os.stat_result) -> None:
    if time.time() - part.st_mtime > PART_LIFE_S:
        with suppress(FileNotFoundError):  # another process has removed it
            os.unlink(name, dir_fd=folder)


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """What the system says about a path, as an error that may be told."""
    try:
        yield
    except FileNotFoundError as error:
        raise _not_found(path) from error
    except (NotADirectoryError, IsADirectoryError) as error:
        raise _no_file(path) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):  # what a link gives where none is followed
            raise _no_file(path) from error
        reason = "there is no room on the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "the system refuses it"
        raise Unavailable(f"'{path[:80]}' cannot be read or written: {reason}.", code="FILES_UNAVAILABLE") from error


def _time(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(found.st_mtime, UTC)


def _not_found(path: str) -> NotFound:
    return NotFound(f"There is no file '{path[:80]}'. List the files to see what there is.", code="FILE_NOT_FOUND")


def _no_file(path: str) -> Conflict:
    return Conflict(f"'{path[:80]}' leads to a folder, a link or something else that is no plain file.", code="NOT_A_FILE")
