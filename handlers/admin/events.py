"""What was done here, and by whom."""

from typing import Any
from uuid import UUID

from homeport.clock import format_time, parse_time
from homeport.events import Event
from homeport.home import Home


async def list_events(
    home: Home,
    kind: str | None = None,
    app_id: str | None = None,
    subject: str | None = None,
    since: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """List events, newest first."""
    app = UUID(app_id) if app_id else None
    filters: dict[str, Any] = {"kind": kind or None, "app_id": app, "subject": subject or None, "since": parse_time(since)}
    return (await home.events.list(**filters, limit=limit, cursor=cursor)).render(_event)


def _event(event: Event) -> dict[str, Any]:
    ids = {"app_id": event.app_id and str(event.app_id), "key_id": event.key_id and str(event.key_id)}
    return {
        "id": event.id,
        "kind": event.kind,
        **{name: value for name, value in ids.items() if value is not None},
        "subject": event.subject,
        "data": event.data,
        "created_at": format_time(event.created_at),
    }
