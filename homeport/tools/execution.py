"""One execution of a tool: what was asked for, what was decided about it, and what is recorded."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from homeport.errors import AppError, PermissionMissing
from homeport.identity import Principal
from homeport.tools.builtin import ToolContext
from homeport.tools.permission import tool_permission
from homeport.tools.rules import Decision, Rules, agent_subject, app_subject
from homeport.tools.stored import Provider


@dataclass(slots=True)
class Execution:
    """What ``Tools.execute`` was given, and what the execution has come to know of itself."""

    principal: Principal | None
    server: str
    tool: str
    provider: Provider | None
    agent: str | None
    context: ToolContext | None
    approved: bool
    timeout_s: float | None
    decision: Decision | None = None
    _started: float = field(default_factory=time.monotonic)

    def decide(self, rules: Rules, server: str) -> None:
        """Decide by the rules. ``server`` is the server's name. Raises PermissionMissing when the tool is denied."""
        self.decision = decide(rules, self.principal, self.agent, server, self.tool)
        if self.decision == "deny":
            raise PermissionMissing(tool_permission(server, self.tool), denied=True)

    def facts(self, outcome: str, code: str | None) -> dict[str, Any]:
        """What is recorded of it, however it ended."""
        return {
            "server": self.server,
            "tool": self.tool,
            "agent": self.agent,
            "run_id": str(self.context.run_id) if self.context is not None else None,
            "provider": self.provider,
            "decision": self.decision,
            "outcome": outcome,
            "code": code,
            "duration_ms": round((time.monotonic() - self._started) * 1000, 1),
        }


def subjects(principal: Principal | None, agent: str | None = None) -> Sequence[str]:
    """Whose rules count. A key is bound by those for everybody alone: it is the operator's own."""
    own = [app_subject(principal.id)] if principal is not None and principal.kind == "app" else []
    return [*own, agent_subject(agent)] if agent else own


def decide(rules: Rules, principal: Principal | None, agent: str | None, server: str, tool: str) -> Decision:
    """What the rules say about a tool that a principal uses, or an agent for it. No rule binds the operator, who is None."""
    return "allow" if principal is None else rules.decide(subjects(principal, agent), server, tool)


def outcome(error: BaseException) -> str:
    """How an execution ended that raised this."""
    if not isinstance(error, AppError):
        return "failed" if isinstance(error, Exception) else "cancelled"
    return "failed" if error.status >= 500 else "refused"
