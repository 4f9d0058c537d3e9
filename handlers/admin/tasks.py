"""What apps have handed over, for people."""

from typing import Any
from uuid import UUID

from homeport.clock import format_time
from homeport.home import Home
from homeport.identity import Principal
from homeport.tasks import Task, TaskRun
from homeport.tasks.states import TaskStatus


async def list_tasks(
    home: Home, status: TaskStatus | None = None, owner_id: str | None = None, limit: int = 50, cursor: str | None = None
) -> dict[str, Any]:
    """List tasks, newest first."""
    owner = UUID(owner_id) if owner_id else None
    return (await home.tasks.list(status=status, owner_id=owner, limit=limit, cursor=cursor)).render(_record)


async def get_task(home: Home, task_id: str) -> dict[str, Any]:
    """Return one task."""
    return _details(await home.tasks.find(task_id))


async def run_task(home: Home, principal: Principal, task_id: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Have an agent do a task."""
    return _details(await home.tasks.run(task_id, by=principal.label, principal=principal, **(body or {})))


async def cancel_task(home: Home, principal: Principal, task_id: str) -> dict[str, Any]:
    """Cancel a task."""
    return _details(await home.tasks.cancel(task_id, by=principal.label, principal=principal))


def _record(task: Task) -> dict[str, Any]:
    return {
        "id": str(task.id),
        "calendar_event_id": str(task.calendar_event_id),
        "owner_id": str(task.owner_id),
        "title": task.title,
        "status": task.status,
        "auto_run": task.auto_run,
        **_known(agent=task.agent, workspace=task.workspace, thread=task.thread, machine_id=task.machine_id, error=task.error),
        "created_at": format_time(task.created_at),
        "updated_at": format_time(task.updated_at),
    }


def _details(task: Task) -> dict[str, Any]:
    return {
        **_record(task),
        "prompt": task.prompt,
        "raw_data": task.raw_data,
        **_known(progress=task.progress, result=task.result, callback_url=task.callback_url),
        "runs": [_attempt(run) for run in task.runs],
    }


def _attempt(run: TaskRun) -> dict[str, Any]:
    return {
        "number": run.number,
        "attempt_id": run.attempt_id,
        "status": run.status,
        **_known(
            agent=run.agent,
            workspace=run.workspace,
            thread=run.thread,
            machine_id=run.machine_id,
            session_id=run.session_id and str(run.session_id),
            error=run.error,
            started_at=format_time(run.started_at),
            completed_at=format_time(run.completed_at),
        ),
        "created_at": format_time(run.created_at),
    }


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
