"""Tasks for the rest of the program: handed over, reported on, looked at, run and cancelled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.outbound import Outbound
from adapters.postgres import Database
from homeport.agents.run_ends import RunEnds
from homeport.errors import Conflict, InvalidRequest
from homeport.events import Events
from homeport.identity import Identity, Principal
from homeport.ids import uuid7
from homeport.jobs import Jobs
from homeport.paging import Page, fetch_page
from homeport.settings import Settings
from homeport.tables import tasks
from homeport.tasks.callbacks import Callbacks, Told
from homeport.tasks.changes import Changes
from homeport.tasks.keeper import Keeper
from homeport.tasks.places import check_places
from homeport.tasks.rows import Task, change_task, find_task, insert_task, read_task
from homeport.tasks.states import TaskStatus, state_conflict
from homeport.tasks.webhook import Webhook
from homeport.tasks.work import Work

if TYPE_CHECKING:
    from homeport.agents.runs import Runs
    from homeport.agents.sessions import Sessions

TITLE_LENGTH = 80
UNTITLED = "New task"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done. Empty text counts as None; ``thread`` may be ``create_new``.

    ``auto_run``: an agent of this server does it at once; else it waits for a person.
    """

    raw_data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    auto_run: bool = False
    agent: str | None = None
    workspace: str | None = None
    thread: str | None = None
    prompt: str | None = field(default=None, repr=False)
    callback_url: str | None = field(default=None, repr=False)


class Tasks:
    """Tasks of all apps. ``webhook`` is how apps hand them over and report on them; run ``keeper.run()`` in the background."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        identity: Identity,
        jobs: Jobs,
        events: Events,
        outbound: Outbound,
        *,
        sessions: "Sessions",
        runs: "Runs",
        ends: RunEnds,
    ) -> None:
        self._database = database
        self._callbacks = Callbacks(database, jobs, outbound, settings.contract_secret)
        self._changes = Changes(jobs, events, ends, self._callbacks)
        self._work = Work(database, identity, jobs, self._changes, sessions, runs)
        secrets = [secret for secret in (settings.contract_secret, settings.previous_contract_secret) if secret is not None]
        self.webhook = Webhook(database, identity, self, self._changes, secrets)
        self.keeper = Keeper(database, self._changes)

    async def check(self, order: Order) -> None:
        """Raise InvalidRequest for an order that cannot be carried out, whatever is there: ``trigger`` comes after it."""
        if order.auto_run and not (order.agent and order.workspace):
            raise InvalidRequest("With auto_run, say who does it and where: agent_name and workspace_slug.")
        if order.callback_url:
            await self._callbacks.check(order.callback_url)

    async def trigger(
        self, connection: AsyncConnection, principal: Principal, order: Order, *, app_name: str | None = None, attempt_id: str | None = None
    ) -> Task:
        """Take work in, in the caller's transaction: with ``auto_run`` an agent begins when that commits.

        Raises NotFound for an agent, a workspace or a thread that is not there, TooManyRequests when too many tasks of the owner wait.
        """
        await check_places(connection, order.agent or None, order.workspace or None, order.thread or None)
        values = {
            "id": uuid7(),
            "calendar_event_id": uuid4(),
            "owner_id": principal.owner_id,
            "caller": principal.remember(),
            "title": _title(app_name or principal.name, order),
            "auto_run": order.auto_run,
            "agent": order.agent or None,
            "workspace": order.workspace or None,
            "thread": order.thread or None,
            "prompt": order.prompt or "",
            "raw_data": order.raw_data,
            "callback_url": order.callback_url or None,
        }
        task = await insert_task(connection, values)
        if order.auto_run:
            task = await self._work.enqueue(connection, task, attempt_id)
        await self._changes.note(connection, task, "task.created", principal=principal, by=principal.label)
        return task

    async def get(self, principal: Principal, task_id: str) -> Task:
        """A task of the principal's, with its attempts. Raises NotFound (TASK_NOT_FOUND)."""
        async with self._database.transaction() as connection:
            return await find_task(connection, task_id, tasks.c.owner_id == principal.owner_id)

    async def find(self, task_id: str) -> Task:
        """Anybody's task, with its attempts, for an operator. Raises NotFound (TASK_NOT_FOUND)."""
        async with self._database.transaction() as connection:
            return await find_task(connection, task_id)

    async def list(
        self, *, status: TaskStatus | None = None, owner_id: UUID | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[Task]:
        """Tasks of everybody, newest first, without their attempts; only those in ``status``, or of one app or key."""
        statement = select(tasks)
        if status is not None:
            statement = statement.where(tasks.c.status == status)
        if owner_id is not None:
            statement = statement.where(tasks.c.owner_id == owner_id)
        scope = f"tasks {status or ''} {owner_id or ''}"
        async with self._database.transaction() as connection:
            page = await fetch_page(connection, statement, [tasks.c.id], scope=scope, limit=limit, cursor=cursor, descending=True)
        return Page([read_task(row) for row in page.items], page.next_cursor)

    async def run(
        self,
        task_id: str,
        *,
        by: str,
        principal: Principal | None = None,
        agent: str | None = None,
        workspace: str | None = None,
        thread: str | None = None,
    ) -> Task:
        """Have an agent of this server do a task that waits for a person, or has failed.

        What is named takes the place of what the app said; the agent works on behalf of the app. Raises NotFound, Conflict (TASK_STATE),
        TooManyRequests.
        """
        async with self._database.transaction() as connection:
            task = await find_task(connection, task_id, lock=True)
            if task.status not in ("pending", "failed"):
                raise state_conflict(task.status, "pending")
            if task.job_id is not None:
                raise Conflict("This task is pending, and an agent takes it up as soon as one is free.", code="TASK_STATE")
            # A thread belongs to its workspace.
            places = {"agent": agent or task.agent, "workspace": workspace or task.workspace}
            places["thread"] = thread or (task.thread if places["workspace"] == task.workspace else None)
            await check_places(connection, **places)
            fresh = {"status": "pending", "machine_id": None, "progress": None, "result": None, "error": None}
            task = await self._work.enqueue(connection, await change_task(connection, task, **places, **fresh))
            await self._changes.note(connection, task, "task.queued", principal=principal, by=by)
        return task

    async def cancel(self, task_id: str, *, by: str, principal: Principal | None = None, reason: str | None = None) -> Task:
        """Cancel a task, and stop the agent of this server that works on it. Cancelling again changes nothing.

        Raises NotFound, Conflict (TASK_STATE).
        """
        told = Told("task.canceled", {"error": reason} if reason else {})
        async with self._database.transaction() as connection:
            task = await find_task(connection, task_id, lock=True)
            return await self._changes.apply(connection, task, told, principal=principal, by=by)


def _title(app_name: str, order: Order) -> str:
    first = next((line.strip() for line in (order.prompt or "").splitlines() if line.strip()), UNTITLED)
    return f"[{app_name.strip()}] {first if len(first) <= TITLE_LENGTH else first[: TITLE_LENGTH - 1] + '…'}"
