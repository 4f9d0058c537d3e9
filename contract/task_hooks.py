"""How the run treats tasks: most drawn events are made such that they mean something, and are about tasks that are there. Nothing is posted
elsewhere: the addresses are of this machine, where the server posts to none. What is meant to be wrong stays wrong."""

import os
from collections.abc import Callable
from typing import Any
from zlib import crc32

from schemathesis import Case

Json = dict[str, Any]

SPARE_TASKS = 40
EVENTS = ("task.trigger", "trigger-agent", "Task.Claimed", "task-start", "task.progress", "TASK-COMPLETE", "task.failed", "cancel", "ping")
LOOPBACK_URL = "https://127.0.0.1/callback"
PLACES = {"agent_name": "@agent", "workspace_slug": "default", "thread_slug": "create_new"}
ADMIN_PLACES = {"agent": "@agent", "workspace": "default", "thread": "create_new"}


def make_tasks(send: Callable[..., Any]) -> str:
    """Make tasks of the developer, which nobody works on. Returns their ids, for CONTRACT_TASKS."""
    body = {"event": "task.trigger", "payload": {"raw_data": {}, "auto_run": False}}
    return " ".join(send("POST", "/webhooks/realtimex", body)["task_uuid"] for _ in range(SPARE_TASKS))


def keep_tasks(case: Case[Any], operation: str, *, is_right: bool) -> None:
    """Change a request to an operation on tasks before it is sent. ``is_right``: its body is what the operation takes."""
    number = crc32(repr((case.path_parameters, case.body)).encode(errors="replace"))
    ids = os.environ["CONTRACT_TASKS"].split()
    task_id = ids[number % len(ids)]
    for name in ("uuid", "task_id"):
        if isinstance(case.path_parameters.get(name), str) and number % 4 and 1 <= len(case.path_parameters[name]) <= 200:
            case.path_parameters[name] = task_id
    body: Any = case.body
    if is_right and operation == "run_task" and number % 4:
        case.body = {name: ADMIN_PLACES[name] for name in body if name in ADMIN_PLACES}
    if is_right and operation == "receive_event":
        case.body = _event(body, number, task_id)


def _event(body: Json, number: int, task_id: str) -> Json:
    """An event that means something, in nine of ten cases; the others still leave the machine alone."""
    payload = body.get("payload")
    payload = dict(payload) if isinstance(payload, dict) else {}
    if payload.get("callback_url"):
        payload["callback_url"] = LOOPBACK_URL
    if not number % 10:
        return body | {"payload": payload} if payload else body
    if number % 5:
        payload.pop("callback_url", None)
    payload |= {name: slug for name, slug in PLACES.items() if payload.get(name)} | {"task_uuid": task_id}
    return body | {"event": EVENTS[number % len(EVENTS)], "payload": payload, "app_id": None}
