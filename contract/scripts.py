"""A model of the stand-in that does what the user's message says, step by step: it speaks, thinks, calls tools, waits and fails.

The last message of the user holds the script, ``script:`` and a list of steps in JSON; what follows it does not matter. Each answer of the
model since that message is one step; the last step is repeated when there are no more. Without a script it echoes. A step may have

    say    a text; ``{results}`` in it becomes the contents of the tool results since the user's message, one a line
    call   a list of tool calls: ``tool`` (the name of an offered tool, or how it ends; any other is called as it is), ``arguments`` (an
           object, or a text that is passed on as it is, broken or not) and ``times`` (so many calls of it at once)
    think  what is told as reasoning
    wait   seconds before anything else; a step that does nothing else belongs to the next one
    hold   a file; nothing happens as long as it exists
    fail   a status to refuse with, ``"context"`` (the conversation is too long) or ``"cut"`` (a beginning, then the connection is cut)

Parts of the model's name, after dashes and in any order, choose how tool calls look on the wire: ``noid`` (none has an id), ``object``
(arguments are an object instead of a text), ``atonce`` (a stream has all calls in one piece, without an index), ``again`` (each piece of a
stream repeats id and name), ``stop`` (the finish reason is not ``tool_calls``), ``reasoning`` (that name instead of ``reasoning_content``);
``notools`` refuses tools as Ollama does, and with ``vllm``, ``openai`` or ``strict`` as those do. Histories that OpenAI, vLLM or Ollama
would refuse are refused: tool calls without results, results without calls, arguments that are no JSON.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from contract.answers import begin, chunk, completion, echo_of, end_of_stream, last_user_text, refuse, say
from contract.exchange import Cut, Exchange

PIECE = 12
HOLD_S = 0.1
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


async def script(exchange: Exchange) -> None:
    """The step of the script that is next."""
    if exchange.is_embedding or exchange.is_speech:
        return await say(exchange, [])
    request, ways = exchange.request, set(exchange.model.split("-")[1:])
    if "notools" in ways and _has_tools(request):
        return await _refuse_tools(exchange, ways)
    if problem := _problem_of(request):
        return await refuse(exchange, 400, problem, None, param="messages")
    step = _step(request)
    if seconds := step.get("wait"):
        await exchange.wait(seconds)
    while "hold" in step and Path(step["hold"]).exists():  # noqa: ASYNC240 - it is looked at ten times a second
        await exchange.wait(HOLD_S)
    if "fail" in step:
        return await _fail(exchange, step["fail"])
    calls = list(_calls(request, step)) if request.get("tools") and request.get("tool_choice") != "none" else []
    text = step.get("say", "" if calls else echo_of(last_user_text(request)))
    text = text.replace("{results}", "\n".join(str(message.get("content")) for message in _since(request) if message.get("role") == "tool"))
    thought = {"reasoning" if "reasoning" in ways else "reasoning_content": step["think"]} if "think" in step else {}
    await _answer(exchange, text, thought, calls, ways)


async def _answer(exchange: Exchange, text: str, thought: dict[str, str], calls: list[dict[str, Any]], ways: set[str]) -> None:
    words = re.findall(r"\S+\s*|\s+", text)
    reason = "tool_calls" if calls and "stop" not in ways else "stop"
    shown = [_shown(call, ways) for call in calls]
    tokens = len(words) + sum(len(str(call["function"]["arguments"])) // 4 + 1 for call in shown)
    if not exchange.is_stream:
        message = {"content": text or None, **thought, **({"tool_calls": shown} if shown else {})}
        return await exchange.answer(200, completion(exchange, message, tokens, reason))
    await exchange.start(200, "text/event-stream")
    await exchange.send(chunk(exchange, {"role": "assistant", "content": "" if text else None}))
    for delta in [{name: piece} for name, value in thought.items() for piece in _pieces(value)] + [{"content": word} for word in words]:
        await exchange.send(chunk(exchange, delta))
    for delta in _deltas(shown, ways):
        await exchange.send(chunk(exchange, {"tool_calls": delta}))
    await exchange.send(chunk(exchange, {}, reason))
    await exchange.send(end_of_stream(exchange, tokens), is_last=True)


def _deltas(calls: list[dict[str, Any]], ways: set[str]) -> Iterator[list[dict[str, Any]]]:
    if "atonce" in ways and calls:
        yield calls
        return
    for index, call in enumerate(calls):
        function = call["function"]
        if not isinstance(function["arguments"], str):
            yield [{"index": index, **call}]
            continue
        yield [{"index": index, **call, "function": {**function, "arguments": ""}}]
        for piece in _pieces(function["arguments"]):
            rest = {**call, "function": {**function, "arguments": piece}} if "again" in ways else {"function": {"arguments": piece}}
            yield [{"index": index, **rest}]


def _shown(call: dict[str, Any], ways: set[str]) -> dict[str, Any]:
    arguments = call["arguments"]
    if not isinstance(arguments, str) and "object" not in ways:
        arguments = orjson.dumps(arguments).decode()
    shown = {"id": call["id"], "type": "function", "function": {"name": call["tool"], "arguments": arguments}}
    return {name: value for name, value in shown.items() if name != "id" or "noid" not in ways}


def _step(request: dict[str, Any]) -> dict[str, Any]:
    _, _, rest = last_user_text(request).partition("script:")
    try:
        given, _ = json.JSONDecoder().raw_decode(rest.lstrip())
    except ValueError:
        return {}
    steps = list(_joined(given))
    answered = sum(message.get("role") == "assistant" for message in _since(request))
    return steps[min(answered, len(steps) - 1)] if steps else {}


def _joined(given: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The steps; those that only wait become part of the next one."""
    wait = 0.0
    for step in given:
        wait += step.get("wait", 0)
        if step.keys() - {"wait"}:
            yield {**step, "wait": wait}
            wait = 0.0
    if wait:
        yield {"wait": wait}


def _since(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages after the last one of the user."""
    messages = request.get("messages", [])
    last = max((place for place, message in enumerate(messages) if message.get("role") == "user"), default=-1)
    return list(messages[last + 1 :])


def _calls(request: dict[str, Any], step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    offered = [tool["function"]["name"] for tool in request["tools"]]
    calls = [call for call in step.get("call", ()) for _ in range(call.get("times", 1))]
    for place, call in enumerate(calls):
        name = call["tool"]
        found = name if name in offered else next((each for each in offered if each.endswith(name)), name)
        yield {"id": f"call_{len(request['messages'])}_{place}", "tool": found, "arguments": call.get("arguments", {})}


def _pieces(text: str) -> list[str]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]


def _has_tools(request: dict[str, Any]) -> bool:
    told = any("tool_calls" in message or message.get("role") == "tool" for message in request.get("messages", []))
    return told or bool(request.keys() & {"tools", "tool_choice"})


def _problem_of(request: dict[str, Any]) -> str | None:
    """What OpenAI, vLLM or Ollama would refuse."""
    if "tool_choice" in request and not request.get("tools"):
        return "'tool_choice' is only allowed when 'tools' are specified."
    if any(not TOOL_NAME.fullmatch(tool["function"]["name"]) for tool in request.get("tools") or ()):
        return "Invalid 'tools[0].function.name': string does not match pattern."
    open_calls: set[str] = set()
    for message in request.get("messages", []):
        if message.get("role") == "tool":
            if message.get("tool_call_id") not in open_calls:
                return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
            open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            break
        for call in message.get("tool_calls") or ():
            open_calls.add(call["id"])
            try:
                orjson.loads(call["function"]["arguments"])
            except orjson.JSONDecodeError:
                return "invalid tool call arguments"
    return "An assistant message with 'tool_calls' must be followed by tool messages for each 'tool_call_id'." if open_calls else None


async def _refuse_tools(exchange: Exchange, ways: set[str]) -> None:
    if "vllm" in ways:
        message = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        return await exchange.answer(400, {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400})
    if "openai" in ways:
        message = "Unsupported parameter: 'tools' is not supported with this model."
        return await refuse(exchange, 400, message, "unsupported_parameter", param="tools")
    if "strict" in ways:
        detail = [{"type": "extra_forbidden", "loc": ["body", "tools"], "msg": "Extra inputs are not permitted"}]
        return await exchange.answer(422, {"object": "error", "message": {"detail": detail}})
    await refuse(exchange, 400, f"registry.ollama.ai/library/{exchange.model} does not support tools", None)


async def _fail(exchange: Exchange, how: int | str) -> None:
    if how == "context":
        return await refuse(exchange, 400, "SECRET-DETAIL of a script", "context_length_exceeded", param="messages")
    if how != "cut":
        return await refuse(exchange, int(how), f"SECRET-DETAIL of {how}", None)
    await begin(exchange)
    raise Cut
