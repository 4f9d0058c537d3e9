"""How the stand-in for a model server behaves, by the name of the model: well, slowly, wrongly, or not at all."""

import time

import orjson

from contract.answers import begin, chunk, completion, echo_of, instant, last_user_text, refuse, say
from contract.embedders import EMBEDDERS
from contract.exchange import FOREVER_S, Behaviour, Cut, Exchange
from contract.scripts import script
from contract.speakers import SPEAKERS


async def echo(exchange: Exchange, *, after_s: float = 0) -> None:
    """The fixed transformation of the last user message, word by word."""
    words = echo_of(last_user_text(exchange.request)).split(" ")
    await say(exchange, [words[0], *(f" {word}" for word in words[1:])], after_s=after_s)


async def pause(exchange: Exchange) -> None:
    """The head of a stream, nothing for so many seconds, then the echo (not streamed: the echo)."""
    await echo(exchange, after_s=exchange.argument(1))


async def long(exchange: Exchange) -> None:
    """So many tokens, as fast as they go."""
    await say(exchange, [f"token{i} " for i in range(int(exchange.argument(50)))])


async def slow(exchange: Exchange) -> None:
    """Nothing at all for so many seconds, then the echo."""
    await exchange.wait(exchange.argument(1))
    await echo(exchange)


async def stall(exchange: Exchange) -> None:
    """A good beginning, then silence."""
    await begin(exchange)
    await exchange.wait(FOREVER_S)


async def endless(exchange: Exchange) -> None:
    """A token every 10 ms until the client leaves."""
    await begin(exchange)
    while True:
        await exchange.wait(0.01)
        await exchange.send(chunk(exchange, {"content": " and"}))


async def clock(exchange: Exchange) -> None:
    """A token every so many seconds until the client leaves; each says when it was sent, in nanoseconds of the system's clock that never
    goes back."""
    await begin(exchange)
    while True:
        await exchange.wait(exchange.argument(1))
        await exchange.send(chunk(exchange, {"content": f" at={time.monotonic_ns()};"}))


async def die(exchange: Exchange) -> None:
    """A good beginning, then the connection is cut."""
    await begin(exchange)
    raise Cut


async def nonsense(exchange: Exchange) -> None:
    """Status 200 and a body that is not what its type says."""
    await exchange.start(200, "text/event-stream" if exchange.is_stream else "application/json")
    await exchange.send(b"data: <<<not json>>>\n\n" if exchange.is_stream else b"<<<not json>>>", is_last=True)


async def html(exchange: Exchange) -> None:
    """Status 200 and a web page, as a captive portal or a wrong base URL gives."""
    await exchange.start(200, "text/html")
    await exchange.send(b"<!doctype html><title>Welcome</title>", is_last=True)


async def empty(exchange: Exchange) -> None:
    """A well-formed answer with no choices."""
    if exchange.is_stream:
        await exchange.start(200, "text/event-stream")
        return await exchange.send(b"data: [DONE]\n\n", is_last=True)
    await exchange.answer(200, {**completion(exchange, {}, 0), "choices": []})


async def huge(exchange: Exchange) -> None:
    """A body, or a line of a stream, that never ends."""
    await begin(exchange)
    await exchange.send(b'data: {"choices": "' if exchange.is_stream else b'"')
    while True:
        await exchange.send(b"x" * 1_048_576)
        await exchange.wait(0.001)


async def error_mid_stream(exchange: Exchange) -> None:
    """A good beginning, then an error object in the stream (not streamed: an error object with status 200)."""
    error = {"error": {"message": "SECRET-DETAIL the model crashed", "type": "server_error", "code": None}}
    if not exchange.is_stream:
        return await exchange.answer(200, error)
    await begin(exchange)
    await exchange.send(b"data: %b\n\n" % orjson.dumps(error), is_last=True)


async def redirect(exchange: Exchange) -> None:
    """Another address, which must not be followed with the key in hand."""
    await exchange.answer(307, {}, [(b"location", b"/v1/elsewhere")])


async def picky(exchange: Exchange) -> None:
    """As OpenAI's reasoning models: ``max_tokens`` and any ``temperature`` but 1 are refused."""
    if "max_tokens" in exchange.request:
        message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        return await refuse(exchange, 400, message, "unsupported_parameter", param="max_tokens")
    if exchange.request.get("temperature", 1) != 1:
        message = "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported."
        return await refuse(exchange, 400, message, "unsupported_value", param="temperature")
    await echo(exchange)


async def strict(exchange: Exchange) -> None:
    """As Mistral: an option that it does not know is refused."""
    if "stream_options" in exchange.request:
        detail = [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]
        return await exchange.answer(422, {"object": "error", "message": {"detail": detail}})
    await echo(exchange)


def _refusal(status: int, code: str | None, *, param: str | None = None, retry_after: str = "") -> Behaviour:
    async def answer(exchange: Exchange) -> None:
        await refuse(exchange, status, f"SECRET-DETAIL of {status}", code, param=param, retry_after=retry_after)

    return answer


BEHAVIOURS: dict[str, Behaviour] = {
    "echo": echo,
    "instant": instant,
    "script": script,
    "long": long,
    "slow": slow,
    "pause": pause,
    "stall": stall,
    "endless": endless,
    "clock": clock,
    "die": die,
    "nonsense": nonsense,
    "html": html,
    "empty": empty,
    "huge": huge,
    "error-mid-stream": error_mid_stream,
    "redirect": redirect,
    "picky": picky,
    "strict": strict,
    "context": _refusal(400, "context_length_exceeded", param="messages"),
    "400": _refusal(400, "invalid_value", param="messages"),
    "401": _refusal(401, "invalid_api_key"),
    "402": _refusal(402, "insufficient_credits"),
    "403": _refusal(403, None),
    "404": _refusal(404, "model_not_found", param="model"),
    "422": _refusal(422, None),
    "429": _refusal(429, "rate_limit_exceeded", retry_after="7"),
    "quota": _refusal(429, "insufficient_quota"),
    "500": _refusal(500, None),
    "503": _refusal(503, None),
}
UNKNOWN = BEHAVIOURS["404"]


def find_behaviour(exchange: Exchange) -> Behaviour:
    """What the model that was asked does; one that there is not is refused as unknown."""
    others = EMBEDDERS if exchange.is_embedding else SPEAKERS if exchange.is_speech else {}
    for name in (exchange.model, exchange.model.partition("-")[0]):
        if found := BEHAVIOURS.get(name) or others.get(name):
            return found
    return UNKNOWN
