"""What became of work that was handed over: /task."""

from typing import Any

from homeport.clock import format_time
from homeport.home import Home
from homeport.identity import Principal
from homeport.tasks import Task, TaskRun


async def get_task(home: Home, principal: Principal, uuid: str) -> dict[str, Any]:
    """Return a task and the attempts at it."""
    task = await home.tasks.get(principal, uuid)
    return {"success": True, "task": _task(task), "runs": [_run(run) for run in task.runs]}


def _task(task: Task) -> dict[str, Any]:
    known = {"machine_id": task.machine_id, "progress": task.progress, "result": task.result}
    return {
        "uuid": str(task.id),
        "title": task.title,
        "status": task.status,
        "action_type": task.action_type,
        "source_app": str(task.owner_id),
        "calendar_event_uuid": str(task.calendar_event_id),
        "auto_run": task.auto_run,
        **{name: value for name, value in known.items() if value is not None},
        "error": task.error,
        "created_at": format_time(task.created_at),
        "updated_at": format_time(task.updated_at),
    }


def _run(run: TaskRun) -> dict[str, Any]:
    known = {
        "agent_name": run.agent,
        "workspace_slug": run.workspace,
        "thread_slug": run.thread,
        "machine_id": run.machine_id,
        "started_at": format_time(run.started_at),
        "completed_at": format_time(run.completed_at),
    }
    return {
        "id": run.id,
        "attempt_id": run.attempt_id,
        "status": run.status,
        **{name: value for name, value in known.items() if value is not None},
        "error": run.error,
    }
