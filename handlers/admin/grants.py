"""What apps may do and may not: remembered decisions."""

from typing import Any

from homeport.clock import format_time
from homeport.grants import Grant
from homeport.home import Home
from homeport.identity import Principal


async def list_grants(home: Home, app_id: str, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """List the decisions about an app, by permission."""
    app = await home.apps.get(app_id)
    return (await home.permissions.list_grants(app.id, limit=limit, cursor=cursor)).render(_grant)


async def reset_grants(home: Home, app_id: str) -> dict[str, Any]:
    """Forget all decisions about an app."""
    app = await home.apps.get(app_id)
    await home.permissions.reset_grants(app.id)
    return {"items": [], "next_cursor": None}


async def set_grant(home: Home, principal: Principal, app_id: str, permission: str, body: dict[str, Any]) -> dict[str, Any]:
    """Grant or deny a permission."""
    app = await home.apps.get(app_id)
    return _grant(await home.permissions.set_grant(app.id, permission, body["state"], principal.label))


async def reset_grant(home: Home, app_id: str, permission: str) -> dict[str, Any]:
    """Forget one decision."""
    app = await home.apps.get(app_id)
    return _grant(await home.permissions.reset_grant(app.id, permission))


def _grant(grant: Grant) -> dict[str, Any]:
    return {
        "permission": grant.permission,
        "state": grant.state,
        "decided_by": grant.decided_by,
        "decided_at": format_time(grant.decided_at),
    }
