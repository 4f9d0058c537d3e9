"""One call of a tool by a model, from its name to its result: found, allowed (by a person, where that is needed), executed, told.

Whatever goes wrong with a call is told to the model as its result; it is not the end of the run.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import orjson
import structlog

from homeport.agents.approvals import Approvals
from homeport.agents.context import NO_RESULT
from homeport.agents.journal import Journal
from homeport.agents.outputs import blocks_of, text_of, tool_use
from homeport.agents.run_rows import Entry
from homeport.agents.steps import Step, Thought
from homeport.agents.toolbox import FAILURES_ALLOWED, Offer, Toolbox
from homeport.errors import AppError, PermissionMissing
from homeport.models import ToolCall
from homeport.tools import ToolContext, ToolOutput, Tools

Status = Literal["ok", "error", "denied", "expired"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Outcome:
    status: Status
    text: str
    output: ToolOutput | None = None


class _Refused(Exception):
    """A call that is not executed, and why."""

    def __init__(self, text: str, status: Status = "error") -> None:
        super().__init__(text)
        self.status: Status = status


class ToolUse:
    """Carries out the calls of one run."""

    def __init__(self, tools: Tools, approvals: Approvals, toolbox: Toolbox, journal: Journal, tell: Callable[[Step], None]) -> None:
        self._tools = tools
        self._approvals = approvals
        self._toolbox = toolbox
        self._journal = journal
        self._tell = tell

    async def run(self, call: ToolCall, *, is_again: bool = False) -> dict[str, Any]:
        """Carry out a call and return its result as a message, which is written while the model is asked with it. ``is_again``: it was
        begun by a process that is gone, perhaps before its result was written.

        Raises RunLost, and Unavailable when the database does not answer.
        """
        started = time.monotonic()
        offer = self._toolbox.find(call.name)
        arguments = read_arguments(call.arguments)
        outcome = await self._outcome(call, offer, arguments, is_again=is_again)
        text = outcome.text
        if offer is not None and not self._toolbox.is_off(call.name):
            self._toolbox.note(call.name, is_ok=outcome.status == "ok")
            if self._toolbox.is_off(call.name):
                text += f"\n\nThis tool has failed {FAILURES_ALLOWED} times in a row and is switched off for the rest of this answer."
        server, tool = (offer.server, offer.tool.name) if offer is not None else ("", call.name)
        duration_s = time.monotonic() - started
        message = {"role": "tool", "tool_call_id": call.id, "content": text}
        facts = {"server": server or None, "tool": tool[:200], "tool_call_id": call.id, "outcome": outcome.status}
        event = self._journal.event("tool.finished", **facts, duration_ms=round(duration_s * 1000, 1))
        self._journal.write_soon(Entry([message], [event], is_quick=True))
        self._tell(
            tool_use(
                tool=tool, server=server, call_id=call.id, status=outcome.status, duration_s=duration_s, arguments=arguments, text=text
            )
        )
        if outcome.output is not None:
            for block in blocks_of(server, outcome.output):
                self._tell(block)
        return message

    async def _outcome(self, call: ToolCall, offer: Offer | None, arguments: Mapping[str, Any] | None, *, is_again: bool) -> _Outcome:
        try:
            if offer is None:
                names = ", ".join(spec.name for spec in self._toolbox.specs()) or "none"
                raise _Refused(f"There is no tool '{call.name}'. The tools are: {names[:2000]}.")
            if self._toolbox.is_off(call.name):
                raise _Refused("This tool is switched off for the rest of this answer, because it has failed too often.")
            if arguments is None:
                raise _Refused("The arguments are not a JSON object. Call the tool again with arguments that are.")
            if is_again:
                output = await self._execute_again(call, offer, arguments)
            else:
                self._tell(Thought(f"Using {offer.tool.name} …"))
                output = await self._execute(call, offer, arguments)
        except _Refused as refused:
            return _Outcome(refused.status, str(refused))
        text = text_of(output, self._journal.begun.agent.limits.result_chars)
        return _Outcome("error" if output.is_error else "ok", text, output)

    async def _execute(self, call: ToolCall, offer: Offer, arguments: Mapping[str, Any]) -> ToolOutput:
        try:
            return await self._call(offer, arguments)
        except PermissionMissing as missing:
            if missing.code != "PERMISSION_REQUIRED":
                raise _Refused(f"{missing.message} Do not try again.", "denied") from missing
            permission = missing.permission
        await self._ask(call, offer, arguments, permission)
        return await self._call_once(offer, arguments)

    async def _execute_again(self, call: ToolCall, offer: Offer, arguments: Mapping[str, Any]) -> ToolOutput:
        """The call may have taken effect already, unless a person was still to allow it: only what does no harm is done once more."""
        asked = await self._journal.asked_for(call.id)
        if asked is not None and not asked.is_used:
            await self._ask(call, offer, arguments, asked.permission)
            return await self._call_once(offer, arguments)
        if offer.tool.is_read_only or offer.tool.is_idempotent:
            self._tell(Thought(f"Using {offer.tool.name} again, after an interruption …"))
            if asked is not None:
                return await self._call_once(offer, arguments)
            return await self._execute(call, offer, arguments)
        raise _Refused(NO_RESULT)

    async def _ask(self, call: ToolCall, offer: Offer, arguments: Mapping[str, Any], permission: str) -> None:
        """Return when a person has allowed this one call. Raises _Refused."""
        begun, limits = self._journal.begun, self._journal.begun.agent.limits
        self._journal.has_asked = True
        approval = await self._approvals.ask(
            run_id=begun.id,
            principal=self._journal.principal,
            agent=begun.agent.slug,
            server=offer.server,
            tool=offer.tool.name,
            call_id=call.id,
            arguments=arguments,
            permission=permission,
            wait_s=limits.approval_s,
        )
        self._tell(Thought(f"Waiting for a person to allow {offer.server}/{offer.tool.name}: homeport approvals grant {approval.id}"))
        outcome = await self._journal.wait_for_person(partial(self._approvals.wait, approval))
        await self._journal.go_on()
        if outcome == "expired":
            raise _Refused("Nobody has allowed this call in time, so it was not made. Go on without it.", "expired")
        if outcome == "denied":
            raise _Refused("A person has refused this call, so it was not made. Go on without it.", "denied")
        if not await self._approvals.mark_used(approval.id):
            raise _Refused(NO_RESULT)

    async def _call_once(self, offer: Offer, arguments: Mapping[str, Any]) -> ToolOutput:
        try:
            return await self._call(offer, arguments, approved=True)
        except PermissionMissing as missing:
            raise _Refused(f"{missing.message} Do not try again.", "denied") from missing

    async def _call(self, offer: Offer, arguments: Mapping[str, Any], *, approved: bool = False) -> ToolOutput:
        begun, principal = self._journal.begun, self._journal.principal
        context = ToolContext(principal, begun.agent.slug, begun.workspace, begun.id, self._journal.wait_for)
        limit_s = begun.agent.limits.tool_time_s
        try:
            return await self._tools.execute(
                principal, offer.server, offer.tool.name, arguments, context=context, approved=approved, timeout_s=limit_s
            )
        except PermissionMissing:
            raise
        except AppError as error:
            raise _Refused(error.message) from error
        except Exception as error:
            log.exception("a tool failed inside the server", server=offer.server, tool=offer.tool.name, run_id=str(begun.id))
            raise _Refused("The tool failed inside the server.") from error


def read_arguments(text: str) -> dict[str, Any] | None:
    """The arguments of a call; None when they are not a JSON object. No text at all stands for no arguments."""
    try:
        value = orjson.loads(text) if text.strip() else {}
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
