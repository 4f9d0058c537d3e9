"""Runs: what agents do to answer messages. This is the one way to have an agent answer; whose it is and how it is told is up to the caller.

A run is carried out by one process, and what it has come to is in the database at every moment, but for the last results of tools, which
are written while the model is asked with them. A process says every few seconds which runs are still carried out; a run that is not heard
of for longer has lost its process. Then it fails, or when it is done for a task, the next attempt at that task goes on with it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID

import structlog
from psycopg.errors import UniqueViolation
from sqlalchemy import func

from adapters.postgres import Database, Notifications
from homeport.agents.approvals import Approvals
from homeport.agents.asking import Windows
from homeport.agents.live_run import LiveRun, Means, cancelled, interrupted
from homeport.agents.run_ends import RUNS_CHANNEL, RunEnds
from homeport.agents.run_rows import Begun, Past, RunRows
from homeport.agents.run_stream import RunStream
from homeport.agents.sessions import not_found
from homeport.agents.steps import Answer
from homeport.agents.stored_runs import Message, Run, StoredRuns
from homeport.errors import AppError, Conflict
from homeport.identity import Principal
from homeport.ids import parse_uuid, uuid7
from homeport.models import Models
from homeport.paging import Page
from homeport.tables import agent_runs, tasks
from homeport.tools import Tools

OPEN_STATES = ("running", "waiting")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. A run is its process's for ``hold`` after it was last heard of, which is every ``keep``; ``look`` lies between two looks at
    a run that another process still holds."""

    keep: float = 5.0
    hold: float = 15.0
    look: float = 0.25


class Runs:
    """Begins runs, carries them out, and looks after those of this process. Run ``run_keeper()`` in the background."""

    def __init__(
        self,
        database: Database,
        notifications: Notifications,
        models: Models,
        tools: Tools,
        approvals: Approvals,
        ends: RunEnds,
        *,
        timing: Timing | None = None,
    ) -> None:
        self._timing = timing or Timing()
        self._database = database
        self._stored = StoredRuns(database)
        self._ends = ends
        self._rows = RunRows(database, timedelta(seconds=self._timing.hold))
        self._means = Means(database, self._rows, models, Windows(models), tools, approvals)
        self._live: dict[UUID, LiveRun] = {}
        self._is_closed = False
        notifications.subscribe(RUNS_CHANNEL, self._hear)

    async def answer(self, principal: Principal, session_id: str, message: str) -> Answer:
        """Have the agent of a session answer a message. Cancelled, it cancels the run.

        Raises NotFound (SESSION_NOT_FOUND), Conflict (SESSION_BUSY, RUN_CANCELLED), UpstreamTimeout (AGENT_TIMEOUT), UpstreamError
        (AGENT_TOKEN_LIMIT), Unavailable (INTERRUPTED), and what the models raise.
        """
        stream = await self.stream(principal, session_id, message)
        try:
            return await stream.answer()
        finally:
            await stream.aclose()

    async def stream(
        self, principal: Principal, session_id: str, message: str, *, goes_on: bool = False, in_chunks: bool = False
    ) -> RunStream:
        """The same step by step, with ``in_chunks`` also the pieces of what the model says. NotFound and SESSION_BUSY are raised here, the
        others by the stream. Closing it cancels the run, unless it ``goes_on``."""
        if (parsed := parse_uuid(session_id)) is None:
            raise not_found()
        run_id = uuid7()
        begin = partial(self._begin, run_id, principal, parsed, message, None)
        return await self._start(run_id, principal, begin, message, goes_on=goes_on, in_chunks=in_chunks)

    async def carry_out(self, principal: Principal, session_id: UUID, message: str, *, task_id: UUID) -> Answer:
        """Have the agent of a session answer a message for a task, once: what an earlier attempt has done is returned, what one has left
        behind is gone on with. Cancelled, it leaves the run to the next attempt.

        Raises as ``answer`` does, and Conflict (RUN_CANCELLED) when the run of an earlier attempt was cancelled.
        """
        past = await self._rows.last_of_task(principal, session_id, task_id)
        while past is not None and past.state in OPEN_STATES and not past.is_free:
            await asyncio.sleep(self._timing.look)
            past = await self._rows.last_of_task(principal, session_id, task_id)
        if past is not None and past.state == "cancelled":
            raise cancelled()
        if past is not None and past.state == "completed":
            return await self._past_answer(past, session_id)
        if past is not None and past.state in OPEN_STATES:
            run_id, question = past.id, None
            begin: Callable[[], Awaitable[Begun]] = partial(self._take_over, past, session_id)
        else:
            run_id, question = uuid7(), message
            begin = partial(self._begin, run_id, principal, session_id, message, task_id)
        stream = await self._start(run_id, principal, begin, question, is_task=True)
        try:
            return await stream.answer()
        finally:
            await stream.aclose()

    async def list(
        self,
        *,
        state: str | None = None,
        session_id: str | None = None,
        agent: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Run]:
        """Runs of everybody, newest first; only those in a state, of a session, or of an agent (a slug)."""
        return await self._stored.list(state=state, session_id=session_id, agent=agent, limit=limit, cursor=cursor)

    async def get(self, run_id: str) -> Run:
        """One run. Raises NotFound (RUN_NOT_FOUND)."""
        return await self._stored.get(run_id)

    async def messages(self, run_id: str) -> Sequence[Message]:
        """What was said in a run, in order. Raises NotFound (RUN_NOT_FOUND)."""
        return await self._stored.messages(run_id)

    async def cancel(self, run_id: str) -> Run:
        """Cancel a run, in whatever process it is carried out, and return it; one that is over is returned as it is. Raises NotFound."""
        run = await self._stored.get(run_id)
        async with self._database.transaction() as connection:
            await self._ends.cancel(connection, agent_runs.c.id == run.id)
        return await self._stored.get(run_id)

    async def run_keeper(self) -> None:
        """Until cancelled, say which runs are carried out here, and fail those that have lost their process."""
        while True:
            try:
                await self.keep()
                await self.fail_orphans()
            except AppError as error:
                log.warning("runs could not be looked after; trying again", reason=error.message)
            await asyncio.sleep(self._timing.keep)

    async def keep(self) -> None:
        """Say that the runs of this process are carried out, and stop those that are not its own any more. Raises Unavailable."""
        asked = {run_id: run for run_id, run in self._live.items() if run.has_begun}
        if not asked:
            return
        kept = await self._rows.keep([*asked])
        for run_id, run in asked.items():
            if run_id not in kept:
                run.interrupt("lost")

    async def fail_orphans(self) -> None:
        """Fail the runs that have lost their process, unless a task goes on with them. Raises Unavailable."""
        is_wanted = tasks.c.status.in_(("pending", "claimed", "processing"))
        has_task = tasks.select().where(tasks.c.id == agent_runs.c.task_id, is_wanted).exists()
        async with self._database.transaction() as connection:
            # Those of this process have not lost theirs, whatever the clock says: it may have jumped.
            is_elsewhere = agent_runs.c.id.not_in([*self._live])
            failed = await self._ends.fail(connection, agent_runs.c.held_until < func.now(), ~has_task, is_elsewhere)
        if failed:
            log.warning("runs were interrupted", run_ids=[str(run_id) for run_id in failed])

    async def close(self) -> None:
        """Stop every run of this process: it fails as interrupted, but for those of tasks, which another process can go on with at once."""
        self._is_closed = True
        await asyncio.gather(*(run.stop("closing") for run in [*self._live.values()]))

    async def _start(
        self,
        run_id: UUID,
        principal: Principal,
        begin: Callable[[], Awaitable[Begun]],
        question: str | None,
        *,
        is_task: bool = False,
        goes_on: bool = False,
        in_chunks: bool = False,
    ) -> RunStream:
        if self._is_closed:
            raise interrupted()
        run = LiveRun(self._means, run_id, principal, begin, question, is_task=is_task, goes_on=goes_on, in_chunks=in_chunks)
        self._live[run_id] = run
        run.task.add_done_callback(lambda _task: self._live.pop(run_id, None))
        return await run.start()

    async def _begin(self, run_id: UUID, principal: Principal, session_id: UUID, message: str, task_id: UUID | None) -> Begun:
        try:
            begun = await self._try_to_begin(run_id, principal, session_id, message, task_id)
        except UniqueViolation:
            # What has lost its process does not stand in the way of the next message.
            async with self._database.transaction() as connection:
                is_orphan = (agent_runs.c.session_id == session_id, agent_runs.c.held_until < func.now(), agent_runs.c.task_id.is_(None))
                await self._ends.fail(connection, *is_orphan)
            try:
                begun = await self._try_to_begin(run_id, principal, session_id, message, task_id)
            except UniqueViolation as error:
                raise Conflict(
                    "The agent is still working on the message before. Wait for its answer, or cancel it, and send this one again.",
                    code="SESSION_BUSY",
                ) from error
        return begun

    async def _try_to_begin(self, run_id: UUID, principal: Principal, session_id: UUID, message: str, task_id: UUID | None) -> Begun:
        begun = await self._rows.begin(run_id, principal, session_id, message, task_id)
        if begun is None:
            raise not_found()
        return begun

    async def _take_over(self, past: Past, session_id: UUID) -> Begun:
        if (begun := await self._rows.take_over(past, session_id)) is None:
            raise interrupted()
        log.info("an interrupted run goes on", run_id=str(past.id))
        return begun

    async def _past_answer(self, past: Past, session_id: UUID) -> Answer:
        run = await self._stored.get(str(past.id))
        said = [message for message in await self._stored.messages(str(past.id)) if message.role == "assistant"]
        count = await self._stored.message_count(session_id)
        return Answer(run.id, session_id, said[-1].content["content"], (), (), count, run.provider or "", run.model or "")

    def _hear(self, payload: str) -> None:
        run_id = parse_uuid(payload)
        if run_id is not None and (run := self._live.get(run_id)) is not None:
            run.interrupt("lost")
