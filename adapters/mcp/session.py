"""One session with one server. A task of its own enters and leaves the library's client; requests only call methods on it.

This module imports the ``mcp`` library: import it lazily.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog
from mcp import Client, MCPError
from mcp.client import IncomingMessage
from mcp.shared.dispatcher import ProgressFnT
from mcp.types import CONNECTION_CLOSED, INVALID_PARAMS, Implementation, ToolListChangedNotification
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic import ValidationError

from adapters.mcp.failures import (
    LOST,
    NOT_SENT,
    TOO_LARGE,
    NotSent,
    StartFailed,
    bad_answer,
    clean,
    find_cause,
    refused_arguments,
    server_failed,
    too_large,
)
from adapters.mcp.process import ServerProcess
from adapters.mcp.remote import Remote
from adapters.mcp.spec import HttpTarget, ServerSpec, StdioTarget
from adapters.mcp.tool_cache import ToolCache
from adapters.mcp.tools import McpTool, ToolOutput, to_output
from adapters.outbound import Outbound
from adapters.processes import ProcessLog

# The library tells of each step and failure, with traces and with what servers sent; what matters is told from here.
for _name in ("mcp.client", "mcp.shared", "client", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

# Beyond the time for a call: a server that works on one thing at a time may be slow to say that it is there.
PATIENCE_S = 10.0
# How the library begins to say that a connection over HTTP has ended.
LOST_WORDS = ("Connection closed", "SSE stream")
CLIENT = Implementation(name="homeport", version=version("homeport"))

log = structlog.get_logger(__name__)


class Session:
    """A session from its start to its end; it is not started again.

    ``is_old``: the server speaks the protocol of 2025 or before. Given True, it is not asked for a newer one first, which some take long
    to refuse. ``since`` is when its state last changed. ``failure`` says why it did not start or how it was lost, in safe words; None:
    neither. ``has_answered``: the server was of use.
    """

    def __init__(
        self,
        spec: ServerSpec,
        folder: Path,
        server_log: ProcessLog,
        outbound: Outbound,
        *,
        start_timeout_s: float,
        is_old: bool = False,
    ) -> None:
        self.spec = spec
        self.is_old = is_old or (isinstance(spec.target, HttpTarget) and spec.target.transport == "sse")
        self.since = datetime.now(UTC)
        self.failure: str | None = None
        self.has_answered = False
        self.is_over = False
        self.is_stopping = False
        self.active_calls = 0
        self.used_at = time.monotonic()
        self._log = server_log
        self._start_timeout_s = start_timeout_s
        self._client: Client | None = None
        self._tools = ToolCache()
        self._is_decided = asyncio.Event()
        self._end = asyncio.Event()
        self._is_retired = False
        self._abort: asyncio.Timeout | None = None
        self._check: asyncio.Task[None] | None = None
        self._is_remote = isinstance(spec.target, HttpTarget)
        self._link: ServerProcess | Remote
        if isinstance(spec.target, StdioTarget):
            self._link = ServerProcess(spec.target, folder, server_log, self._end.set)
        else:
            self._link = Remote(spec.target, server_log, outbound, self._end.set if spec.target.transport == "sse" else self.retire)
        # In a context of its own: it works for other requests, too, and what it logs is not this one's.
        self._owner = asyncio.create_task(self._own(), context=Context())

    @property
    def is_starting(self) -> bool:
        """Whether it is not decided yet if it starts."""
        return not self._is_decided.is_set()

    @property
    def is_usable(self) -> bool:
        """Whether a call may begin, now or when it has started."""
        return not (self.is_over or self._is_retired or self._end.is_set() or self._link.is_lost)

    @property
    def pid(self) -> int | None:
        """The server's process while it runs here."""
        return self._link.pid

    def is_idle_since(self, moment: float) -> bool:
        """Whether nobody has used it since this moment of the monotonic clock."""
        return not self.is_starting and self.active_calls == 0 and self.used_at < moment

    async def wait_until_started(self) -> None:
        """Return when it has started. Raises StartFailed; bounded by the time that a start may take."""
        await self._is_decided.wait()
        if self._client is None:
            raise StartFailed(self.failure or "it is being stopped")

    async def list_tools(self, *, is_fresh: bool = False) -> list[McpTool]:
        """The server's tools. Raises AppError, and NotSent when the server has certainly not got the request."""
        async with self._using() as client:
            return await self._tools.read(client, self._log, is_fresh=is_fresh)

    async def call(self, tool: str, arguments: dict[str, Any], on_progress: ProgressFnT) -> ToolOutput:
        """Call a tool. Raises AppError, and NotSent when the server has certainly not got the call."""
        async with self._using() as client:
            if not self._tools.is_known:
                # The library checks a result against the schema of its tool. It would list the tools after the call, when that is all
                # that is missing, and lose the result if this fails.
                await self._tools.read(client, self._log)
                self.has_answered = True
            return to_output(await client.call_tool(tool, arguments, progress_callback=on_progress))

    def suspect(self) -> None:
        """A call got no answer in time. Find out, beside all else, whether the server answers at all, and end the session if not."""
        if self._client is not None and (self._check is None or self._check.done()):
            self._check = asyncio.create_task(self._find_out(self._client), context=Context())

    async def _find_out(self, client: Client) -> None:
        try:
            # An error is an answer, too; and that the session has ended is noticed elsewhere.
            async with asyncio.timeout(max(self.spec.timeout_s, PATIENCE_S)):
                with suppress(MCPError, ValidationError):
                    await client.list_tools()
        except TimeoutError:
            self.failure = "it does not answer any more"
            self._end.set()

    def retire(self) -> None:
        """Begin no more calls; end when those that run are done."""
        self._is_retired = True
        if self.active_calls == 0:
            self._end.set()

    async def stop(self) -> None:
        """End it now, and the server with it; calls that run fail. Bounded, and returns when it is over."""
        self.is_stopping = True
        self._end.set()
        self._give_up("it is being stopped")
        await asyncio.wait([self._owner])

    # The owner.

    async def _own(self) -> None:
        reason = f"it did not answer within {self._start_timeout_s:g} s"
        timer = asyncio.get_running_loop().call_later(self._start_timeout_s, self._give_up, reason)
        mode = "legacy" if self.is_old else "auto"
        client = Client(self._link.open(), mode=mode, cache=None, client_info=CLIENT, message_handler=self._hear)
        try:
            if not self._end.is_set():
                async with asyncio.timeout(None) as self._abort, client:
                    timer.cancel()
                    self._note_start(client)
                    await self._stay(client)
        except Exception as error:  # noqa: BLE001 - the library raises what it pleases, in groups, too; a session ends in good order
            self._abort = None
            self.failure = self.failure or await self._explain(find_cause(error))
        finally:
            if self.failure and not self.is_stopping:
                log.warning("an MCP server failed", server=self.spec.name, reason=self.failure)
            timer.cancel()
            self._client = None
            self.is_over = True
            self.since = datetime.now(UTC)
            self._is_decided.set()
            self._log.note(f"over: {self.failure}" if self.failure else "over")
            self._log.close()

    def _note_start(self, client: Client) -> None:
        self._client = client
        self.is_old = client.protocol_version in HANDSHAKE_PROTOCOL_VERSIONS
        self.since = datetime.now(UTC)
        self.used_at = time.monotonic()
        self._is_decided.set()

    async def _stay(self, client: Client) -> None:
        """Until the end, however it comes about."""
        watcher = asyncio.create_task(self._tools.watch(client))
        try:
            await self._end.wait()
        finally:
            helpers = [task for task in (watcher, self._check) if task is not None]
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        if not self.is_stopping:
            self.failure = self.failure or await self._link.explain()

    def _give_up(self, reason: str) -> None:
        """Do not wait any longer for it to start."""
        if self.is_starting:
            self.failure = self._link.problem or reason
            self._is_decided.set()
            if self._abort is not None:
                self._abort.reschedule(0)

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._tools.forget()

    # Calls.

    @asynccontextmanager
    async def _using(self) -> AsyncIterator[Client]:
        """Count a call, and put what it raises into words."""
        client = self._client
        if client is None or not self.is_usable:
            raise NotSent
        self.active_calls += 1
        try:
            yield client
            self.has_answered = True
        except Exception as error:  # the library raises classes of its own and of others; each call ends with an error of ours
            raise await self._translate(error) from error
        finally:
            self.active_calls -= 1
            self.used_at = time.monotonic()
            if self._is_retired and self.active_calls == 0:
                self._end.set()

    async def _translate(self, error: Exception) -> Exception:
        name = self.spec.name
        code, words = (error.code, error.message) if isinstance(error, MCPError) else (0, str(error))
        if code == NOT_SENT:
            return NotSent()
        if code == TOO_LARGE or str(TOO_LARGE) in words or words.startswith("SSE stream failed: Server-sent event exceeded"):
            return too_large(name)
        if code == LOST or str(LOST) in words or (code == CONNECTION_CLOSED and self._is_remote and words.startswith(LOST_WORDS)):
            self.retire()
            return server_failed(name, await self._link.explain() or "the connection to it broke")
        if not self.is_usable:
            return server_failed(name, "it was stopped" if self.is_stopping else await self._link.explain() or "its session ended")
        self.has_answered = True
        if code == INVALID_PARAMS:
            return refused_arguments(name, words)
        if isinstance(error, ValidationError):
            return bad_answer(name, "the answer is not as the protocol wants it")
        return bad_answer(name, words)

    async def _explain(self, error: BaseException) -> str:
        """Why it did not start."""
        if isinstance(error, StartFailed):
            return str(error)
        if (reason := await self._link.explain()) is not None:
            return reason
        return f"it answered with an error: {clean(error.message)}" if isinstance(error, MCPError) else "it does not speak MCP as expected"
