"""What agents ask people, and the answers."""

from typing import Any

from homeport.agents import Approval, ApprovalState
from homeport.clock import format_time
from homeport.home import Home
from homeport.identity import Principal


async def list_approvals(home: Home, state: ApprovalState | None = None, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """List approvals, oldest first."""
    return (await home.approvals.list(state=state, limit=limit, cursor=cursor)).render(_approval)


async def get_approval(home: Home, approval_id: str) -> dict[str, Any]:
    """Return one approval."""
    return _approval(await home.approvals.get(approval_id))


async def decide_approval(home: Home, principal: Principal, approval_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Answer an agent; it goes on at once if it is waiting."""
    remember = body.get("remember", False)
    return _approval(await home.approvals.decide(approval_id, body["decision"], principal.label, remember=remember, principal=principal))


def _approval(approval: Approval) -> dict[str, Any]:
    """An approval; what is not known is left out."""
    known = {
        "app_id": str(approval.app_id) if approval.app_id is not None else None,
        "app_slug": approval.app_slug,
        "decided_by": approval.decided_by,
        "decided_at": format_time(approval.decided_at),
        "used_at": format_time(approval.used_at),
    }
    return {
        "id": str(approval.id),
        "run_id": str(approval.run_id),
        "owner_id": str(approval.owner_id),
        "agent": approval.agent,
        "server": approval.server,
        "tool": approval.tool,
        "arguments": approval.arguments,
        "is_cut": approval.is_cut,
        "permission": approval.permission,
        "state": approval.state,
        "requested_at": format_time(approval.requested_at),
        "expires_at": format_time(approval.expires_at),
        **{name: value for name, value in known.items() if value is not None},
    }
