"""Embedded servers of a test's own: watched, killed and restarted from outside."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg

from adapters.postgres import EmbeddedPostgres


def pid_of(data_dir: Path) -> int | None:
    """The process id of the running server."""
    try:
        pid = int((data_dir / "postgres/data/postmaster.pid").read_text(encoding="utf-8").split()[0])
        process = psutil.Process(pid)
        return pid if process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE else None
    except (FileNotFoundError, IndexError, psutil.NoSuchProcess):
        return None


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when ``condition`` holds; fail after 5 seconds."""
    give_up_at = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen within 5 seconds"
        time.sleep(0.01)


def run_sql(url: str, statement: str) -> list[tuple[object, ...]]:
    """What ``statement`` returns, in a transaction of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        result = connection.execute(statement.encode())
        return result.fetchall() if result.description else []


class Restartable:
    """A server that is stopped and started behind the backs of those who use it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._server = EmbeddedPostgres(data_dir)
        self.url = self._server.start()

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server with a signal."""
        pid = pid_of(self._data_dir)
        assert pid is not None
        os.kill(pid, number)
        wait_until(lambda: pid_of(self._data_dir) is None)

    def start(self) -> None:
        """Start it again."""
        again = EmbeddedPostgres(self._data_dir)
        again.start()
        self._server.stop()
        self._server = again

    def leave(self) -> None:
        """Be done with it."""
        self._server.stop()
