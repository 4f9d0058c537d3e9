"""Tasks and the attempts at them in SQL."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from homeport.errors import NotFound
from homeport.ids import parse_uuid
from homeport.tables import task_runs, tasks
from homeport.tasks.contract_events import ATTEMPT_PREFIX
from homeport.tasks.states import TaskStatus

TaskRunStatus = Literal["pending", "running", "completed", "failed", "canceled"]
RUN_COLUMNS = [column for column in task_runs.c if column.name != "task_id"]


@dataclass(frozen=True, slots=True)
class TaskRun:
    """An attempt at a task, numbered from 1. ``session_id`` is the conversation in which an agent of this server works on it."""

    id: int
    number: int
    attempt_id: str
    agent: str | None
    workspace: str | None
    thread: str | None
    machine_id: str | None
    status: TaskRunStatus
    session_id: UUID | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.status in ("pending", "running")


@dataclass(frozen=True, slots=True)
class Task:
    """A piece of work. ``machine_id`` is who works on it, or has last: ``homeport`` is an agent of this server.

    ``caller`` says on whose behalf that agent works; ``job_id`` is the job in which it does or will do so. ``runs`` are the attempts, the
    first one first; lists of tasks leave them out.
    """

    id: UUID
    calendar_event_id: UUID
    owner_id: UUID
    caller: dict[str, Any] = field(repr=False)
    title: str = field(repr=False)
    action_type: str
    status: TaskStatus
    auto_run: bool
    agent: str | None
    workspace: str | None
    thread: str | None
    prompt: str = field(repr=False)
    raw_data: dict[str, Any] = field(repr=False)
    machine_id: str | None
    progress: dict[str, Any] | None = field(repr=False)
    result: dict[str, Any] | None = field(repr=False)
    error: str | None = field(repr=False)
    callback_url: str | None = field(repr=False)
    job_id: UUID | None
    created_at: datetime
    updated_at: datetime
    runs: Sequence[TaskRun] = field(default=(), repr=False)

    @property
    def last_run(self) -> TaskRun | None:
        """The attempt that is under way, or was the last one."""
        return self.runs[-1] if self.runs else None

    @property
    def open_run(self) -> TaskRun | None:
        """The attempt that has not ended."""
        return self.runs[-1] if self.runs and self.runs[-1].is_open else None


async def find_task(connection: AsyncConnection, task_id: str, *where: ColumnElement[bool], lock: bool = False) -> Task:
    """A task with its attempts; with ``lock`` nobody else changes it until the transaction ends. Raises NotFound."""
    statement: Select[Any] = select(tasks).where(tasks.c.id == parse_uuid(task_id), *where)
    rows = await connection.execute(statement.with_for_update() if lock else statement)
    if (row := rows.mappings().one_or_none()) is None:
        raise NotFound("There is no such task.", code="TASK_NOT_FOUND")
    return await _with_runs(connection, row)


async def insert_task(connection: AsyncConnection, values: dict[str, Any]) -> Task:
    """Store a new task, which has no attempts yet."""
    return read_task((await connection.execute(insert(tasks).values(values).returning(tasks))).mappings().one())


async def change_task(connection: AsyncConnection, task: Task, **values: Any) -> Task:
    """Write columns of a task, and return it with its attempts as they are now."""
    changing = update(tasks).where(tasks.c.id == task.id).values(updated_at=func.now(), **values).returning(tasks)
    return await _with_runs(connection, (await connection.execute(changing)).mappings().one())


async def add_run(connection: AsyncConnection, task: Task, attempt_id: str | None = None, **values: Any) -> None:
    """Begin the next attempt at a task. ``attempt_id`` None: it is numbered."""
    number = task.runs[-1].number + 1 if task.runs else 1
    places = {"agent": task.agent, "workspace": task.workspace, "thread": task.thread}
    row = {"task_id": task.id, "number": number, "attempt_id": attempt_id or f"{ATTEMPT_PREFIX}{number}"} | places | values
    await connection.execute(insert(task_runs).values(row))


async def change_run(connection: AsyncConnection, run: TaskRun, **values: Any) -> None:
    """Write columns of an attempt."""
    await connection.execute(update(task_runs).where(task_runs.c.id == run.id).values(values))


def read_task(row: RowMapping, runs: Sequence[TaskRun] = ()) -> Task:
    """A task out of its row."""
    return Task(**row, runs=runs)


async def _with_runs(connection: AsyncConnection, row: RowMapping) -> Task:
    statement = select(*RUN_COLUMNS).where(task_runs.c.task_id == row["id"]).order_by(task_runs.c.number)
    return read_task(row, [TaskRun(**each) for each in (await connection.execute(statement)).mappings()])
