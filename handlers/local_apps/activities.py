"""Activities of the calling app."""

from typing import Any

from homeport.activities import Activity
from homeport.clock import format_time
from homeport.home import Home
from homeport.identity import Principal


async def create_activity(home: Home, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """Add an activity."""
    return {"data": _activity(await home.activities.create(principal, body.get("raw_data"), body.get("old_data")))}


async def list_activities(home: Home, principal: Principal, status: str | None = None, limit: int = 50, offset: int = 0) -> dict[str, Any]:
    """List activities, newest first."""
    found = await home.activities.list(principal, status=status, limit=limit, offset=offset)
    return {"data": [_activity(activity) for activity in found]}


async def get_activity(home: Home, principal: Principal, id: str) -> dict[str, Any]:
    """Return one activity."""
    return {"data": _activity(await home.activities.get(principal, id))}


async def update_activity(home: Home, principal: Principal, id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Change, claim, finish or release an activity."""
    return {"data": _activity(await home.activities.update(principal, id, body))}


async def delete_activity(home: Home, principal: Principal, id: str) -> dict[str, Any]:
    """Delete an activity."""
    return {"success": True, "data": _activity(await home.activities.delete(principal, id))}


def _activity(activity: Activity) -> dict[str, Any]:
    return {
        "id": str(activity.id),
        "raw_data": activity.raw_data,
        "old_data": activity.old_data,
        "status": activity.status,
        "locked_by": activity.locked_by,
        "locked_at": format_time(activity.locked_at),
        "completed_at": format_time(activity.completed_at),
        "error_message": activity.error_message,
        "attempted_by": activity.attempted_by,
        "retry_count": activity.retry_count,
        "result": activity.result,
        "created_at": format_time(activity.created_at),
    }
