"""The calling app's vectors: /sdk/llm/vectors/upsert, /query, /delete, /workspaces."""

from typing import Any

from homeport.home import Home
from homeport.identity import Principal
from homeport.vectors import Match, namespace_name

DEFAULT_TOP_K = 5


async def upsert_vectors(home: Home, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """Add or replace vectors."""
    workspace = body.get("workspaceId")
    count = await home.vectors.upsert(principal.owner_id, workspace, body["vectors"])
    return {"success": True, "upserted": count, "namespace": namespace_name(principal.owner_id, workspace)}


async def query_vectors(home: Home, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """Find similar vectors."""
    question = {"vector": body.get("vector"), "text": body.get("text"), "filter": body.get("filter")}
    matches = await home.vectors.query(principal, body.get("workspaceId"), top_k=body.get("topK") or DEFAULT_TOP_K, **question)
    return {"success": True, "results": [_match(match) for match in matches]}


async def delete_vectors(home: Home, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """Delete vectors, or a whole workspace."""
    workspace = body.get("workspaceId")
    if body.get("deleteAll"):
        count = await home.vectors.delete_workspace(principal.owner_id, workspace)
    else:
        count = await home.vectors.delete(principal.owner_id, workspace, ids=body.get("ids"), filter=body.get("filter"))
    return {"success": True, "deleted": count, "message": f"Deleted {count} {'vector' if count == 1 else 'vectors'}."}


async def list_workspaces(home: Home, principal: Principal) -> dict[str, Any]:
    """List the workspaces that hold vectors."""
    return {"success": True, "workspaces": await home.vectors.list_workspaces(principal.owner_id)}


def _match(match: Match) -> dict[str, Any]:
    return {"id": match.id, "score": match.score, "metadata": match.metadata}
