"""The tools that an agent is offered in a run: which, under which names, and back from a name to the tool."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from homeport.agents.catalog import Agent
from homeport.agents.context import fit_name
from homeport.errors import AppError
from homeport.identity import Principal
from homeport.models import ToolSpec
from homeport.tools import BUILTIN_SERVER, McpTool, Tools

MAX_NAME = 64
MAX_DESCRIPTION = 4000
MAX_OFFERED = 128
FAILURES_ALLOWED = 3

_HASH_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool under the name by which the model knows it."""

    name: str
    server: str
    tool: McpTool


class Toolbox:
    """What is offered, and what of it has failed too often. ``missing`` says in sentences what could not be offered."""

    def __init__(self, offers: Iterable[Offer] = (), missing: Sequence[str] = ()) -> None:
        self.missing = missing
        self._offers: Mapping[str, Offer] = {offer.name: offer for offer in offers}
        self._failures: Counter[str] = Counter()

    @classmethod
    async def open(cls, tools: Tools, principal: Principal, agent: Agent) -> "Toolbox":
        """The tools that the agent's patterns name and that it may use for the principal, by server and name. Servers that do not run are
        started, all at once; one that cannot be is left out. Without patterns nothing is asked for."""
        if not agent.tools:
            return cls()
        servers = [BUILTIN_SERVER, *(server.name for server in await tools.list_servers(principal) if server.enabled)]
        wanted = [server for server in servers if any(_may_name(pattern, server) for pattern in agent.tools)]
        lists = await asyncio.gather(*(_list(tools, principal, agent, server) for server in wanted))
        found: list[tuple[str, McpTool]] = []
        missing = [
            f"The tools of '{pattern}' are not there." for pattern in agent.tools if not any(_may_name(pattern, each) for each in servers)
        ]
        for server, listed in zip(wanted, lists, strict=True):
            if isinstance(listed, AppError):
                missing.append(f"The tools of '{server}' cannot be used now: {listed.message}")
                continue
            found += [(server, tool) for tool in listed if any(_names(pattern, server, tool.name) for pattern in agent.tools)]
        if len(found) > MAX_OFFERED:
            missing.append(f"Of {len(found)} tools only the first {MAX_OFFERED} are offered.")
        return cls(_named(found[:MAX_OFFERED]), missing)

    def specs(self) -> list[ToolSpec]:
        """What the model is offered now."""
        return [
            ToolSpec(each.name, (each.tool.description or each.tool.title or each.tool.name)[:MAX_DESCRIPTION], each.tool.input_schema)
            for each in self._offers.values()
            if not self.is_off(each.name)
        ]

    def find(self, name: str) -> Offer | None:
        """The tool of this name."""
        return self._offers.get(name)

    def is_off(self, name: str) -> bool:
        """Whether it has failed so often, one time after the other, that it is not called any more."""
        return self._failures[name] >= FAILURES_ALLOWED

    def note(self, name: str, *, is_ok: bool) -> None:
        """Note how a call has ended."""
        self._failures[name] = 0 if is_ok else self._failures[name] + 1


async def _list(tools: Tools, principal: Principal, agent: Agent, server: str) -> Sequence[McpTool] | AppError:
    try:
        return await tools.list(principal, server, agent=agent.slug)
    except AppError as error:
        return error


def _may_name(pattern: str, server: str) -> bool:
    return pattern == "*" or pattern.startswith(f"{server}/")


def _names(pattern: str, server: str, tool: str) -> bool:
    return pattern in ("*", f"{server}/*", f"{server}/{tool}")


def _named(found: Sequence[tuple[str, McpTool]]) -> list[Offer]:
    """Built-in tools keep their names, those of servers get their server's before it, so that no server can pass off its tool as
    another's."""
    offers: dict[str, Offer] = {}
    for server, tool in found:
        plain = tool.name if server == BUILTIN_SERVER else f"{server}__{tool.name}"
        name = fit_name(plain)
        if name != plain or name in offers:
            digest = hashlib.sha256(f"{server}/{tool.name}".encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
            name = f"{name[: MAX_NAME - _HASH_LENGTH - 1]}_{digest}" if name in offers or len(plain) > MAX_NAME else name
        offers[name] = Offer(name, server, tool)
    return [*offers.values()]
