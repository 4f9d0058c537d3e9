"""What a model is shown of a conversation: all of it as long as it fits into the model's window, else what matters most of it.

Messages are in OpenAI's shape. Nothing here fails: whatever the conversation and however small the window, what comes out can be sent.
Tokens are estimated; a model that finds the conversation too long all the same is given less.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson

DEFAULT_WINDOW = 8192
LEAST_WINDOW = 256
BYTES_A_TOKEN = 3.5
TOKENS_A_MESSAGE = 6
TOKENS_AN_IMAGE = 1000
# Results of tools in turns that are over are shortened to this before whole turns are left out.
OLD_RESULT_CHARS = 600
LEAST_CHARS = 80

LEFT_OUT = "Earlier parts of this conversation are left out here."
NOT_ANSWERED = "(This was not answered: the run was interrupted or cancelled.)"
NO_RESULT = "Interrupted: it is not known whether it took effect."

_NAME = re.compile(r"[^a-zA-Z0-9_-]")

Message = dict[str, Any]
Item = TypeVar("Item")


def estimate(messages: Sequence[Message]) -> int:
    """About how many tokens these messages are."""
    return sum(map(_tokens, messages))


def in_call_order(items: Sequence[Item], message_of: Callable[[Item], Message]) -> list[Item]:
    """The same in the same order, but for results of tools that were called together: they stand in the order of the calls."""
    ordered: list[Item] = []
    results: list[Item] = []
    positions: dict[str, int] = {}

    def flush() -> None:
        results.sort(key=lambda item: positions.get(str(message_of(item).get("tool_call_id")), len(positions)))
        ordered.extend(results)
        results.clear()

    for item in items:
        message = message_of(item)
        if message["role"] == "tool":
            results.append(item)
            continue
        flush()
        positions = {call["id"]: position for position, call in enumerate(message.get("tool_calls") or ())}
        ordered.append(item)
    flush()
    return ordered


def repair(messages: Sequence[Message]) -> list[Message]:
    """Messages as a model takes them, whatever became of the runs in which they were said: each call of a tool has one result right after
    it, and each message of the user but the last an answer."""
    repaired: list[Message] = []
    results: dict[str, Message | None] = {}  # of the calls that were made last, in their order

    def close_calls() -> None:
        repaired.extend(found or {"role": "tool", "tool_call_id": call_id, "content": NO_RESULT} for call_id, found in results.items())
        results.clear()

    for message in messages:
        if message["role"] == "tool":
            call_id = message.get("tool_call_id")
            if call_id in results and results[call_id] is None:
                results[call_id] = message
            continue
        close_calls()
        if message["role"] == "user" and repaired and repaired[-1]["role"] != "assistant":
            repaired.append({"role": "assistant", "content": NOT_ANSWERED})
        repaired.append(message)
        for call in message.get("tool_calls") or ():
            results[call["id"]] = None
    close_calls()
    return repaired


def as_text(messages: Sequence[Message]) -> list[Message]:
    """The same without tools: what was called and what came back is told in words, for a model that is offered no tools."""
    told: list[Message] = []
    for message in messages:
        if message["role"] == "tool":
            text = f"[Result of a tool]\n{message['content']}"
            if told and told[-1]["role"] == "user":
                told[-1] = {"role": "user", "content": f"{told[-1]['content']}\n\n{text}"}
            else:
                told.append({"role": "user", "content": text})
        elif message.get("tool_calls"):
            calls = [f"[Used the tool {call['function']['name']} with {call['function']['arguments']}]" for call in message["tool_calls"]]
            told.append({"role": "assistant", "content": "\n".join([*filter(None, [message.get("content")]), *calls])})
        else:
            told.append(message)
    return told


def fit(system: str, messages: Sequence[Message], budget: int) -> list[Message]:
    """The conversation within about ``budget`` tokens, instructions first. ``messages`` are repaired; the last of the user is what is to be
    answered, and what follows it belongs to the answer.

    Turns that are over lose the length of their results first, then the oldest are left out whole; only then the present turn is cut.
    """
    budget = max(budget, LEAST_WINDOW)
    head = _shrink(_system(system), budget // 2)
    whole = [*head, *messages]
    if estimate(whole) <= budget:
        return whole
    *old, present = _turns(messages)
    left = budget - estimate(head) - estimate(present)
    newest_first: list[list[Message]] = []
    is_cut = False
    for turn in reversed(old):
        shortened = [_shorten(message, OLD_RESULT_CHARS) for message in turn]
        left -= estimate(shortened)
        if left < TOKENS_A_MESSAGE + len(LEFT_OUT) // 3:
            is_cut = True
            break
        newest_first.append(shortened)
    kept = [message for turn in reversed(newest_first) for message in turn]
    if is_cut:
        head = _system("\n\n".join(filter(None, [head[0]["content"] if head else "", LEFT_OUT])))
    return [*head, *kept, *_fit_present(present, budget - estimate(head) - estimate(kept))]


def _fit_present(turn: list[Message], budget: int) -> list[Message]:
    """The turn that is being answered, within its budget if that is possible at all: the oldest of what was done with tools goes first,
    when there is too much of it; then the longest texts are cut in the middle."""
    question, rounds = turn[:1], _rounds(turn[1:])
    while rounds and estimate([_shorten(m, LEAST_CHARS) for m in (*question, *(m for each in rounds for m in each))]) > budget:
        rounds = rounds[1:]
    return _shrink([*question, *(message for each in rounds for message in each)], budget)


def _shrink(messages: list[Message], budget: int) -> list[Message]:
    """The messages with the longest texts cut, as far as needed and possible."""
    limit = max((len(_text(message)) for message in messages), default=0)
    shrunk = messages
    while limit > LEAST_CHARS and estimate(shrunk) > budget:
        limit = max(LEAST_CHARS, int(limit * 0.8))
        shrunk = [_shorten(message, limit) for message in messages]
    return shrunk


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """The messages, cut before each message of the user; never empty."""
    turns: list[list[Message]] = []
    for message in messages:
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns or [[]]


def _rounds(messages: Sequence[Message]) -> list[list[Message]]:
    """What came after a question: each answer of the model together with the results of its calls."""
    rounds: list[list[Message]] = []
    for message in messages:
        if message["role"] != "tool" or not rounds:
            rounds.append([])
        rounds[-1].append(message)
    return rounds


def _system(text: str) -> list[Message]:
    return [{"role": "system", "content": text}] if text else []


def _shorten(message: Message, limit: int) -> Message:
    """A message whose text, and the arguments of whose calls, have about ``limit`` characters at most: itself where it has, because many
    conversations are held at the same time."""
    content, calls = message.get("content"), message.get("tool_calls")
    changed: Message = {}
    if isinstance(content, str) and len(content) > limit:
        changed["content"] = _cut(content, limit)
    if calls:
        changed["tool_calls"] = [_shorten_call(call, limit) for call in calls]
    return {**message, **changed} if changed else message


def _shorten_call(call: Message, limit: int) -> Message:
    function = call["function"]
    if len(function["arguments"]) <= max(limit, LEAST_CHARS):
        return call
    told = orjson.dumps({"left_out": _cut(function["arguments"], LEAST_CHARS // 2)}).decode()
    return {**call, "function": {**function, "arguments": told}}


def _cut(text: str, limit: int) -> str:
    """``text`` with a note in the place of its middle, when it is longer than ``limit`` characters."""
    if len(text) <= limit:
        return text
    note = f"\n[… {len(text) - limit} characters are left out here …]\n"
    kept = max(limit - len(note), LEAST_CHARS // 4)
    return f"{text[: kept - kept // 3]}{note}{text[len(text) - kept // 3 :]}"


def cut_end(text: str, limit: int) -> str:
    """The first ``limit`` characters of ``text``, and a note when there are more."""
    return text if len(text) <= limit else f"{text[:limit]}\n[… {len(text) - limit} more characters are left out]"


def fit_name(text: str) -> str:
    """``text`` as the name of a tool as models take it."""
    return _NAME.sub("_", text)[:64] or "unnamed"


def _text(message: Message) -> str:
    content = message.get("content")
    calls = "".join(call["function"]["arguments"] for call in message.get("tool_calls") or ())
    return f"{content if isinstance(content, str) else ''}{calls}"


def _tokens(message: Message) -> int:
    content = message.get("content")
    size = _size(content) if isinstance(content, str) else 0
    tokens = float(TOKENS_A_MESSAGE)
    if isinstance(content, list):
        for block in content:
            is_text = isinstance(block.get("text"), str)
            size += _size(block["text"]) if is_text else 0
            tokens += 0 if is_text else TOKENS_AN_IMAGE
    for call in message.get("tool_calls") or ():
        size += _size(call["function"]["name"]) + _size(call["function"]["arguments"])
        tokens += TOKENS_A_MESSAGE
    return int(tokens + size / BYTES_A_TOKEN) + 1


def _size(text: str) -> int:
    # A token is about so many bytes of UTF-8 in every script, and not so many characters.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
