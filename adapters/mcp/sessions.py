"""The sessions with all MCP servers: each started by whoever needs it first, shared by all, ended when nobody does."""

import asyncio
import importlib
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from adapters.mcp.failures import NotSent, StartFailed, cannot_start, has_stopped, server_failed, too_slow
from adapters.mcp.limit import Limit
from adapters.mcp.spec import ServerSpec, SessionStatus
from adapters.mcp.tools import McpTool, ProgressCallback, ToolOutput
from adapters.outbound import Outbound
from adapters.processes import ProcessLog, log_path, remove_log

if TYPE_CHECKING:
    from adapters.mcp.session import Session

START_TIMEOUT_S = 20.0
IDLE_S = 600.0
MIN_BACK_OFF_S, MAX_BACK_OFF_S = 1.0, 60.0
MAX_LOOK_S = 30.0
ATTEMPTS = 2

Result = TypeVar("Result")


@dataclass(slots=True)
class _Place:
    """What is known of one server: its session, whether it speaks the older protocol, how its starts have failed one after the other."""

    session: "Session | None" = None
    is_old: bool = False
    failures: int = 0
    retry_at: float = 0.0
    error: str | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))


class McpSessions:
    """Sessions with MCP servers, by the id of the server.

    ``log_dir`` gets the log of each server and a folder for each to run in. ``idle_s``: seconds without a call after which ``run``
    ends a session. Times in seconds.
    """

    def __init__(self, log_dir: Path, outbound: Outbound, *, start_timeout_s: float = START_TIMEOUT_S, idle_s: float = IDLE_S) -> None:
        self._log_dir = log_dir
        self._outbound = outbound
        self._start_timeout_s = start_timeout_s
        self._idle_s = idle_s
        self._places: dict[UUID, _Place] = {}
        self._sessions: set[Session] = set()
        self._nothing = _Place()
        self._is_loaded = False
        self._is_closed = False

    async def list_tools(self, spec: ServerSpec, *, is_fresh: bool = False) -> list[McpTool]:
        """The tools of a server in the order of their names, at most 1000. Starts it when it does not run.

        The list is kept until the server says that it has changed, and for 30 s to 5 minutes when it says nothing: pass ``is_fresh``
        when a tool is missing. Raises Unavailable (MCP_SERVER_UNAVAILABLE), UpstreamTimeout (MCP_TIMEOUT), UpstreamError
        (MCP_SERVER_FAILED, MCP_RESULT_TOO_LARGE, MCP_ERROR).
        """

        async def read(session: "Session", _limit: Limit) -> list[McpTool]:
            return await session.list_tools(is_fresh=is_fresh)

        return await self._use(spec, spec.timeout_s, read)

    async def call(
        self,
        spec: ServerSpec,
        tool: str,
        arguments: dict[str, Any],
        *,
        timeout_s: float | None = None,
        limit_s: float | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> ToolOutput:
        """Call a tool. Starts the server when it does not run. Cancelling the await cancels the call on the server, too.

        ``timeout_s`` (else the server's own) is how long there may be no sign of progress; with progress ``limit_s``, else ten times
        that, or 10 minutes, is the end. A result with ``is_error`` is a result. The arguments are sent as they are: check them against the
        schema first. Raises what ``list_tools`` raises, and InvalidRequest when the server itself refuses the tool or its arguments.
        """

        async def execute(session: "Session", limit: Limit) -> ToolOutput:
            async def note(progress: float, total: float | None, message: str | None) -> None:
                limit.renew()
                if on_progress is not None:
                    await on_progress(progress, total, message)

            return await session.call(tool, arguments, note)

        return await self._use(spec, spec.timeout_s if timeout_s is None else timeout_s, execute, limit_s=limit_s)

    def status(self, server_id: UUID) -> SessionStatus:
        """What a server does now. It is ``stopped`` when nobody has asked for it yet; the next call starts it."""
        place = self._places.get(server_id, self._nothing)
        session = place.session
        if session is not None and session.is_usable:
            return SessionStatus("starting" if session.is_starting else "running", session.since, pid=session.pid)
        if session is not None:
            return SessionStatus("stopped", session.since, session.failure)
        is_backing_off = time.monotonic() < place.retry_at
        return SessionStatus("backing off" if is_backing_off else "stopped", place.since, place.error)

    async def stop(self, server_id: UUID) -> None:
        """End the session with a server, if there is one, and forget its failures: the next call starts it at once.

        Calls that run fail. Returns within some seconds, when nothing of the server runs any more.
        """
        self._places.pop(server_id, None)
        await asyncio.gather(*(session.stop() for session in self._running() if session.spec.id == server_id))

    async def remove(self, server_id: UUID) -> None:
        """End the session with a server and delete its log and its folder."""
        await self.stop(server_id)
        remove_log(log_path(self._log_dir, server_id))
        await asyncio.to_thread(shutil.rmtree, self._folder(server_id), ignore_errors=True)

    async def run(self) -> None:
        """End sessions that nobody has used for ``idle_s`` seconds. Background work; never ends by itself."""
        while True:
            await asyncio.sleep(min(self._idle_s / 4, MAX_LOOK_S))
            idle_since = time.monotonic() - self._idle_s
            idle = [each for each in self._running() if each.is_idle_since(idle_since)]
            await asyncio.gather(*(session.stop() for session in idle))

    async def close(self) -> None:
        """End all sessions, at once. Nothing can be started any more."""
        self._is_closed = True
        await asyncio.gather(*(session.stop() for session in self._running()))

    async def _use(
        self,
        spec: ServerSpec,
        timeout_s: float,
        work: Callable[["Session", Limit], Awaitable[Result]],
        *,
        limit_s: float | None = None,
    ) -> Result:
        """Do something with a started session, within the limit. Done again when it certainly did not reach the server."""
        session = None
        try:
            async with Limit(timeout_s, limit_s) as limit:
                for _ in range(ATTEMPTS):
                    session = await self._start(spec)
                    with suppress(NotSent):
                        return await work(session, limit)
        except TimeoutError as error:
            if session is not None:
                session.suspect()
            raise too_slow(spec.name, timeout_s) from error
        raise server_failed(spec.name, "its session ended before the call was sent")

    async def _start(self, spec: ServerSpec) -> "Session":
        """The session with a server, started. Raises Unavailable."""
        await self._load_library()
        place = self._places.setdefault(spec.id, _Place())
        if place.session is not None and place.session.spec.revision != spec.revision:
            await self.stop(spec.id)
            place = self._places.setdefault(spec.id, _Place())
        session = place.session
        if session is None or not session.is_usable:
            session = self._open(spec, place)
        try:
            await session.wait_until_started()
        except StartFailed as error:
            if session.is_stopping:
                raise has_stopped(spec.name) from error
            self._note_failure(place, session, str(error))
            raise cannot_start(spec.name, str(error), place.retry_at - time.monotonic()) from error
        place.is_old = session.is_old
        return session

    def _open(self, spec: ServerSpec, place: _Place) -> "Session":
        from adapters.mcp.session import Session

        if self._is_closed:
            raise has_stopped(spec.name)
        if place.session is not None and place.session.has_answered:
            place.failures = 0
        elif place.session is not None and not place.session.is_stopping:
            self._note_failure(place, place.session, place.session.failure or "it ended right after its start")
        if (wait_s := place.retry_at - time.monotonic()) > 0:
            raise cannot_start(spec.name, place.error or "it failed", wait_s)
        self._sessions = set(self._running())
        server_log = ProcessLog(log_path(self._log_dir, spec.id))
        session = Session(
            spec, self._folder(spec.id), server_log, self._outbound, start_timeout_s=self._start_timeout_s, is_old=place.is_old
        )
        self._sessions.add(session)
        place.session = session
        return session

    def _note_failure(self, place: _Place, session: "Session", reason: str) -> None:
        """Count a start that failed, once, and leave the server alone for longer each time."""
        if place.session is not session:
            return  # another caller that waited for the same start has
        place.session = None
        place.is_old = False
        place.failures += 1
        place.error = reason
        place.since = datetime.now(UTC)
        delay_s = MIN_BACK_OFF_S * 2 ** min(place.failures - 1, 10) * random.uniform(1.0, 1.5)  # noqa: S311 - no secret
        place.retry_at = time.monotonic() + min(delay_s, MAX_BACK_OFF_S)

    def _running(self) -> "list[Session]":
        return [session for session in self._sessions if not session.is_over]

    def _folder(self, server_id: UUID) -> Path:
        return self._log_dir / str(server_id)

    async def _load_library(self) -> None:
        """Import the library, once, in a thread: it takes as long as hundreds of requests."""
        if not self._is_loaded:
            await asyncio.to_thread(importlib.import_module, "adapters.mcp.session")
            self._is_loaded = True
