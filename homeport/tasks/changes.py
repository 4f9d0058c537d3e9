"""The one way in which a task changes: what is told of it, checked, written, noted as an event and posted on, in one transaction."""

from contextlib import suppress
from typing import Any

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncConnection

from homeport.agents.run_ends import RunEnds
from homeport.errors import Conflict, NotFound
from homeport.events import Events
from homeport.identity import Principal
from homeport.jobs import Jobs
from homeport.tables import agent_runs
from homeport.tasks.callbacks import Callbacks, Told
from homeport.tasks.contract_events import Report
from homeport.tasks.rows import Task, TaskRunStatus, add_run, change_run, change_task
from homeport.tasks.states import HELD, is_repeated, next_status

NO_REASON = "It failed, and whoever worked on it gave no reason."

_ENDS: dict[Report, TaskRunStatus] = {"task.completed": "completed", "task.failed": "failed", "task.canceled": "canceled"}


class Changes:
    """Changes tasks that the caller's transaction has locked."""

    def __init__(self, jobs: Jobs, events: Events, ends: RunEnds, callbacks: Callbacks) -> None:
        self._jobs = jobs
        self._events = events
        self._ends = ends
        self._callbacks = callbacks

    async def apply(
        self, connection: AsyncConnection, task: Task, told: Told, *, principal: Principal | None, by: str, is_own: bool = False
    ) -> Task:
        """The task after what is told of it. ``is_own``: the job that carries it out tells it. What is so already changes nothing.

        Raises Conflict: TASK_STATE when the task cannot get there from where it is, TASK_CLAIMED when another machine works on it.
        """
        if not is_own:
            _check_holder(task, told)
            _check_attempt(task, told)
        if is_repeated(task.status, told.report, is_holder=_is_holder(task, told)):
            return task
        status = next_status(task.status, told.report)
        values = {"status": status, **_values(task, told)}
        if told.report in _ENDS or (not is_own and task.status == "pending"):
            if not is_own:
                await self._stop_agent(connection, task)
            values["job_id"] = None
        await _write_run(connection, task, told)
        changed = await change_task(connection, task, **values)
        await self.note(connection, changed, told.report, principal=principal, by=by)
        await self._callbacks.enqueue(connection, changed, told)
        return changed

    async def note(self, connection: AsyncConnection, task: Task, kind: str, *, principal: Principal | None, by: str) -> None:
        """Write down that something happened to a task, as it is now."""
        run = task.last_run
        known = {"agent": task.agent, "machine_id": task.machine_id, "attempt_id": run and run.attempt_id}
        data = {"by": by, **{name: value for name, value in known.items() if value is not None}}
        await self._events.record(kind, principal=principal, subject=str(task.id), data=data, connection=connection)

    async def _stop_agent(self, connection: AsyncConnection, task: Task) -> None:
        """End what an agent of this server does for a task, or was going to."""
        if task.job_id is None:
            return
        with suppress(NotFound):  # a job that ended long ago
            await self._jobs.cancel(task.owner_id, str(task.job_id), connection=connection)
        await self._ends.cancel(connection, agent_runs.c.task_id == task.id)


def _is_holder(task: Task, told: Told) -> bool:
    """Whether who tells holds the task. Only a claim has to say who it is."""
    if told.machine_id is None or task.machine_id is None:
        return told.report != "task.claimed"
    return told.machine_id == task.machine_id


def _check_holder(task: Task, told: Told) -> None:
    if task.status not in HELD or told.report == "task.canceled" or _is_holder(task, told):
        return
    holder = f"'{task.machine_id}'" if task.machine_id else "a machine that gave no name"
    raise Conflict(f"This task is {task.status} by {holder}.", code="TASK_CLAIMED")


def _check_attempt(task: Task, told: Told) -> None:
    """Refuse what an attempt tells that is over, when another one came after it."""
    run = task.last_run
    if run is None or told.attempt_id in (None, run.attempt_id) or told.attempt_id not in {each.attempt_id for each in task.runs}:
        return
    raise Conflict(f"The attempt '{told.attempt_id}' at this task is over; the last one is '{run.attempt_id}'.", code="TASK_STATE")


def _values(task: Task, told: Told) -> dict[str, Any]:
    holder = {"machine_id": told.machine_id or task.machine_id}
    match told.report:
        case "task.claimed":
            return {"machine_id": told.machine_id, "error": None, "progress": None}
        case "task.started":
            # Whoever begins again after a failure may be another one.
            return {"machine_id": told.machine_id, "error": None, "progress": None} if task.status == "failed" else holder
        case "task.progress":
            return holder | {"progress": told.data}
        case "task.completed":
            return holder | {"result": told.data.get("result") or {}}
        case "task.failed":
            return holder | {"error": told.data.get("error") or NO_REASON}
        case "task.canceled":
            return holder | {"error": told.data.get("error") or None}


async def _write_run(connection: AsyncConnection, task: Task, told: Told) -> None:
    """Keep the attempts in step: who begins begins one, who ends ends it."""
    run = task.open_run
    values: dict[str, Any] = {}
    match told.report:
        case "task.claimed":
            pass
        case "task.started" | "task.progress":
            if run is None or run.status == "pending":
                values = {"status": "running", "started_at": func.now()}
        case report:
            reason = told.data.get("error") or (NO_REASON if report == "task.failed" else None)
            values = {"status": _ENDS[report], "completed_at": func.now(), "error": reason}
    if told.machine_id is not None:
        values["machine_id"] = told.machine_id
    if run is None:
        if told.report != "task.canceled":
            await add_run(connection, task, told.attempt_id, **values)
        return
    if run.status == "pending" and told.attempt_id is not None:
        values["attempt_id"] = told.attempt_id
    if values:
        await change_run(connection, run, **values)
