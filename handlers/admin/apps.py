"""Registered apps. An app is named by its id or its slug."""

from dataclasses import asdict
from typing import Any

from homeport.apps import App
from homeport.clock import format_time
from homeport.home import Home


async def list_apps(home: Home, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """List all apps, oldest first."""
    return (await home.apps.list(limit=limit, cursor=cursor)).render(_app)


async def register_app(home: Home, body: dict[str, Any]) -> dict[str, Any]:
    """Register an app."""
    return _app(await home.apps.register(body["name"], app_id=body.get("id"), **_changes(body, "slug")))


async def get_app(home: Home, app_id: str) -> dict[str, Any]:
    """Return one app."""
    return _app(await home.apps.get(app_id))


async def update_app(home: Home, app_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Change an app."""
    return _app(await home.apps.update(app_id, **_changes(body, "name", "slug")))


async def remove_app(home: Home, app_id: str) -> dict[str, Any]:
    """Remove an app with all that belongs to it."""
    return _app(await home.apps.remove(app_id))


def _changes(body: dict[str, Any], *names: str) -> dict[str, Any]:
    changes = {name: body.get(name) for name in (*names, "description", "permissions", "requires_user")}
    return changes | {"launch": _launch(body["launch"]) if "launch" in body else None}


def _launch(body: dict[str, Any]) -> dict[str, Any]:
    """How an app is started as the domain names it; variables by name."""
    return {name: {each["name"]: each["value"] for each in value} if name == "env" else value for name, value in body.items()}


def _app(app: App) -> dict[str, Any]:
    launch = {name: value for name, value in asdict(app.launch).items() if value is not None} if app.launch is not None else None
    return {
        "id": str(app.id),
        "slug": app.slug,
        "name": app.name,
        "description": app.description,
        "kind": app.kind,
        "permissions": app.permissions,
        "requires_user": app.requires_user,
        "created_at": format_time(app.created_at),
        "updated_at": format_time(app.updated_at),
        **({"launch": launch} if launch is not None else {}),
    }
