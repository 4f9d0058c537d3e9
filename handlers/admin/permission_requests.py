"""What apps have asked for, and the decisions."""

from typing import Any

from homeport.clock import format_time
from homeport.grants import PermissionRequest
from homeport.home import Home
from homeport.identity import Principal


async def list_permission_requests(home: Home, state: str | None = None, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """List requests, oldest first."""
    return (await home.permissions.list_requests(state=state, limit=limit, cursor=cursor)).render(_request)


async def get_permission_request(home: Home, request_id: str) -> dict[str, Any]:
    """Return one request."""
    return _request(await home.permissions.get_request(request_id))


async def decide_permission_request(home: Home, principal: Principal, request_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Decide a request; the app learns it at once if it is waiting."""
    return _request(await home.permissions.decide(request_id, body["decision"], principal.label))


def _request(request: PermissionRequest) -> dict[str, Any]:
    return {
        "id": str(request.id),
        "app_id": str(request.app_id),
        "app_slug": request.app_slug,
        "app_name": request.app_name,
        "permission": request.permission,
        "state": request.state,
        "requested_at": format_time(request.requested_at),
        "decided_at": format_time(request.decided_at),
    }
