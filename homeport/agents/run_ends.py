"""Runs that are ended from outside: cancelled by somebody, or failed because the process that carried them out is gone.

Whoever carries out a run that was ended finds that its next change of it does not take place; a notification tells it before that.
"""

from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, func, insert, literal, literal_column, select, update
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import notify
from homeport.agents.approvals import Approvals
from homeport.tables import agent_runs, agent_sessions, events

# The ids of runs that were ended from outside, each told in the transaction that does it.
RUNS_CHANNEL = "homeport_agent_runs"
# Written as constants: only then does the planner see that the partial indexes apply.
IS_OPEN = agent_runs.c.state.in_((literal_column("'running'"), literal_column("'waiting'")))

CANCELLED = "RUN_CANCELLED"
INTERRUPTED = "INTERRUPTED"
_MESSAGES = {
    CANCELLED: "The run was cancelled.",
    INTERRUPTED: "The server was interrupted while the agent worked on this. What it had said until then is kept.",
}


class RunEnds:
    """Ends runs, with the approvals that they wait for, in the caller's transaction."""

    def __init__(self, approvals: Approvals) -> None:
        self._approvals = approvals

    async def cancel(self, connection: AsyncConnection, *which: ColumnElement[bool]) -> list[UUID]:
        """Cancel the open runs of these; returns their ids."""
        return await self._end(connection, "cancelled", CANCELLED, which)

    async def fail(self, connection: AsyncConnection, *which: ColumnElement[bool]) -> list[UUID]:
        """Fail the open runs of these as interrupted; returns their ids."""
        return await self._end(connection, "failed", INTERRUPTED, which)

    async def _end(
        self, connection: AsyncConnection, state: Literal["cancelled", "failed"], code: str, which: tuple[ColumnElement[bool], ...]
    ) -> list[UUID]:
        # The session is locked before the run, as everywhere. What another process is just ending or writing is left to it when it would
        # only be failed.
        lock: dict[str, Any] = {"key_share": True, "skip_locked": state == "failed"}
        of_sessions = select(agent_runs.c.session_id).where(IS_OPEN, *which)
        locking = select(agent_sessions.c.id).where(agent_sessions.c.id.in_(of_sessions)).order_by(agent_sessions.c.id)
        session_ids = [*(await connection.execute(locking.with_for_update(**lock))).scalars()]
        if not session_ids:
            return []
        ending = select(agent_runs.c.id).where(IS_OPEN, agent_runs.c.session_id.in_(session_ids), *which).with_for_update(**lock)
        values: dict[str, Any] = {"state": state, "error_code": code, "error": _MESSAGES[code], "finished_at": func.now()}
        returned = (agent_runs.c.id, agent_runs.c.session_id, agent_runs.c.held_until)
        ended = update(agent_runs).where(agent_runs.c.id.in_(ending)).values(values).returning(*returned).cte("ended")
        data = func.json_build_object("session_id", ended.c.session_id, "code", code)
        noted = insert(events).from_select(
            ["kind", "subject", "data"], select(literal(f"agent.run.{state}"), cast(ended.c.id, Text), cast(data, JSON))
        )
        # The session was active for as long as its run was heard of.
        last_heard = func.greatest(agent_sessions.c.last_active_at, func.least(ended.c.held_until, func.now()))
        touched = update(agent_sessions).where(agent_sessions.c.id == ended.c.session_id).values(last_active_at=last_heard)
        statement = select(ended.c.id).add_cte(noted.cte("noted"), touched.cte("touched"))
        ids = [*(await connection.execute(statement)).scalars()]
        for run_id in ids:
            await self._approvals.expire_run(connection, run_id)
            await notify(connection, RUNS_CHANNEL, str(run_id))
        return ids
