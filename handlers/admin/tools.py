"""Rules: who may use which tool."""

from typing import Any

from homeport.clock import format_time
from homeport.home import Home
from homeport.identity import Principal
from homeport.paging import slice_page
from homeport.tools import ToolRule


async def list_rules(home: Home, subject: str | None = None, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """List the rules."""
    rules = await home.tools.rules.list(subject)
    return slice_page(rules, lambda each: str(each.id), scope=f"tool_rules {subject or ''}", limit=limit, cursor=cursor).render(_rule)


async def set_rule(home: Home, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """Decide about tools."""
    names = body.get("server", ""), body.get("tool", "")
    return _rule(await home.tools.rules.set(body["subject"], *names, body["decision"], by=principal.label, principal=principal))


async def remove_rule(home: Home, principal: Principal, rule_id: str) -> dict[str, Any]:
    """Forget a decision."""
    return _rule(await home.tools.rules.remove(rule_id, principal=principal))


def _rule(rule: ToolRule) -> dict[str, Any]:
    return {
        "id": str(rule.id),
        "subject": rule.subject,
        "server": rule.server,
        "tool": rule.tool,
        "decision": rule.decision,
        "decided_by": rule.decided_by,
        "created_at": format_time(rule.created_at),
    }
