"""What only the direct transport can show: its own HTTP, its own reading of streams, and what it learns from refusals."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import orjson
import pytest

from adapters.chat import ChatRequest, Delta, Endpoint, Finish, Silence, Usage
from adapters.openai_protocol import OpenAIProtocol
from contract.upstream import BEHAVIOURS, RunningUpstream
from homeport.errors import AppError, Unavailable, UpstreamError

pytestmark = pytest.mark.anyio

MESSAGES = [{"role": "user", "content": "hi"}]
ANSWER = orjson.dumps({"choices": [{"message": {"role": "assistant", "content": "hello"}}]})

Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def transport() -> AsyncIterator[OpenAIProtocol]:
    transport = OpenAIProtocol(chat_timeout_s=5, stream_idle_s=5)
    yield transport
    await transport.close()


def at(base_url: str, key: str | None = "sk-x") -> Endpoint:
    return Endpoint("somewhere", "openai", base_url, key)


def ask(model: str = "any", **options: float | int) -> ChatRequest:
    return ChatRequest(model, MESSAGES, **options)  # type: ignore[arg-type]


@asynccontextmanager
async def raw_server(talk: Connection) -> AsyncIterator[str]:
    """A server of one's own on bare TCP; yields its base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


def response(body: bytes, media_type: str = "application/json", *, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def read_stream(transport: OpenAIProtocol, *pieces: bytes) -> tuple[str, list[object]]:
    """What is read from a stream that arrives in these pieces: its text, and the events that are no text."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    async with raw_server(talk) as url:
        stream = await transport.open_stream(at(url), ask())
        events = [event async for event in stream]
    text = "".join(event.text for event in events if isinstance(event, Delta))
    return text, [event for event in events if not isinstance(event, Delta)]


def chunk(text: str, **rest: object) -> bytes:
    return orjson.dumps({"choices": [{"delta": {"content": text}, **rest}]})


async def test_a_model_that_refuses_options_is_asked_without_them_from_then_on(
    transport: OpenAIProtocol, upstream: RunningUpstream
) -> None:
    request = ask("picky", temperature=0.7, max_tokens=100)
    assert (await transport.chat(at(upstream.base_url), request)).content == "You said: hi"
    sent = upstream.state.last_request
    assert sent["max_completion_tokens"] == 100
    assert not {"max_tokens", "temperature"} & set(sent)
    asked = upstream.state.finished
    await transport.chat(at(upstream.base_url), request)
    assert upstream.state.finished == asked + 1, "what was learned is remembered"
    await transport.chat(at(upstream.base_url), ask("echo", temperature=0.7, max_tokens=100))
    assert {"max_tokens", "temperature"} <= set(upstream.state.last_request), "and holds for that model only"


async def test_a_server_that_refuses_stream_options_streams_without_them(transport: OpenAIProtocol, upstream: RunningUpstream) -> None:
    stream = await transport.open_stream(at(upstream.base_url), ask("strict"))
    *pieces, last = [event async for event in stream]
    assert [piece.text for piece in pieces if isinstance(piece, Delta)] == ["You", " said:", " hi"]
    assert isinstance(last, Finish)
    assert last.usage == Usage()


async def test_a_redirect_is_not_followed(transport: OpenAIProtocol, upstream: RunningUpstream) -> None:
    with pytest.raises(UpstreamError, match="redirects") as caught:
        await transport.chat(at(upstream.base_url), ask("redirect"))
    assert caught.value.code == "LLM_ERROR"
    assert upstream.state.finished == 1


async def test_an_endless_answer_is_cut_off(transport: OpenAIProtocol, upstream: RunningUpstream) -> None:
    with anyio.fail_after(5), pytest.raises(UpstreamError, match="too large"):
        await transport.chat(at(upstream.base_url), ask("huge"))


async def test_an_endless_piece_of_a_stream_is_cut_off(transport: OpenAIProtocol, upstream: RunningUpstream) -> None:
    stream = await transport.open_stream(at(upstream.base_url), ask("huge"))
    assert await anext(stream) == Delta("Once")
    with anyio.fail_after(5), pytest.raises(UpstreamError, match="too large"):
        await anext(stream)


async def test_the_list_of_models_tells_those_that_chat_from_those_that_make_embeddings(
    transport: OpenAIProtocol, upstream: RunningUpstream
) -> None:
    models = await transport.list_models(at(upstream.base_url))
    assert models.chat == tuple(BEHAVIOURS)
    assert models.embedding == ("text-embedding-3-small",)


@pytest.mark.parametrize(
    ("model", "code"), [("401", "PROVIDER_UNAVAILABLE"), ("html", "LLM_ERROR"), ("die", "LLM_ERROR"), ("empty", "LLM_ERROR")]
)
async def test_a_list_of_models_fails_as_a_chat_does(transport: OpenAIProtocol, upstream: RunningUpstream, model: str, code: str) -> None:
    with pytest.raises(AppError) as caught:
        await transport.list_models(at(upstream.fault_url(model)))
    assert caught.value.code == code


async def test_one_connection_serves_one_request_after_another(transport: OpenAIProtocol) -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            is_stream = b'"stream":true' in await read_request(reader)
            body = b"data: " + chunk("hello") + b"\n\ndata: [DONE]\n\n"
            writer.write(response(body, "text/event-stream") if is_stream else response(ANSWER))

    async with raw_server(talk) as url:
        for _ in range(3):
            assert (await transport.chat(at(url), ask())).content == "hello"
            assert [type(event) async for event in await transport.open_stream(at(url), ask())] == [Delta, Finish]
    assert connections == 1


async def test_a_kept_connection_that_the_server_closed_is_replaced(transport: OpenAIProtocol) -> None:
    connections = 0

    async def answer_once_and_hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(response(ANSWER))
        await read_request(reader)

    async with raw_server(answer_once_and_hang_up) as url:
        for _ in range(3):
            assert (await transport.chat(at(url), ask())).content == "hello"
    assert connections == 3


async def test_a_server_that_hangs_up_on_a_new_connection_is_asked_only_once(transport: OpenAIProtocol) -> None:
    connections = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)

    async with raw_server(hang_up) as url:
        with pytest.raises(UpstreamError, match="closed the connection"):
            await transport.chat(at(url), ask())
    assert connections == 1


async def test_something_that_does_not_speak_http_is_a_bad_answer(transport: OpenAIProtocol) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"220 mail.example ESMTP\r\n")

    async with raw_server(greet) as url:
        with pytest.raises(UpstreamError, match="not HTTP"):
            await transport.chat(at(url), ask())


async def test_no_key_means_no_authorization_header(transport: OpenAIProtocol, upstream: RunningUpstream) -> None:
    await transport.chat(at(upstream.base_url, None), ask("echo"))
    assert "authorization" not in upstream.state.last_headers


async def test_a_proxy_is_used_for_the_world_and_not_for_this_machine(upstream: RunningUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await read_request(reader)).split(b"\r\n")[0])
        writer.write(response(ANSWER))

    transport = OpenAIProtocol(chat_timeout_s=5, stream_idle_s=5)
    async with raw_server(proxy) as url:
        monkeypatch.setenv("http_proxy", url.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        assert (await transport.chat(at("http://models.invalid/v1"), ask())).content == "hello"
        assert (await transport.chat(at(upstream.base_url), ask("echo"))).content == "You said: hi"
        await transport.close()
    assert asked == [b"POST http://models.invalid/v1/chat/completions HTTP/1.1"]


async def test_a_name_that_does_not_resolve_is_provider_unavailable(transport: OpenAIProtocol) -> None:
    with pytest.raises(Unavailable) as caught:
        await transport.chat(at("http://models.invalid/v1"), ask())
    assert caught.value.code == "PROVIDER_UNAVAILABLE"


async def test_a_stream_is_read_however_it_is_cut_and_spelt(transport: OpenAIProtocol) -> None:
    sent = (
        b"\xef\xbb\xbf: hello\r\n\r\nid: 1\r\nretry: 5\r\n"
        + b"data:" + chunk("no blank, ") + b"\r\n\r\n"
        + b'event: message\ndata: {"choices": [{"delta":\ndata: {"content": "two lines, "}}]}\n\n'
        + b"data: " + chunk("größer \N{GRINNING FACE}") + b"\n\n"
        + b'data: {"choices": []}\n\n'
        + b"data: " + chunk("", finish_reason="stop")
    )  # fmt: skip
    for size in (1, 2, 7, 1000):
        text, rest = await read_stream(transport, *(sent[at : at + size] for at in range(0, len(sent), size)))
        assert text == "no blank, two lines, größer \N{GRINNING FACE}"
        assert [type(event) for event in rest] == [Finish], "a finish reason ends an answer even without [DONE]"


async def test_a_stream_without_an_end_has_broken_off(transport: OpenAIProtocol) -> None:
    with pytest.raises(UpstreamError, match="broke off") as caught:
        await read_stream(transport, b"data: " + chunk("half an ans") + b"\n\n")
    assert caught.value.code == "LLM_STREAM_ERROR"


async def test_half_an_emoji_does_not_end_the_answer(transport: OpenAIProtocol) -> None:
    half = b'data: {"choices": [{"delta": {"content": "ok \\ud83d"}}]}\n\n'
    text, _ = await read_stream(transport, half, b"data: [DONE]\n\n")
    assert text == "ok \N{REPLACEMENT CHARACTER}"


async def test_an_error_with_a_status_in_a_stream_is_that_status(transport: OpenAIProtocol) -> None:
    with pytest.raises(AppError) as caught:
        await read_stream(transport, b'data: {"error": {"code": 429, "message": "slow down"}}\n\n')
    assert (caught.value.status, caught.value.code) == (429, "RATE_LIMIT")


async def test_an_upstream_that_only_sends_comments_is_alive_and_quiet() -> None:
    transport = OpenAIProtocol(chat_timeout_s=5, stream_idle_s=0.3, heartbeat_s=0.1)
    is_enough = asyncio.Event()

    async def comment(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        while not is_enough.is_set():
            writer.write(b": PROCESSING\n\n")
            await asyncio.sleep(0.02)
        writer.write(b"data: " + chunk("at last") + b"\n\ndata: [DONE]\n\n")

    async with raw_server(comment) as url:
        stream = await transport.open_stream(at(url), ask())
        with anyio.fail_after(5):
            for _ in range(5):
                assert await anext(stream) == Silence()
            is_enough.set()
            events = [event async for event in stream if event != Silence()]
    await transport.close()
    assert events[0] == Delta("at last")


async def test_content_in_blocks_and_a_refusal_are_text(transport: OpenAIProtocol) -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    for message, text in (
        ({"content": [thinking, {"type": "text", "text": "yes"}]}, "yes"),
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
        ({"content": None}, ""),
    ):

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: object = message) -> None:
            await read_request(reader)
            writer.write(response(orjson.dumps({"choices": [{"message": message}]})))

        async with raw_server(talk) as url:
            assert (await transport.chat(at(url), ask())).content == text


async def test_a_server_without_file_descriptors_says_so_instead_of_blaming_the_provider(
    transport: OpenAIProtocol, upstream: RunningUpstream
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(Unavailable, match="as many files and connections open as the system lets it"):
            await transport.chat(at(upstream.base_url), ask("echo"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (await transport.chat(at(upstream.base_url), ask("echo"))).content == "You said: hi"
