"""Workspaces and their threads."""

from typing import Any

from homeport.clock import format_time
from homeport.home import Home


async def list_workspaces(home: Home) -> dict[str, Any]:
    """List all workspaces."""
    workspaces = [
        {"id": each.id, "slug": each.slug, "name": each.name, "type": each.type, "created_at": format_time(each.created_at)}
        for each in await home.workspaces.list()
    ]
    return {"success": True, "workspaces": workspaces}


async def list_threads(home: Home, slug: str) -> dict[str, Any]:
    """List the threads of a workspace."""
    workspace, threads = await home.workspaces.list_threads(slug)
    return {
        "success": True,
        "workspace": {"id": workspace.id, "slug": workspace.slug, "name": workspace.name},
        "threads": [{"id": each.id, "slug": each.slug, "name": each.name, "created_at": format_time(each.created_at)} for each in threads],
    }
