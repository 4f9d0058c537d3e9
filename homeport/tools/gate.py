"""Whether a tool may be executed for somebody, once the rules have not denied it: what has to be held, and what has to be asked for."""

from homeport.errors import PermissionMissing, Unauthorized
from homeport.identity import Identity, Principal
from homeport.tools.execution import Execution
from homeport.tools.permission import TOOLS_PERMISSION, tool_permission
from homeport.tools.rules import Rules, agent_subject


class Gate:
    """Lets an execution through, or raises what is missing."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def admit(self, execution: Execution, rules: Rules, server: str, needed: str | None) -> None:
        """Return when the tool of ``server`` may be executed. ``needed`` is what has to be held whatever the rules say; None: nothing.

        Raises PermissionMissing for what is denied, or has to be asked for where no person has approved this call; Unauthorized for a
        principal that is gone.
        """
        principal, permission = execution.principal, tool_permission(server, execution.tool)
        if principal is None:
            return
        asked = [permission] if execution.decision == "ask" else []
        if needed == TOOLS_PERMISSION:
            # All tools of MCP servers, or this one alone: the smaller permission is the one to ask for.
            wanted = asked if await self._holds_all(principal) else [permission]
        else:
            wanted = asked if needed is None else [needed, *asked]
        for name in wanted:
            await self._require(principal, name, approved=execution.approved)
        # A key holds everything, and so would never be asked; a rule about the agent itself is meant for whoever it works for.
        agent = execution.agent if principal.kind == "key" and not execution.approved else None
        if agent is not None and rules.says(agent_subject(agent), server, execution.tool) == "ask":
            raise PermissionMissing(permission)

    async def _holds_all(self, principal: Principal) -> bool:
        """Whether the principal may use the tools of all servers. Raises PermissionMissing when that was denied to it."""
        try:
            await self._require(principal, TOOLS_PERMISSION, approved=False)
        except PermissionMissing as missing:
            if missing.code == "PERMISSION_DENIED":
                raise
            return False
        return True

    async def _require(self, principal: Principal, permission: str, *, approved: bool) -> None:
        try:
            if await self._identity.require(principal, permission) is None:
                raise Unauthorized
        except PermissionMissing as missing:
            if not approved or missing.code == "PERMISSION_DENIED":
                raise
