"""Tool calls as they stand in OpenAI's protocol and in what others make of it: read, put together from pieces, and done without.

An answer may hold MAX_CALLS calls with MAX_ARGUMENTS characters of arguments each; an id is made where there is none. Reasoning is cut
after MAX_REASONING characters. ``calls`` are of a strange kind on purpose: anything may come from an upstream.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import orjson

from adapters.chat import ChatRequest, Endpoint, ToolCall, text_of
from adapters.model_failures import bad_answer

MAX_CALLS = 64
MAX_ARGUMENTS = 256 * 1024
MAX_REASONING = 256 * 1024
# Gemini signs its thoughts in them; without the whole of it, it refuses the call's result.
MAX_ID_LENGTH = 32 * 1024

_REFUSAL_STATUSES = frozenset({400, 404, 422, 500, 501})  # OpenRouter's is 404, that of llama.cpp may be 500
_TOOLS = r"['\"`\[]*(?:tools?(?:[ _-](?:use|calls?|calling))?|functions?(?:[ _-]call(?:s|ing))?)\b(?![\[.])"
_REFUSED_TOOLS = re.compile(
    # Ollama, Bedrock, DeepSeek, LiteLLM
    rf"(?:not|n't) (?:currently )?support (?:the )?(?:use of |param(?:eter)?s?:? |any )?{_TOOLS}|"
    # OpenAI, Groq, Gemini, Mistral and others
    rf"{_TOOLS}['\"`]? (?:is|are) (?:currently )?not (?:yet )?(?:supported|enabled|available|allowed|permitted)|"
    rf"(?:unsupported|unknown|unrecognized)(?: request)? (?:parameter|argument|field|name)s?(?: supplied)?:? {_TOOLS}|"
    # vLLM, llama.cpp, OpenRouter, Pydantic
    r"requires --enable-auto-tool-choice|tools param requires|no endpoints found that support tool use|extra_forbidden.{0,40}\"tools\"",
    re.IGNORECASE | re.DOTALL,
)


def describe_tools(request: ChatRequest, without: frozenset[str]) -> dict[str, Any]:
    """What a request says of tools, none where the options in ``without`` do not let it."""
    if not sends_tools(request, without):
        return {}
    tools = [
        {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters}}
        for tool in request.tools
    ]
    has_choice = request.tool_choice is not None and "tool_choice" not in without
    return {"tools": tools, "tool_choice": request.tool_choice} if has_choice else {"tools": tools}


def sends_tools(request: ChatRequest, without: frozenset[str]) -> bool:
    """Whether tools are offered. Where nothing can be said of the choice, a model that must not call any is offered none."""
    if not request.tools or "tools" in without:
        return False
    return request.tool_choice != "none" or "tool_choice" not in without


def messages_of(request: ChatRequest, without: frozenset[str]) -> Sequence[Mapping[str, Any]]:
    """The messages to send: as they are beside tools, else with calls and results told as text, which every model takes."""
    messages = request.messages
    if sends_tools(request, without) or not any(message.get("tool_calls") or message.get("role") == "tool" for message in messages):
        return messages
    told: list[Mapping[str, Any]] = []
    names: dict[Any, str] = {}
    is_result = False
    for message in messages:
        if message.get("role") == "tool":
            result = f"[Result of {names.get(message.get('tool_call_id'), 'a tool')}]\n{text_of(message.get('content'))}"
            if is_result:  # many chat templates want the roles to alternate
                result = f"{told.pop()['content']}\n\n{result}"
            told.append({"role": "user", "content": result})
            is_result = True
            continue
        is_result = False
        if calls := message.get("tool_calls"):
            names |= {call.get("id"): call["function"]["name"] for call in calls}
            lines = [f"[Called {call['function']['name']} with {call['function']['arguments']}]" for call in calls]
            text = "\n".join(filter(None, [text_of(message.get("content")), *lines]))
            told.append({"role": "assistant", "content": text})
        else:
            told.append(message)
    return told


def tool_option_to_leave_out(request: ChatRequest, status: int, refusal: str) -> str | None:
    """``tools`` or ``tool_choice`` when an upstream refuses it as such, so that the request is worth repeating without it."""
    if not request.tools or status not in _REFUSAL_STATUSES:
        return None
    if request.tool_choice is not None and "tool_choice" in refusal:
        return "tool_choice"
    return "tools" if _REFUSED_TOOLS.search(refusal) else None


class _Call:
    """A call as far as its pieces have come."""

    def __init__(self) -> None:
        self.id = self.name = ""
        self.arguments: list[str] = []
        self.length = 0

    def is_complete(self) -> bool:
        """Whether the arguments are an object, so that no more of them is to come."""
        if not (self.arguments and self.arguments[-1].rstrip().endswith("}")):
            return False
        try:
            orjson.loads("".join(self.arguments))
        except orjson.JSONDecodeError:
            return False
        return True


class Extras:
    """What an answer has beside its text: tool calls and reasoning, taken from a message or from the pieces of a stream."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._reasoning: list[str] = []
        self._reasoning_length = 0

    def read(self, piece: Mapping[str, Any], *, is_whole: bool = False) -> None:
        """Take in a message, or a piece of one. Raises when there are too many calls, or too long ones."""
        if reasoning := text_of(piece.get("reasoning_content") or piece.get("reasoning")):
            self._reasoning.append(reasoning[: MAX_REASONING - self._reasoning_length])
            self._reasoning_length += len(self._reasoning[-1])
        calls = piece.get("tool_calls")
        for place, call in enumerate(calls if isinstance(calls, list) else ()):
            if isinstance(call, Mapping) and isinstance(function := call.get("function"), Mapping):
                self._read_call(place if is_whole else call.get("index"), call.get("id"), function)

    @property
    def is_empty(self) -> bool:
        """Whether there was neither a call nor reasoning."""
        return not (self._calls or self._reasoning)

    @property
    def reasoning(self) -> str:
        """All reasoning so far."""
        return "".join(self._reasoning)

    def calls(self) -> tuple[ToolCall, ...]:
        """The calls, each with an id of its own."""
        found: dict[str, ToolCall] = {}
        for call in self._calls:
            call_id = call.id if call.id and call.id not in found else f"call_{uuid4().hex}"
            found[call_id] = ToolCall(call_id, call.name, "".join(call.arguments) or "{}")
        return tuple(found.values())

    def _read_call(self, index: Any, call_id: Any, function: Mapping[str, Any]) -> None:
        given = function.get("arguments")
        name, arguments = _clean(function.get("name")), _clean(given) if isinstance(given, str) else _dumped(given)
        call_id = _clean(call_id)
        if len(call_id) > MAX_ID_LENGTH:
            call_id = ""
        call = self._find(index, call_id, name, has_arguments=bool(arguments))
        if name and name != call.name:
            call.name += name
        if call_id and not call.id:
            call.id = call_id
            self._by_id[call_id] = call
        if arguments:
            call.arguments.append(arguments)
            call.length += len(arguments)
        if len(call.name) > MAX_ARGUMENTS or call.length > MAX_ARGUMENTS:
            raise bad_answer(self._endpoint, "called a tool with arguments that are too long")

    def _find(self, index: Any, call_id: str, name: str, *, has_arguments: bool) -> _Call:
        """The call that a piece continues, or a new one. Servers number calls, or name them, or do both wrongly."""
        known = self._by_index.get(index) if isinstance(index, int) else self._by_id.get(call_id)
        if known is None and not isinstance(index, int) and not call_id and self._calls:
            known = self._calls[-1]
        if known is not None and name and known.name:
            # A piece with a name begins a call, unless it repeats that of the call which it continues.
            is_same = call_id == known.id if call_id and known.id else name == known.name and not (has_arguments and known.is_complete())
            known = known if is_same else None
        if known is None:
            known = _Call()
            self._calls.append(known)
            if len(self._calls) > MAX_CALLS:
                raise bad_answer(self._endpoint, f"called more than {MAX_CALLS} tools at once")
        if isinstance(index, int):
            self._by_index[index] = known
        return known


def _clean(value: Any) -> str:
    """A text without NUL, which no database takes."""
    return text_of(value).replace("\0", "")


def _dumped(arguments: Any) -> str:
    return "" if arguments is None else orjson.dumps(arguments).decode()
