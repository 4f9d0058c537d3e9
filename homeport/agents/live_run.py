"""A run that this process carries out, from its first message to its end, in a task of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import structlog

from adapters.postgres import Database
from homeport.agents.approvals import Approvals
from homeport.agents.asking import Asking, Reply, Windows
from homeport.agents.journal import Journal, RunLost
from homeport.agents.loop import Loop, entry_of
from homeport.agents.run_ends import CANCELLED, INTERRUPTED
from homeport.agents.run_rows import Begun, Entry, RunRows
from homeport.agents.run_stream import RunStream
from homeport.agents.steps import Answer, Block, Step, Thought
from homeport.agents.tool_use import ToolUse
from homeport.agents.toolbox import Toolbox
from homeport.errors import AppError, Conflict, InternalError, Unavailable, UpstreamTimeout
from homeport.identity import Principal
from homeport.models import Models
from homeport.tools import Tools

MAX_ERROR = 1000

Why = Literal["left", "closing", "lost"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Means:
    """What runs are carried out with."""

    database: Database
    rows: RunRows
    models: Models
    windows: Windows
    tools: Tools
    approvals: Approvals


class LiveRun:
    """One of them. ``begin`` makes the run, or takes it over; ``question`` is None when it was taken over. ``is_task``: when it is stopped,
    it is left for another process to go on with. ``goes_on``: it does not end because nobody listens."""

    def __init__(
        self,
        means: Means,
        run_id: UUID,
        principal: Principal,
        begin: Callable[[], Awaitable[Begun]],
        question: str | None,
        *,
        is_task: bool = False,
        goes_on: bool = False,
        in_chunks: bool = False,
    ) -> None:
        self.id = run_id
        self.has_begun = False
        self._means = means
        self._principal = principal
        self._begin = begin
        self._question = question
        self._is_task = is_task
        self._goes_on = goes_on
        self._in_chunks = in_chunks
        self._stream = RunStream(run_id, self._leave)
        self._thoughts: list[str] = []
        self._blocks: list[Block] = []
        self._why: Why | None = None
        self._is_stoppable = False
        self._beginning: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._live(), name=f"agent run {run_id}")

    async def start(self) -> RunStream:
        """What it tells, once it has begun. Raises what ``begin`` raises."""
        try:
            await asyncio.shield(self._beginning)
        except asyncio.CancelledError:
            await self.stop("left")
            raise
        return self._stream

    async def stop(self, why: Why) -> None:
        """Stop it, and return when its end is written."""
        self.interrupt(why)
        await asyncio.wait([self.task])

    def interrupt(self, why: Why) -> None:
        """Have it stop, a moment later."""
        if self._why is None:
            self._why = why
            if self._is_stoppable:
                self.task.cancel()

    async def _leave(self) -> None:
        if not self._goes_on:
            await self.stop("left")

    async def _live(self) -> None:
        # Neither the beginning nor the end is ever cut short: it would not be known what is in the database.
        try:
            begun = await self._begin()
        except BaseException as error:  # noqa: BLE001 - whoever waits for the beginning raises it
            self._beginning.set_exception(error)
            self._beginning.exception()
            return
        self.has_begun = True
        self._beginning.set_result(None)
        journal = Journal(self._means.rows, begun, self._principal, begun.agent.limits.time_s)
        try:
            reply = await self._carry_out(journal)
            answer = await self._complete(journal, reply)
        except BaseException as error:  # noqa: BLE001 - the reader of the stream raises what it is told
            self._stream.end(await self._fail(journal, error))
        else:
            self._stream.put(answer)
            self._stream.end()

    async def _carry_out(self, journal: Journal) -> Reply:
        if self._why is not None:
            raise asyncio.CancelledError
        means, agent = self._means, journal.begun.agent
        try:
            self._is_stoppable = True
            async with journal.clock:
                toolbox = await Toolbox.open(means.tools, self._principal, agent)
                asking = Asking(means.models, means.windows, agent, self._principal, self._tell, in_chunks=self._in_chunks)
                tool_use = ToolUse(means.tools, means.approvals, toolbox, journal, self._tell)
                reply = await Loop(means.rows, journal, toolbox, asking, tool_use, self._tell).run(self._question)
        finally:
            self._is_stoppable = False
        if self._why is not None:
            # It was told to stop in the moment in which it was done: the cancellation is still to come.
            await asyncio.sleep(0)
        return reply

    def _tell(self, step: Step) -> None:
        if isinstance(step, Thought):
            self._thoughts.append(step.text)
        elif isinstance(step, Block):
            self._blocks.append(step)
        self._stream.put(step)

    async def _complete(self, journal: Journal, reply: Reply) -> Answer:
        message = {"role": "assistant", "content": reply.text}
        completed = journal.event("run.completed", turns=journal.turns + 1, duration_ms=journal.duration_ms)
        entry = entry_of(journal, reply, messages=[message], events=[completed], state="completed", answers=1)
        count = await journal.write(entry)
        begun = journal.begun
        return Answer(
            begun.id, begun.session_id, reply.text, tuple(self._thoughts), tuple(self._blocks), count, reply.provider, reply.model
        )

    async def _fail(self, journal: Journal, error: BaseException) -> BaseException:
        """Write that the run has ended without an answer; returns what its reader is told."""
        if self._is_task and isinstance(error, asyncio.CancelledError) and self._why != "lost":
            # What the tools have given is not to be lost to whoever goes on with it.
            await journal.settle()
            return await self._release(error)
        told, state = self._judge(journal, error)
        try:
            if isinstance(error, RunLost):
                raise error
            if journal.has_asked:
                async with self._means.database.transaction() as connection:
                    await self._means.approvals.expire_run(connection, self.id)
            ended = journal.event(f"run.{state}", code=told.code, turns=journal.turns, duration_ms=journal.duration_ms)
            message = told.message[:MAX_ERROR].replace("\0", "\N{REPLACEMENT CHARACTER}")
            await journal.write(Entry(events=[ended], state=state, error=message, error_code=told.code, is_quick=True))
        except RunLost:
            return await self._how_it_ended()
        except AppError as reason:
            # Its process is taken for gone a moment later: then another one ends it.
            log.warning("the end of a run could not be written", run_id=str(self.id), reason=reason.message)
        return told

    def _judge(self, journal: Journal, error: BaseException) -> tuple[AppError, Literal["failed", "cancelled"]]:
        if isinstance(error, asyncio.CancelledError):
            return (interrupted(), "failed") if self._why == "closing" else (cancelled(), "cancelled")
        if isinstance(error, AppError):
            return error, "failed"
        if isinstance(error, TimeoutError) and journal.clock.expired():
            limit = journal.begun.agent.limits.time_s
            message = f"The agent was not done within {limit:g} seconds. Ask for less at once, or raise its limit."
            return UpstreamTimeout(message, code="AGENT_TIMEOUT"), "failed"
        if not isinstance(error, RunLost):
            log.error("a run failed inside the server", run_id=str(self.id), exc_info=error)
        return InternalError("Something went wrong inside the server; the log has the details under the id of the run."), "failed"

    async def _release(self, error: BaseException) -> BaseException:
        try:
            await self._means.rows.release(self.id)
        except AppError as reason:
            log.warning("a run could not be released; it is taken over a moment later", run_id=str(self.id), reason=reason.message)
        return interrupted() if self._why == "closing" else error

    async def _how_it_ended(self) -> AppError:
        try:
            state = await self._means.rows.state_of(self.id)
        except AppError as error:
            return error
        return cancelled() if state in {None, "cancelled"} else interrupted()


def cancelled() -> Conflict:
    """Somebody has ended the run."""
    return Conflict("The run was cancelled.", code=CANCELLED)


def interrupted() -> Unavailable:
    """The process that carried out the run has stopped."""
    return Unavailable("The server was interrupted while the agent worked on this. Send the message again.", code=INTERRUPTED)
