"""The loop: the model is asked, the tools that it calls are used, their results are shown to it, until it answers without calling any."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import orjson

from homeport.agents.asking import Asking, Reply, too_many_tokens
from homeport.agents.context import Message, estimate, fit_name, repair
from homeport.agents.journal import Journal
from homeport.agents.run_rows import Entry, RunRows
from homeport.agents.run_statements import HISTORY
from homeport.agents.steps import Step, Thought
from homeport.agents.tool_use import ToolUse, read_arguments
from homeport.agents.toolbox import Toolbox
from homeport.models import ToolCall

# A model that calls hundreds of tools at once has lost its way.
MAX_CALLS = 32
MAX_ID = 200
# Earlier messages that are read at a time: a few more than seem to fit, and never so many that they could fill the memory.
SPARE, MOST_READ = 25, 400
MAX_TEXT = 1_000_000


class Loop:
    """Carries out one run, from what is there of it to its answer."""

    def __init__(
        self, rows: RunRows, journal: Journal, toolbox: Toolbox, asking: Asking, tool_use: ToolUse, tell: Callable[[Step], None]
    ) -> None:
        self._rows = rows
        self._journal = journal
        self._toolbox = toolbox
        self._asking = asking
        self._tool_use = tool_use
        self._tell = tell
        self._messages: list[Message] = []
        self._call_ids: set[str] = set()

    async def run(self, question: str | None) -> Reply:
        """Answer the ``question``, or when it is None, go on where the run was left. The last reply, which is the answer, is not written.

        Raises what the models raise, UpstreamError (AGENT_TOKEN_LIMIT), RunLost, and Unavailable when the database does not answer.
        """
        for sentence in self._toolbox.missing:
            self._tell(Thought(sentence))
        await self._remember(question)
        limits = self._journal.begun.agent.limits
        while True:
            tokens_left = limits.tokens - self._journal.tokens
            if tokens_left <= 0:
                raise too_many_tokens(self._journal.begun.agent)
            specs = self._toolbox.specs()
            if is_last := bool(specs) and self._journal.turns + 1 >= limits.turns:
                specs = []
            reply = await self._asking.ask(repair(self._messages), specs, tokens_left=tokens_left, is_last=is_last)
            if not reply.tool_calls or not specs:
                return reply
            await self._use_tools(reply)

    async def _remember(self, question: str | None) -> None:
        """Read what was said before, as much as the model can be shown, and finish what an interrupted process has begun."""
        self._messages = await self._read_earlier()
        self._call_ids = {call["id"] for message in self._messages for call in message.get("tool_calls") or ()}
        if question is not None:
            self._messages.append({"role": "user", "content": question})
            return
        if calls := _open_calls(self._messages):
            self._messages += await _together([self._tool_use.run(call, is_again=True) for call in calls])

    async def _read_earlier(self) -> list[Message]:
        """As much of what was said before as fits into the model's window, and a little more. Most conversations came with the run; of a
        long one the rest is read in one go."""
        begun = self._journal.begun
        first, found = begun.earlier[:1], [content for _, content in begun.earlier]
        is_more, tokens = len(found) == HISTORY, estimate(found)
        while is_more and (missing := await self._asking.room() - tokens) > 0:
            # As many as are missing if they are like those that were read.
            count = min(missing * len(found) // tokens + SPARE, MOST_READ)
            first = await self._rows.earlier(begun.session_id, first[0][0], count)
            more = [content for _, content in first]
            is_more, tokens, found = len(more) == count, tokens + estimate(more), [*more, *found]
        return found

    async def _use_tools(self, reply: Reply) -> None:
        calls = [self._tidy(call) for call in reply.tool_calls[:MAX_CALLS]]
        if reply.text.strip():
            self._tell(Thought(reply.text))
        message = {"role": "assistant", "content": reply.text[:MAX_TEXT], "tool_calls": [_to_message(call) for call in calls]}
        started = [self._journal.event("tool.started", **self._facts(call)) for call in calls]
        # Before a tool is called that changes something, it is safe from a crash of the machine that it was to be called.
        is_quick = all(offer is None or offer.tool.is_read_only for offer in map(self._toolbox.find, (call.name for call in calls)))
        entry = entry_of(self._journal, reply, messages=[message], events=started, tool_calls=len(calls), is_quick=is_quick)
        await self._journal.write(entry)
        self._messages.append(message)
        self._messages += await _together([self._tool_use.run(call) for call in calls])

    def _facts(self, call: ToolCall) -> dict[str, str | None]:
        offer = self._toolbox.find(call.name)
        return {
            "server": offer.server if offer is not None else None,
            "tool": offer.tool.name if offer is not None else call.name,
            "tool_call_id": call.id,
        }

    def _tidy(self, call: ToolCall) -> ToolCall:
        """A call as it can be stored and shown to a model again: with an id of its own, a name that fits, arguments that are an object."""
        is_fit = 0 < len(call.id) <= MAX_ID and call.id.isprintable() and call.id not in self._call_ids
        call_id = call.id if is_fit else f"call_{uuid4().hex[:24]}"
        self._call_ids.add(call_id)
        return replace(call, id=call_id, name=fit_name(call.name))


def entry_of(
    journal: Journal,
    reply: Reply,
    *,
    messages: Sequence[Message],
    events: Sequence[Any] = (),
    tool_calls: int = 0,
    state: str | None = None,
    answers: int = 0,
    is_quick: bool = False,
) -> Entry:
    """What is written when the model has replied."""
    answered = journal.event(
        "model.answered",
        turn=journal.turns + 1,
        provider=reply.provider,
        model=reply.model,
        tool_calls=tool_calls,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        duration_ms=round(reply.duration_s * 1000, 1),
    )
    return Entry(
        messages,
        [answered, *events],
        state,
        provider=reply.provider,
        model=reply.model,
        turns=1,
        tool_calls=tool_calls,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        answers=answers,
        is_quick=is_quick,
    )


async def _together(calls: Sequence[Coroutine[Any, Any, Message]]) -> list[Message]:
    """The results of calls that are made at the same time, in the order of the calls. When one raises, the others are cancelled."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _open_calls(messages: Sequence[Message]) -> list[ToolCall]:
    """The calls at the end of a conversation that have no result."""
    answered = set()
    for message in reversed(messages):
        if message["role"] == "tool":
            answered.add(message["tool_call_id"])
            continue
        calls = message.get("tool_calls") or ()
        return [
            ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls if call["id"] not in answered
        ]
    return []


def _to_message(call: ToolCall) -> dict[str, Any]:
    # Some providers read the arguments of past calls, and refuse a conversation in which they are broken.
    arguments = call.arguments if read_arguments(call.arguments) is not None else orjson.dumps({"not_json": call.arguments[:1000]}).decode()
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments or "{}"}}
