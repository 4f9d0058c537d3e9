"""How an app asks for permissions: all it declares at its start, or one when it needs it."""

from typing import Any

from homeport.home import Home


async def register_app(home: Home, body: dict[str, Any]) -> dict[str, Any]:
    """Ask for all declared permissions and wait for the decisions."""
    answer = await home.permissions.register(body.get("app_id"), body.get("app_name"), body.get("permissions") or ())
    return {
        "success": True,
        "message": answer.message,
        "permissions": {"granted": answer.granted, "denied": answer.denied},
        "dismissed": bool(answer.undecided),
    }


async def request_permission(home: Home, body: dict[str, Any]) -> dict[str, Any]:
    """Ask for one permission and wait for the decision."""
    granted = await home.permissions.request(body.get("app_id"), body.get("app_name"), body["permission"])
    return {"success": True, "granted": granted, "permission": body["permission"]}
