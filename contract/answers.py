"""The forms of what the stand-in for a model server answers: whole, streamed, refused."""

from typing import Any

import orjson

from contract.embedders import embed
from contract.exchange import Exchange
from contract.speakers import speak, wav_of


def last_user_text(request: dict[str, Any]) -> str:
    """The text of the last message from the user; images and files become ``[type]``."""
    content = next((m.get("content") for m in reversed(request.get("messages", [])) if m.get("role") == "user"), "")
    if isinstance(content, list):
        return " ".join(block["text"] if block.get("type") == "text" else f"[{block.get('type')}]" for block in content)
    return str(content)


def echo_of(text: str) -> str:
    """What the model ``echo`` answers to a text."""
    return f"You said: {text}"


def usage_of(request: dict[str, Any], completion_tokens: int) -> dict[str, int]:
    """Words counted as tokens."""
    prompt_tokens = sum(len(str(message.get("content")).split()) for message in request.get("messages", []))
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": prompt_tokens + completion_tokens}


def completion(exchange: Exchange, message: dict[str, Any], tokens: int, finish_reason: str = "stop") -> dict[str, Any]:
    """A whole answer of so many tokens."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": exchange.model,
        "choices": [choice],
        "usage": usage_of(exchange.request, tokens),
    }


def chunk(exchange: Exchange, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    """A piece of a streamed answer."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    value = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": exchange.model, "choices": [choice]}
    return b"data: %b\n\n" % orjson.dumps(value)


def end_of_stream(exchange: Exchange, tokens: int) -> bytes:
    """What follows the last piece: the usage, if it was asked for, and the mark of the end."""
    if not (exchange.request.get("stream_options") or {}).get("include_usage"):
        return b"data: [DONE]\n\n"
    usage = {"object": "chat.completion.chunk", "model": exchange.model, "choices": [], "usage": usage_of(exchange.request, tokens)}
    return b"data: %b\n\ndata: [DONE]\n\n" % orjson.dumps(usage)


async def say(exchange: Exchange, tokens: list[str], *, after_s: float = 0) -> None:
    """A good answer; a vector or sound where those were asked for."""
    if exchange.is_embedding:
        return await embed(exchange)
    if exchange.is_speech:
        return await speak(exchange)
    if not exchange.is_stream:
        return await exchange.answer(200, completion(exchange, {"content": "".join(tokens)}, len(tokens)))
    await exchange.start(200, "text/event-stream")
    if after_s:
        await exchange.wait(after_s)
    await exchange.send(chunk(exchange, {"role": "assistant", "content": ""}))
    for token in tokens:
        await exchange.send(chunk(exchange, {"content": token}))
    await exchange.send(chunk(exchange, {}, "stop"))
    await exchange.send(end_of_stream(exchange, len(tokens)), is_last=True)


async def begin(exchange: Exchange) -> None:
    """Send the head and the first part of a good answer, to be spoilt by the caller."""
    if exchange.is_stream:
        await exchange.start(200, "text/event-stream")
        await exchange.send(chunk(exchange, {"role": "assistant", "content": "Once"}))
    elif exchange.is_speech:
        await exchange.start(200, "audio/wav")
        await exchange.send(wav_of("Once")[:1000])
    else:
        await exchange.send_head_of_json()


async def instant(exchange: Exchange) -> None:
    """The same answer to everything, at once: what a benchmark of this server should not wait for."""
    if exchange.is_embedding or exchange.is_speech:
        return await say(exchange, [])
    await exchange.start(200, "text/event-stream" if exchange.is_stream else "application/json")
    await exchange.send(_INSTANT_STREAM if exchange.is_stream else _INSTANT, is_last=True)


async def refuse(
    exchange: Exchange, status: int, message: str, code: str | None, *, param: str | None = None, retry_after: str = ""
) -> None:
    """An error in OpenAI's form."""
    error = {"message": message, "type": "invalid_request_error" if status < 500 else "server_error", "param": param, "code": code}
    await exchange.answer(status, {"error": error}, [(b"retry-after", retry_after.encode())] if retry_after else ())


_USAGE = b'"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}'
_INSTANT = (
    b'{"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "instant", "choices": [{"index": 0, "message": '
    b'{"role": "assistant", "content": "Done."}, "finish_reason": "stop"}], %b}' % _USAGE
)
_INSTANT_HEAD = b'data: {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "instant", "choices": '
_INSTANT_STREAM = (
    b'%b[{"index": 0, "delta": {"role": "assistant", "content": "Done."}, "finish_reason": null}]}\n\n'
    b'%b[{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    b"%b[], %b}\n\ndata: [DONE]\n\n" % (_INSTANT_HEAD, _INSTANT_HEAD, _INSTANT_HEAD, _USAGE)
)
