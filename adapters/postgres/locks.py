"""Locks between processes, on files. The kernel drops them when their process ends, however it ends; no process id is trusted."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.02


class LockTimeoutError(Exception):
    """Another process has held the lock for longer than the caller wanted to wait."""


def _open(path: Path) -> int:
    # Python's descriptors are not inherited by programs that are started, so the server never keeps a holder's lock alive.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _try_lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


@contextmanager
def exclusive(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold ``path`` alone. Raises LockTimeoutError after ``timeout_s`` seconds."""
    descriptor = _open(path)
    try:
        deadline = time.monotonic() + timeout_s
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise LockTimeoutError(str(path))
            time.sleep(POLL_S)
        yield
    finally:
        os.close(descriptor)


class Holders:
    """The processes that need something to stay alive. Each keeps a shared lock; one that is killed drops out by itself.

    A process that is forked while it holds counts as a holder until it ends.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def has_joined(self) -> bool:
        """Whether this object holds."""
        return self._descriptor is not None

    def join(self) -> None:
        """Become a holder."""
        descriptor = _open(self._path)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        self._descriptor = descriptor

    def leave(self) -> bool:
        """Stop holding; True when nobody is left. Callers exclude each other with ``exclusive``."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        descriptor = _open(self._path)
        try:
            return _try_lock(descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)
