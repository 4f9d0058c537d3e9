"""Processes that run Homeport's command line and begin with everything imported.

Importing takes longer than all else that a short command or a server's start does, and the tests need hundreds of them: a process that has
imported everything once forks for each. The servers of `test_cli_serve` and `test_wheel` are started as a person does it.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["homeport.cli", "homeport.home", "homeport.http.app", "homeport.http.serving", "typer._adapters", __name__]
)


class Forked:
    """A running command line, told apart from a ``subprocess.Popen`` by its birth only."""

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str], *, stdin: Path, stdout: Path, stderr: Path) -> None:
        """Begin. The standard streams are files or named pipes; ``stderr`` is written at its end."""
        self.args = arguments
        streams = ((stdin, os.O_RDONLY), (stdout, os.O_WRONLY), (stderr, os.O_WRONLY | os.O_APPEND))
        self._process = _CONTEXT.Process(target=_run, args=(arguments, dict(environment), os.getcwd(), streams))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status; negative: the number of the signal that ended it. None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does."""
        self.send_signal(signal.SIGKILL)


def _run(arguments: tuple[str, ...], environment: dict[str, str], folder: str, streams: tuple[tuple[Path, int], ...]) -> None:
    """Become the command line, in the process that was forked for it."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, (path, flags) in enumerate(streams):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    sys.argv = ["homeport", *arguments]
    from homeport.cli import main

    main()
