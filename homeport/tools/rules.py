"""Rules: who may use which tool. A rule names a subject (an app, an agent, everybody), a pattern of tools, and a decision."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from homeport.errors import InvalidRequest, NotFound

Decision = Literal["allow", "ask", "deny"]

EVERYBODY = "everybody"
_STRICTNESS: Mapping[Decision, int] = {"allow": 0, "ask": 1, "deny": 2}


@dataclass(frozen=True, slots=True)
class ToolRule:
    """A stored rule. An empty ``server`` means every server, an empty ``tool`` every tool of the server."""

    id: UUID
    subject: str
    server: str
    tool: str
    decision: Decision
    decided_by: str
    created_at: datetime

    @property
    def pattern(self) -> str:
        """The tools that it is about, for people: ``*``, ``server/*`` or ``server/tool``."""
        return f"{self.server}/{self.tool or '*'}" if self.server else "*"


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules, ready to decide with."""

    rules: tuple[ToolRule, ...] = ()
    _by_subject: Mapping[str, Mapping[tuple[str, str], Decision]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_subject: dict[str, dict[tuple[str, str], Decision]] = {}
        for rule in self.rules:
            by_subject.setdefault(rule.subject, {})[rule.server, rule.tool] = rule.decision
        object.__setattr__(self, "_by_subject", by_subject)

    def decide(self, subjects: Iterable[str], server: str, tool: str) -> Decision:
        """What holds for a tool that all ``subjects`` (an app, an agent) use together: the strictest of what holds for each of them.

        Of a subject's own rules the most exact one counts. It goes before what is ruled for everybody, unless that is more exact and
        stricter as well. Where no rule applies, a tool is allowed.
        """
        general = self._find(EVERYBODY, server, tool)
        decisions = [_combine(own, general) for subject in subjects if (own := self._find(subject, server, tool)) is not None]
        if not decisions:
            return general[1] if general is not None else "allow"
        return max(decisions, key=_STRICTNESS.__getitem__)

    def says(self, subject: str, server: str, tool: str) -> Decision | None:
        """What the most exact of a subject's own rules says; None without one."""
        found = self._find(subject, server, tool)
        return found[1] if found is not None else None

    def may_use_some(self, subjects: Iterable[str], server: str) -> bool:
        """Whether there can be a tool of this server that is not denied to ``subjects``."""
        known = list(subjects)
        named = {tool for subject in (EVERYBODY, *known) for where, tool in self._by_subject.get(subject, ()) if where == server}
        return any(self.decide(known, server, tool) != "deny" for tool in {"", *named})

    def _find(self, subject: str, server: str, tool: str) -> tuple[int, Decision] | None:
        """How exact the most exact rule of a subject is, and what it says."""
        if (rules := self._by_subject.get(subject)) is None:
            return None
        for exactness, pattern in ((2, (server, tool)), (1, (server, "")), (0, ("", ""))):
            if (decision := rules.get(pattern)) is not None:
                return exactness, decision
        return None


def _combine(own: tuple[int, Decision], general: tuple[int, Decision] | None) -> Decision:
    if general is None or own[0] >= general[0]:
        return own[1]
    return max(own[1], general[1], key=_STRICTNESS.__getitem__)


def app_subject(app_id: UUID) -> str:
    """The subject of rules about an app."""
    return f"app:{app_id}"


def agent_subject(slug: str) -> str:
    """The subject of rules about an agent."""
    return f"agent:{slug}"


def parse_pattern(text: str, servers: Iterable[str]) -> tuple[str, str]:
    """The server and the tool that ``*``, ``server/*`` or ``server/tool`` mean, empty for all.

    Both names may contain slashes: of ``servers``, the longest that fits is meant. Raises InvalidRequest for no pattern, NotFound when it
    begins with no server that there is.
    """
    if text == "*":
        return "", ""
    if "/" not in text.strip("/"):
        raise InvalidRequest(f"'{text[:200]}' names no tool: write SERVER/TOOL, SERVER/* for all of a server's, or '*' for all.")
    server = max((name for name in servers if text.startswith(f"{name}/") and len(text) > len(name) + 1), key=len, default=None)
    if server is None:
        raise NotFound(f"'{text[:200]}' begins with the name of no MCP server. Show them: homeport mcp list", code="MCP_SERVER_NOT_FOUND")
    tool = text[len(server) + 1 :]
    return server, "" if tool == "*" else tool
