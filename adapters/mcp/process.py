"""A server that is a process: its three streams as the library's transport, its death noticed at once, its whole tree ended.

The library's own stdio transport tells neither the process's number nor its death, leaves running what a server has started when the server
itself goes in peace, and reads lines of any length into memory. This one reads and writes in callbacks of the event loop, without tasks.
"""

import asyncio
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

from mcp.client.stdio import get_default_environment

from adapters.mcp.failures import StartFailed
from adapters.mcp.messages import Incoming, Outgoing
from adapters.mcp.spec import StdioTarget
from adapters.processes import ProcessLog, ProcessTree, describe_exit, see_through, why_not_started

STDIN, STDOUT = 0, 1
LEAVE_S = 2.0  # to end by itself, after its input was closed
DIE_S = 2.0  # to be gone, after it was killed
LAST_WORDS_S = 0.2  # for what it wrote just before it ended


class ServerProcess(asyncio.SubprocessProtocol):
    """One server process. ``on_lost`` is called once, when it has ended or closed a stream. ``problem``: how it was lost, once known."""

    def __init__(self, target: StdioTarget, folder: Path, log: ProcessLog, on_lost: Callable[[], None]) -> None:
        self._target = target
        self._folder = folder
        self._log = log
        self._on_lost = on_lost
        self._has_exited = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None
        self.problem: str | None = None
        self._incoming = Incoming(log)
        self._outgoing = Outgoing()

    @property
    def pid(self) -> int | None:
        """The number of the process while it runs."""
        return None if self._transport is None or self._has_exited.is_set() else self._transport.get_pid()

    @property
    def is_lost(self) -> bool:
        """Whether it has ended or closed a stream."""
        return self._has_exited.is_set() or self._incoming.is_at_end

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Incoming, Outgoing]]:
        """Start the program and give its streams; leaving ends it. Raises StartFailed."""
        try:
            await self._start()
            yield self._incoming, self._outgoing
        finally:
            await see_through(asyncio.create_task(self._stop()))

    async def explain(self) -> str | None:
        """How it was lost; None: it was not. Waits a moment for the end of a process that closed a stream."""
        if self.problem is None and self.is_lost:
            await self._wait_for_exit(LAST_WORDS_S)
            self.problem = self.problem or self._describe_exit() or "it closed its standard input or output"
        return self.problem

    async def _start(self) -> None:
        self._log.note(f"starting: {shlex.join([self._target.command, *self._target.args])}")
        cwd = self._target.cwd or self._folder
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: self,
                self._target.command,
                *self._target.args,
                env=get_default_environment() | dict(self._target.env),
                cwd=cwd,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError: a zero byte in an argument
            self._log.note(f"not started: {error}")
            raise StartFailed(why_not_started(error, cwd)) from error
        self._log.note(f"started: process {transport.get_pid()}")

    async def _stop(self) -> None:
        """End it as the protocol says: close its input and wait, then tell it to end, then kill it; and with it all it has started.

        Bounded. Returns when nothing of it runs any more, or what is left cannot be killed.
        """
        if self._transport is None:
            return
        await self.explain()  # before its end is our doing
        tree = ProcessTree(self._transport.get_pid())
        if not self._has_exited.is_set():
            await tree.look()
        self._outgoing.close()
        await self._wait_for_exit(LEAVE_S)
        await tree.end(self._has_exited)
        if not await self._wait_for_exit(DIE_S):
            self._log.note("it cannot be killed")
        self._transport.close()

    async def _wait_for_exit(self, limit_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._has_exited.wait()
        return self._has_exited.is_set()

    def _describe_exit(self) -> str | None:
        status = self._transport.get_returncode() if self._transport is not None else None
        return None if status is None else f"it {describe_exit(status)}"

    def _lose(self) -> None:
        if not self._incoming.is_at_end:
            self._incoming.end()
            self._on_lost()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process has started."""
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self._incoming.open(cast(asyncio.ReadTransport, self._transport.get_pipe_transport(STDOUT)))
        self._outgoing.open(cast(asyncio.WriteTransport, self._transport.get_pipe_transport(STDIN)))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """It wrote something."""
        if fd == STDOUT:
            self._incoming.feed(data)
        else:
            self._log.write(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """A stream was closed. Standard error may be: some servers never write to it."""
        if fd == STDIN:
            self._outgoing.close()
        if fd in (STDIN, STDOUT):
            self._lose()

    def process_exited(self) -> None:
        """It has ended. What it wrote last may still be on its way, and its output stays open as long as a child of it holds it."""
        self._has_exited.set()
        self._outgoing.close()
        self._log.note(self._describe_exit() or "it has ended")
        asyncio.get_running_loop().call_later(LAST_WORDS_S, self._lose)

    def pause_writing(self) -> None:
        """Its input is full."""
        self._outgoing.pause()

    def resume_writing(self) -> None:
        """Its input has room again."""
        self._outgoing.resume()
