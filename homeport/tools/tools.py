"""The registry of tools: the one list, and the only way to execute one.

Whatever executes a tool comes through ``Tools.execute``: an app, an agent, an MCP client of Homeport, the command line. There, in this
order: is there such a server and does it serve here, is the tool denied, is there such a tool, is it what was approved, do the arguments
fit, does somebody have to be asked; then the call, within its limits; then one event and one line in the audit log, however it ended.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.mcp import McpSessions, McpTool, ProgressCallback, ToolOutput
from adapters.postgres import Database, Notifications
from homeport.errors import AppError, Forbidden, NotFound, UpstreamTimeout
from homeport.events import Events
from homeport.identity import Identity, Principal
from homeport.secrets import SecretBox
from homeport.tools.arguments import Arguments
from homeport.tools.audit import Audit
from homeport.tools.builtin import BuiltinTool, OfferedBuiltin, ToolContext, offer_builtins
from homeport.tools.checking import BUILTIN_SERVER
from homeport.tools.execution import Execution, decide, outcome, subjects
from homeport.tools.gate import Gate
from homeport.tools.offers import OfferedTool, Offers
from homeport.tools.permission import TOOLS_PERMISSION
from homeport.tools.rule_store import ToolRules
from homeport.tools.servers import McpServers
from homeport.tools.stored import McpServer, Provider, StoredTools, find_problem

EXECUTED = "tool.executed"
MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class ServerTest:
    """Whether a server works, and a sentence that says so or what is wrong."""

    works: bool
    message: str


class Tools:
    """Lists tools and executes them. ``servers`` are those that give them, ``rules`` say who may use which.

    A principal of None is the operator at the command line, whom no rule binds. Run ``servers.run()`` in the background.
    """

    def __init__(
        self,
        database: Database,
        notifications: Notifications,
        secret_box: SecretBox,
        identity: Identity,
        sessions: McpSessions,
        events: Events,
        log_dir: Path,
    ) -> None:
        self._stored = StoredTools(database, notifications, secret_box)
        self._audit = Audit(events)
        self.servers = McpServers(database, secret_box, self._stored, sessions, self._audit, log_dir)
        self.rules = ToolRules(database, self._stored, self._audit)
        self._offers = Offers(database, notifications, self._stored, self.servers, sessions)
        self._gate = Gate(identity)
        self._sessions = sessions
        self._arguments = Arguments()
        self._builtins: dict[str, OfferedBuiltin] = {}
        self._notes: set[asyncio.Task[None]] = set()

    def add_builtins(self, tools: Iterable[BuiltinTool]) -> None:
        """Offer these tools to agents, under the server name BUILTIN_SERVER, in place of those that were offered before."""
        self._builtins = offer_builtins(tools)

    def builtins(self) -> Sequence[McpTool]:
        """The built-in tools, by name."""
        return [each.offered.tool for each in self._builtins.values()]

    async def list_servers(self, principal: Principal | None, *, provider: Provider | None = None) -> Sequence[McpServer]:
        """The servers by name, of one provider or all; not those whose tools are all denied to the principal."""
        stored = await self._stored.get()
        return [
            server
            for server in stored.servers.values()
            if provider in (None, server.provider) and (principal is None or stored.rules.may_use_some(subjects(principal), server.name))
        ]

    async def list(
        self, principal: Principal | None, server: str, *, provider: Provider | None = None, agent: str | None = None
    ) -> Sequence[McpTool]:
        """The tools of a server that the principal, and the agent that works for it, may use or ask for, by name. Starts the server when
        it does not run. With an agent BUILTIN_SERVER has tools as well.

        Left out are tools that are denied, and those whose description is no longer the one that was approved: a model must not read it.
        Raises NotFound for a server that is not there, and what the sessions raise.
        """
        rules = (await self._stored.get()).rules
        if agent is not None and server == BUILTIN_SERVER:
            return [each for each in self.builtins() if decide(rules, principal, agent, server, each.name) != "deny"]
        found = await self._find_server(server, provider)
        if principal is not None and not rules.may_use_some(subjects(principal, agent), found.name):
            return []
        offered = (await self._offers.of(found)).values()
        return [
            each.tool for each in offered if not each.is_changed and decide(rules, principal, agent, found.name, each.tool.name) != "deny"
        ]

    async def find(self, principal: Principal | None, server: str, tool: str, *, provider: Provider | None = None) -> McpTool:
        """One tool of those that ``list`` gives. Raises NotFound when it is not among them."""
        for each in await self.list(principal, server, provider=provider):
            if each.name == tool:
                return each
        raise _no_tool(server, tool)

    async def execute(
        self,
        principal: Principal | None,
        server: str,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        provider: Provider | None = None,
        agent: str | None = None,
        on_progress: ProgressCallback | None = None,
        context: ToolContext | None = None,
        approved: bool = False,
        timeout_s: float | None = None,
    ) -> ToolOutput:
        """Execute a tool and return what it gave; one that says that it failed (``is_error``) has given that.

        ``agent`` is the agent that uses it on behalf of the principal: both must be allowed to. With ``context`` the call is part of an
        agent's run: it reaches the built-in tools, and the principal must hold mcp.tools for those of MCP servers. ``approved``: a person
        has allowed this one call, so nobody is asked; what is denied stays denied. ``timeout_s`` bounds the call whatever it does.

        Raises NotFound (MCP_SERVER_NOT_FOUND, MCP_SERVER_DISABLED, MCP_TOOL_NOT_FOUND), PermissionMissing (denied, or to be asked for),
        Forbidden (TOOL_CHANGED), InvalidRequest with what is wrong with the arguments, UpstreamTimeout (TOOL_TIMEOUT), and what the
        sessions or the built-in tool raise. Cancelled, it cancels the call.
        """
        agent = context.agent if context is not None else agent
        execution = Execution(principal, server, tool, provider, agent, context, approved, timeout_s)
        try:
            output = await self._execute(execution, dict(arguments or {}), on_progress)
        except BaseException as error:
            await self._note(execution, outcome(error), getattr(error, "code", None))
            raise
        await self._note(execution, "tool error" if output.is_error else "ok", None)
        return output

    async def offered(self, server: str) -> Sequence[OfferedTool]:
        """All tools of a server as an operator sees them, by name, with those that have changed. Raises NotFound, and as sessions do."""
        return [*(await self._offers.of(await self.servers.get(server))).values()]

    async def approve(self, server: str, *, principal: Principal | None = None) -> Sequence[OfferedTool]:
        """Approve the tools of a server as it offers them now; returns them as they were before. Raises NotFound, and as sessions do."""
        found = await self.servers.get(server)
        before = [*(await self._offers.approve(found)).values()]
        changed = [each.tool.name for each in before if each.is_changed]
        await self._audit.note("mcp_tools.approved", principal, found.name, changed=len(changed))
        return before

    async def test(self, server: str) -> ServerTest:
        """Start a server if it does not run, and ask it for its tools. Raises NotFound."""
        found = await self.servers.get(server)
        try:
            offered = await self._offers.of(found, is_fresh=True)
        except AppError as error:
            problem = find_problem(found)
            return ServerTest(False, f"'{found.name}' does not work: {problem or error.message}")
        names = [name for name, each in offered.items() if not each.is_changed]
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        told = f"'{found.name}' works. Its tools: {', '.join(names[:MAX_NAMED]) or 'none'}{more}."
        if changed := [name for name, each in offered.items() if each.is_changed]:
            told += f" Changed, and refused until they are approved: {', '.join(changed)}."
        return ServerTest(True, told)

    async def _execute(self, execution: Execution, arguments: dict[str, Any], on_progress: ProgressCallback | None) -> ToolOutput:
        if execution.context is not None and execution.server == BUILTIN_SERVER:
            return await self._execute_builtin(execution, execution.context, arguments)
        server = await self._find_server(execution.server, execution.provider)
        execution.provider = server.provider
        rules = (await self._stored.get()).rules
        execution.decide(rules, server.name)
        offered = await self._find_offered(server, execution.tool)
        if offered.is_changed:
            raise Forbidden(
                f"The MCP server '{server.name}' has changed its tool '{execution.tool[:200]}' since it was approved. "
                f"An operator has to look at it: homeport mcp approve '{server.name}'",
                code="TOOL_CHANGED",
            )
        self._arguments.check(offered.fingerprint, offered.tool.input_schema, arguments)
        needed = TOOLS_PERMISSION if execution.context is not None else None
        await self._gate.admit(execution, rules, server.name, needed)
        spec, limit_s = self.servers.spec_of(server), execution.timeout_s
        timeout_s = spec.timeout_s if limit_s is None else min(spec.timeout_s, limit_s)
        return await self._sessions.call(spec, execution.tool, arguments, timeout_s=timeout_s, limit_s=limit_s, on_progress=on_progress)

    async def _execute_builtin(self, execution: Execution, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        rules = (await self._stored.get()).rules
        execution.decide(rules, BUILTIN_SERVER)
        if (found := self._builtins.get(execution.tool)) is None:
            raise NotFound(f"There is no built-in tool '{execution.tool[:200]}'.", code="MCP_TOOL_NOT_FOUND")
        self._arguments.check(found.offered.fingerprint, found.offered.tool.input_schema, arguments)
        await self._gate.admit(execution, rules, BUILTIN_SERVER, found.builtin.permission)
        limit = asyncio.timeout(execution.timeout_s)
        try:
            async with limit:
                return await found.builtin.run(context, arguments)
        except TimeoutError as error:
            if not limit.expired():
                raise
            message = f"The tool '{execution.tool}' was not done within {execution.timeout_s:g} s."
            raise UpstreamTimeout(message, code="TOOL_TIMEOUT") from error

    async def _find_server(self, name: str, provider: Provider | None) -> McpServer:
        server = await self.servers.get(name)
        if provider not in (None, server.provider):
            raise NotFound(
                f"The MCP server '{server.name}' is not {provider}, it is {server.provider}: ask with provider={server.provider}.",
                code="MCP_SERVER_NOT_FOUND",
            )
        if not server.enabled:
            raise NotFound(f"The MCP server '{server.name}' is switched off.", code="MCP_SERVER_DISABLED")
        return server

    async def _find_offered(self, server: McpServer, tool: str) -> OfferedTool:
        offered = (await self._offers.of(server)).get(tool)
        if offered is None or offered.is_changed:
            # One that is missing may be newer than the list that is kept; one that has changed may just have been approved elsewhere.
            offered = (await self._offers.of(server, is_fresh=True)).get(tool)
        if offered is None:
            raise _no_tool(server.name, tool)
        return offered

    async def _note(self, execution: Execution, outcome: str, code: str | None) -> None:
        """Record an execution; also when whoever asked for it has left meanwhile."""
        subject, facts = f"{execution.server}/{execution.tool}", execution.facts(outcome, code)
        writing = asyncio.create_task(self._audit.note(EXECUTED, execution.principal, subject, **facts))
        self._notes.add(writing)
        writing.add_done_callback(self._notes.discard)
        if execution.context is not None and execution.context.wait_for is not None:
            execution.context.wait_for(writing)
        else:
            await asyncio.shield(writing)


def _no_tool(server: str, tool: str) -> NotFound:
    return NotFound(f"The MCP server '{server[:200]}' has no tool '{tool[:200]}'.", code="MCP_TOOL_NOT_FOUND")
