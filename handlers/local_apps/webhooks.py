"""What local apps tell the server: /webhooks/realtimex."""

from typing import Any

from homeport.home import Home
from homeport.identity import Principal
from homeport.tasks import Message, Order, Receipt
from homeport.tasks.contract_events import CONTRACT_VERSION

# What stands in a payload beside what the event carries.
ENVELOPE = frozenset({"task_uuid", "machine_id", "timestamp", "attempt_id"})


async def receive_event(
    home: Home,
    principal: Principal | None,
    body: dict[str, Any],
    x_rtx_event_id: str | None = None,
    x_rtx_contract_signature: str | None = None,
) -> dict[str, Any]:
    """Do what an event says."""
    payload = body.get("payload") or {}
    message = Message(
        body["event"],
        _order(payload),
        app_id=body.get("app_id"),
        app_name=body.get("app_name"),
        event_id=body.get("event_id") or x_rtx_event_id,
        attempt_id=body.get("attempt_id") or payload.get("attempt_id"),
        task_id=payload.get("task_uuid"),
        machine_id=payload.get("machine_id"),
        timestamp=payload.get("timestamp"),
        data={name: value for name, value in payload.items() if name not in ENVELOPE},
        signature=x_rtx_contract_signature,
    )
    return _receipt(await home.tasks.webhook.receive(principal, message))


def _order(payload: dict[str, Any]) -> Order:
    return Order(
        raw_data=payload.get("raw_data") or {},
        auto_run=bool(payload.get("auto_run")),
        agent=payload.get("agent_name"),
        workspace=payload.get("workspace_slug"),
        thread=payload.get("thread_slug"),
        prompt=payload.get("prompt"),
        callback_url=payload.get("callback_url"),
    )


def _receipt(receipt: Receipt) -> dict[str, Any]:
    known = {
        "app_name": receipt.app_name,
        "task_uuid": receipt.task_id,
        "task_id": receipt.task_id,
        "calendar_event_uuid": receipt.calendar_event_id,
        "auto_run": receipt.auto_run,
        "status": receipt.status,
        "event_id": receipt.event_id,
        "attempt_id": receipt.attempt_id,
        "deduplicated": receipt.is_repeated or None,
    }
    return {
        "success": True,
        "message": _message(receipt),
        "event_type": receipt.event,
        "contract_version": CONTRACT_VERSION,
        **{name: value for name, value in known.items() if value is not None},
    }


def _message(receipt: Receipt) -> str:
    match receipt.event:
        case "system.ping":
            return "pong"
        case "task.trigger":
            return "Agent triggered" if receipt.auto_run else "The task waits until a person has it run"
        case _:
            return f"The task is {receipt.status}"
