"""The log of a program: what it writes, and lines of ours about its starts and ends. Bounded: two files."""

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from uuid import UUID

MAX_BYTES = 1024 * 1024
MAX_LINE_LENGTH = 4000
POLL_S = 0.25


def log_path(log_dir: Path, program_id: UUID) -> Path:
    """Where the log of a program is."""
    return log_dir / f"{program_id}.log"


def old_path(path: Path) -> Path:
    """Where the part of a log is that was written before the present one."""
    return path.with_name(f"{path.name}.1")


class ProcessLog:
    """Appends to the log. Past MAX_BYTES a new file is begun and one old one kept. Several processes may write to the same log.

    What cannot be written is lost: a full disk must not end a program.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._is_line_open = False

    def write(self, data: bytes) -> None:
        """Append what the program wrote, as it came."""
        with suppress(OSError):
            os.write(self._open(), data)
        self._is_line_open = not data.endswith(b"\n")

    def note(self, text: str) -> None:
        """Append a line of ours."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        start = "\n" if self._is_line_open else ""
        self.write(f"{start}--- {stamp} {text}\n".encode(errors="replace"))

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is not None and os.fstat(self._descriptor).st_size >= MAX_BYTES:
            self._turn_over(self._descriptor)
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._descriptor

    def _turn_over(self, descriptor: int) -> None:
        # Another process may have turned it over already, or somebody removed it: then only the new file is to be opened.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                self._path.replace(old_path(self._path))
        self.close()


def remove_log(path: Path) -> None:
    """Delete a log, if there is one."""
    for each in (path, old_path(path)):
        each.unlink(missing_ok=True)


def tail_log(path: Path, lines: int) -> list[str]:
    """The last lines of a log, fit for a terminal: without line ends and control characters; none when there is no log yet."""
    found, file = _read(path, lines)
    if file is not None:
        file.close()
    return found


def follow_log(path: Path, lines: int) -> Iterator[str]:
    """The last lines of a log and then each new one as it comes, also across a new file. Never ends; blocks while nothing comes."""
    found, file = _read(path, lines)
    try:
        yield from found
        while True:
            if file is not None:
                yield from (_clean(line) for line in iter(file.readline, b""))
            time.sleep(POLL_S)
            if file is None or not _is_still_at(path, file):
                newer = _open(path)
                if newer is not None and file is not None:
                    yield from (_clean(line) for line in iter(file.readline, b""))
                    file.close()
                file = newer or file
    finally:
        if file is not None:
            file.close()


def _read(path: Path, lines: int) -> tuple[list[str], BufferedReader | None]:
    """The last lines of a log, and its file, read to its present end."""
    found: deque[str] = deque(maxlen=lines)
    if (old := _open(old_path(path))) is not None:
        with old:
            found.extend(_clean(line) for line in old)
    if (file := _open(path)) is not None:
        found.extend(_clean(line) for line in file)
    return list(found), file


def _open(path: Path) -> BufferedReader | None:
    with suppress(FileNotFoundError):
        return path.open("rb")
    return None


def _is_still_at(path: Path, file: BufferedReader) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _clean(line: bytes) -> str:
    """A line as text: what would steer a terminal, and what is too long, is left out."""
    text = line[:MAX_LINE_LENGTH].decode(errors="replace").rstrip()
    return "".join(character for character in text if character.isprintable() or character == "\t")
