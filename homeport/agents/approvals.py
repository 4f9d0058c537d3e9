"""Approvals: questions of agents to people, each about one call of a tool that nobody has allowed yet.

A question is a row: it outlives the process that asked, and is answered from any other one. An answer is in force at once, because it is
told; and a moment later where that was not heard, because whoever waits looks again.
"""

import asyncio
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

import structlog
from sqlalchemy import RowMapping, Text, cast, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import Database, Notifications, notify
from homeport.agents import stored_approvals as storage
from homeport.agents.stored_approvals import Approval, ApprovalState, Decision
from homeport.errors import AppError, Conflict, InvalidRequest, NotFound
from homeport.events import Events
from homeport.identity import IDENTITY_CHANNEL, Principal
from homeport.ids import parse_uuid
from homeport.paging import Page, fetch_page
from homeport.permissions import Permissions
from homeport.tables import agent_runs, approvals
from homeport.waiters import Waiters, wait_for_change

# The ids of questions that were answered, each told in the transaction that does it.
APPROVALS_CHANNEL = "homeport_approvals"
REQUESTED = "agent.approval.requested"
DECIDED = "agent.approval.decided"
SWEEP_INTERVAL_S = 30.0

_ID_START = re.compile(r"[0-9a-f-]{1,36}")

Outcome = Literal["granted", "denied", "expired"]

log = structlog.get_logger(__name__)


class Approvals:
    """Asks, waits and decides; in any process, and whatever becomes of the one that asked.

    ``recheck_s`` is how often a wait looks at the database although no notification came.
    """

    def __init__(
        self,
        database: Database,
        notifications: Notifications,
        permissions: Permissions,
        events: Events,
        *,
        recheck_s: float = 5.0,
    ) -> None:
        self._database = database
        self._permissions = permissions
        self._events = events
        self._recheck_s = recheck_s
        self._waiters = Waiters()
        notifications.subscribe(APPROVALS_CHANNEL, lambda payload: self._waiters.wake(parse_uuid(payload)))
        notifications.subscribe(IDENTITY_CHANNEL, lambda payload: self._waiters.wake(parse_uuid(payload.removeprefix("app:"))))
        notifications.on_gap(self._waiters.wake_all)

    async def ask(
        self,
        *,
        run_id: UUID,
        principal: Principal,
        agent: str,
        server: str,
        tool: str,
        call_id: str,
        arguments: Mapping[str, Any],
        permission: str,
        wait_s: float,
    ) -> Approval:
        """Put a question to people, which can be answered for ``wait_s`` seconds; the same one again when it was put before.

        Where the server's policy grants permissions without a person, it does so now. Raises Conflict (RUN_ENDED) for a run that is over.
        """
        app_id = principal.id if principal.kind == "app" else None
        if app_id is not None:
            await self._permissions.grant_by_policy(app_id, permission)
        values = {
            "id": uuid4(),
            "run_id": run_id,
            "owner_id": principal.owner_id,
            "app_id": app_id,
            "agent": agent,
            "server": server,
            "tool": tool,
            "tool_call_id": call_id,
            "arguments": dict(arguments),
            "permission": permission,
            "expires_at": func.now() + timedelta(seconds=wait_s),
        }
        async with self._database.transaction() as connection:
            await _hold_open(connection, run_id)
            added = await connection.execute(insert(approvals).values(values).on_conflict_do_nothing().returning(approvals.c.id))
            is_new = added.first() is not None
            asked = await storage.read_one(connection, approvals.c.run_id == run_id, approvals.c.tool_call_id == call_id)
            if asked is None:
                raise NotFound("Approval not found")
            if is_new:
                data = {"by": principal.label} | _told(values)
                await self._events.record(REQUESTED, principal=principal, subject=str(run_id), data=data, connection=connection)
        if is_new:
            log.info("approval requested", agent=agent, server=server, tool=tool, decide_with=f"homeport approvals grant {asked.id}")
        return asked

    async def wait(self, approval: Approval) -> Outcome:
        """The answer to a question, which may also be that the app was granted or denied the permission meanwhile. It comes at the latest
        a moment after the question has expired, and no later when the clock is turned back meanwhile. Raises Unavailable."""
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + (approval.expires_at - approval.requested_at).total_seconds()
        with self._waiters.waiting(*(each for each in (approval.id, approval.app_id) if each is not None)) as changed:
            while True:
                # Cleared before reading: an answer that comes while we read sets it again and is not lost.
                changed.clear()
                outcome, left_s = await self._look(approval.id, is_over=clock() >= give_up_at)
                if outcome is not None:
                    return outcome
                give_up_at = min(give_up_at, clock() + left_s)
                await wait_for_change(changed, min(give_up_at - clock(), self._recheck_s))

    async def mark_used(self, approval_id: UUID) -> bool:
        """Take the one call that a granted approval allows; False when it was not granted, or the call was taken before."""
        unused = (approvals.c.id == approval_id, approvals.c.state == "granted", approvals.c.used_at.is_(None))
        async with self._database.transaction() as connection:
            return (await connection.execute(update(approvals).where(*unused).values(used_at=func.now()))).rowcount == 1

    async def list(self, *, state: ApprovalState | None = None, limit: int = 50, cursor: str | None = None) -> Page[Approval]:
        """Approvals, oldest first, only those in ``state`` when it is given."""
        statement = storage.select_approvals()
        if state is not None:
            statement = statement.where(approvals.c.state == state)
        order = [approvals.c.requested_at, approvals.c.id]
        async with self._database.transaction() as connection:
            page = await fetch_page(connection, statement, order, scope=f"approvals {state or ''}", limit=limit, cursor=cursor)
        return Page([storage.to_approval(row) for row in page.items], page.next_cursor)

    async def get(self, approval_id: str) -> Approval:
        """One approval. Raises NotFound."""
        async with self._database.transaction() as connection:
            return await _read(connection, _require_id(approval_id))

    async def find(self, start: str) -> Approval:
        """The approval whose id begins like this. Raises NotFound, and InvalidRequest when there are several."""
        name = start.strip().lower()
        missing = NotFound(f"There is no approval with the id '{start[:80]}'. Show them: homeport approvals list --all")
        if not _ID_START.fullmatch(name):
            raise missing
        begins = func.left(cast(approvals.c.id, Text), len(name)) == name
        async with self._database.transaction() as connection:
            rows = (await connection.execute(storage.select_approvals().where(begins).limit(2))).mappings().all()
        if not rows:
            raise missing
        if len(rows) > 1:
            raise InvalidRequest(f"Several approvals have ids that begin with '{name}'. Write more of it.")
        return storage.to_approval(rows[0])

    async def decide(
        self, approval_id: str, decision: Decision, by: str, *, remember: bool = False, principal: Principal | None = None
    ) -> Approval:
        """Answer a question, in the name of ``by``; answering the same again changes nothing. With ``remember`` the app is granted, or
        denied, the permission as well, so that it is not asked about again.

        Raises NotFound, Conflict when it was answered otherwise or has expired, and InvalidRequest for what cannot be remembered.
        """
        key = _require_id(approval_id)
        async with self._database.transaction() as connection:
            found = await _read(connection, key)
            if remember and found.app_id is None:
                raise InvalidRequest(
                    "This agent works for an API key, which is granted nothing: what it may do are its scopes. Decide without remembering."
                )
            await self._settle(connection, decision, by, approvals.c.id == key, ~storage.IS_OVER, principal=principal)
            decided = await _read(connection, key)
        if decided.state in ("pending", "expired"):
            raise Conflict("This approval has expired: the agent no longer waits for it.", code="APPROVAL_EXPIRED")
        if decided.state != decision:
            raise Conflict(f"This approval was already {decided.state}.")
        if remember and decided.app_id is not None:
            await self._permissions.set_grant(decided.app_id, decided.permission, decision, by)
        return decided

    async def expire_run(self, connection: AsyncConnection, run_id: UUID) -> None:
        """Close the questions of a run that has ended, in the caller's transaction."""
        await self._settle(connection, "expired", None, approvals.c.run_id == run_id)

    async def expire_old(self) -> int:
        """Close the questions whose time is over; returns how many. Raises Unavailable."""
        async with self._database.transaction() as connection:
            return await self._settle(connection, "expired", None, storage.IS_OVER)

    async def run_sweeper(self) -> None:
        """Close the questions whose time is over and for which nobody waits any more, every half minute until cancelled."""
        while True:
            try:
                if count := await self.expire_old():
                    log.info("approvals expired", count=count)
            except AppError as error:
                log.warning("approvals could not be expired; trying again in half a minute", reason=error.message)
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def _look(self, approval_id: UUID, *, is_over: bool) -> tuple[Outcome | None, float]:
        """The answer, None when there is none yet, and the seconds that are left for it. ``is_over``: none is waited for any longer."""
        async with self._database.transaction() as connection:
            found = await storage.read_pending(connection, approval_id)
            if found is None:  # it went with its session
                return "expired", 0.0
            if found.state != "pending":
                return found.state, 0.0
            if found.grant is not None:
                await self._settle(connection, found.grant, found.granted_by, approvals.c.id == approval_id)
            elif is_over or found.left_s <= 0:
                await self._settle(connection, "expired", None, approvals.c.id == approval_id)
            else:
                return None, found.left_s
            # Somebody else may have been faster; what is stored counts.
            settled = await storage.read_pending(connection, approval_id)
        return (settled.state if settled is not None and settled.state != "pending" else "expired"), 0.0

    async def _settle(
        self, connection: AsyncConnection, state: ApprovalState, by: str | None, *which: Any, principal: Principal | None = None
    ) -> int:
        """Answer the pending ones of these questions, write it down and tell it; returns how many there were."""
        settled = await storage.settle(connection, state, by, *which)
        for row in settled:
            data = _told(row) | {"decision": state} | ({"by": by} if by is not None else {})
            subject = str(row["run_id"])
            await self._events.record(DECIDED, principal=principal, subject=subject, data=data, connection=connection)
            await notify(connection, APPROVALS_CHANNEL, str(row["id"]))
        return len(settled)


async def _hold_open(connection: AsyncConnection, run_id: UUID) -> None:
    """Keep a run from ending until the transaction is over. Raises Conflict when it has ended."""
    is_open = agent_runs.c.state.in_(("running", "waiting"))
    statement = select(agent_runs.c.id).where(agent_runs.c.id == run_id, is_open).with_for_update(read=True)
    if (await connection.execute(statement)).first() is None:
        raise Conflict("The run has ended; nobody is asked for it any more.", code="RUN_ENDED")


async def _read(connection: AsyncConnection, approval_id: UUID) -> Approval:
    if (found := await storage.read_one(connection, approvals.c.id == approval_id)) is None:
        raise NotFound("Approval not found")
    return found


def _require_id(approval_id: str) -> UUID:
    if (parsed := parse_uuid(approval_id)) is None:
        raise NotFound("Approval not found")
    return parsed


def _told(row: Mapping[str, Any] | RowMapping) -> dict[str, Any]:
    """What an event says about a question: never the arguments."""
    return {"approval_id": str(row["id"])} | {name: row[name] for name in ("agent", "server", "tool", "permission")}
