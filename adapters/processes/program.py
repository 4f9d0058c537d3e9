"""A program that runs in a session of its own: what it writes goes to its log, and it ends together with all that it has started."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import psutil

from adapters.processes.log import ProcessLog
from adapters.processes.tree import ProcessTree

STDOUT = 1
LAST_WORDS_S = 0.2  # for what it wrote just before it ended
DIE_S = 2.0  # to be gone, after it was killed
# More than this in a second is not read before the second is over: a program that floods its log waits, not the server.
MAX_BYTES_A_SECOND = 1024 * 1024


class NotStarted(Exception):
    """A program could not be started; the message says why, after "because". ``is_lasting``: trying again is of no use."""

    def __init__(self, reason: str, *, is_lasting: bool) -> None:
        super().__init__(reason)
        self.is_lasting = is_lasting


class Program(asyncio.SubprocessProtocol):
    """A program that was started with ``start``. ``pid`` and ``started_at`` (seconds since 1970) tell it from every other process."""

    def __init__(self, log: ProcessLog, echo: Callable[[bytes], object] | None) -> None:
        self._log = log
        self._echo = echo
        self._has_exited = asyncio.Event()
        self._is_quiet = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None
        self._tree: ProcessTree | None = None
        self._second_ends_at = 0.0
        self._bytes_left = MAX_BYTES_A_SECOND
        self.pid = 0
        self.started_at = 0.0

    @classmethod
    async def start(
        cls,
        command: str,
        args: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: ProcessLog,
        echo: Callable[[bytes], object] | None = None,
    ) -> "Program":
        """Start it, without a shell, with this environment and no input. ``echo`` gets what it writes, too. Raises NotStarted."""
        program = cls(log, echo)
        try:
            transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: program,
                command,
                *args,
                env=dict(env),
                cwd=cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError: a zero byte in an argument
            is_lasting = not isinstance(error, BlockingIOError | MemoryError)
            raise NotStarted(why_not_started(error, cwd), is_lasting=is_lasting) from error
        program.pid = transport.get_pid()
        program._tree = ProcessTree(program.pid)
        try:
            program.started_at = psutil.Process(program.pid).create_time()
        except psutil.Error:  # it has ended already
            program.started_at = time.time()
        return program

    @property
    def has_exited(self) -> bool:
        """Whether it has ended."""
        return self._has_exited.is_set()

    @property
    def exit_status(self) -> int | None:
        """Its exit status; minus the number of the signal that ended it. None while it runs."""
        return None if self._transport is None else self._transport.get_returncode()

    async def wait(self) -> None:
        """Return when it has ended and its last words are in the log."""
        await self._has_exited.wait()
        # A child of it may hold its output open for longer.
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._is_quiet.wait()

    async def look(self) -> None:
        """Note what it has started by now: once it has ended, what has left its group cannot be found any more."""
        if self._tree is not None and not self.has_exited:
            await self._tree.look()

    async def end(self) -> None:
        """End it and all that it has started: told to end, then killed. Bounded. To be called also when it has ended by itself."""
        if self._transport is None or self._tree is None:
            return
        await self.look()
        await self._tree.end(self._has_exited)
        try:
            async with asyncio.timeout(DIE_S):
                await self.wait()
        except TimeoutError:
            self._log.note("it cannot be killed")
        self._transport.close()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It has started."""
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """It wrote something."""
        self._log.write(data)
        if self._echo is not None:
            self._echo(data)
        loop = asyncio.get_running_loop()
        if loop.time() >= self._second_ends_at:
            self._second_ends_at, self._bytes_left = loop.time() + 1, MAX_BYTES_A_SECOND
        self._bytes_left -= len(data)
        if self._bytes_left < 0 and (pipe := self._output()) is not None:
            pipe.pause_reading()
            loop.call_at(self._second_ends_at, self._read_on)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """It, and everybody who had its output, has closed it."""
        self._is_quiet.set()

    def process_exited(self) -> None:
        """It has ended."""
        self._has_exited.set()

    def _read_on(self) -> None:
        if (pipe := self._output()) is not None and not pipe.is_closing():
            pipe.resume_reading()

    def _output(self) -> asyncio.ReadTransport | None:
        return cast(asyncio.ReadTransport | None, self._transport.get_pipe_transport(STDOUT)) if self._transport is not None else None


def describe_exit(status: int) -> str:
    """How a program ended, after its name."""
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


def why_not_started(error: OSError | ValueError, cwd: Path) -> str:
    """Why a program could not be started, after "because", for people."""
    if not cwd.is_dir():
        return "its working directory does not exist"
    if isinstance(error, FileNotFoundError):
        return "its command was not found"
    if isinstance(error, PermissionError):
        return "its command may not be executed"
    return "its command cannot be executed"


async def see_through(work: asyncio.Task[None]) -> None:
    """Wait for work that must be done, also when told to end meanwhile: half of it would leave processes behind."""
    was_cancelled = False
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            was_cancelled = True
    if was_cancelled:
        raise asyncio.CancelledError
