"""How a task goes from one state to the next. Whatever is not listed here is refused.

pending ──► claimed ──► processing ──► completed
   │           │            │  ▲
   │           ├────────────┼──┼─────► failed ──► claimed, processing, and pending when somebody runs it again
   └───────────┴────────────┴──┼─────► canceled
                            progress
"""

from typing import Literal

from homeport.errors import Conflict
from homeport.tasks.contract_events import Report

TaskStatus = Literal["pending", "claimed", "processing", "completed", "failed", "canceled"]

HELD: tuple[TaskStatus, ...] = ("claimed", "processing")
"""Somebody works on it."""

_AT_WORK: frozenset[TaskStatus] = frozenset(HELD)
_FREE: frozenset[TaskStatus] = frozenset({"pending", "failed"})
# What a report makes of a task, and from where.
_STEPS: dict[Report, tuple[TaskStatus, frozenset[TaskStatus]]] = {
    "task.claimed": ("claimed", _FREE),
    "task.started": ("processing", _FREE | {"claimed"}),
    "task.progress": ("processing", _AT_WORK),
    "task.completed": ("completed", _AT_WORK),
    "task.failed": ("failed", _AT_WORK),
    "task.canceled": ("canceled", _AT_WORK | {"pending"}),
}
STATUS_AFTER: dict[Report, TaskStatus] = {report: status for report, (status, _) in _STEPS.items()}


def next_status(status: TaskStatus, report: Report) -> TaskStatus:
    """The state of a task in ``status`` after ``report``. Raises Conflict (TASK_STATE)."""
    after, possible = _STEPS[report]
    if status not in possible:
        raise state_conflict(status, after)
    return after


def state_conflict(status: TaskStatus, after: TaskStatus) -> Conflict:
    """The refusal to go from one state to another."""
    return Conflict(f"This task is {status}, and cannot become {after} from there.", code="TASK_STATE")


def is_repeated(status: TaskStatus, report: Report, *, is_holder: bool) -> bool:
    """Whether a report says what is so already, and does no harm. ``is_holder``: it comes from the machine that holds the task."""
    match report:
        case "task.claimed":
            return status == "claimed" and is_holder
        case "task.started":
            return status == "processing" and is_holder
        case "task.canceled":
            return status == "canceled"
        case _:
            return False
