"""What only the LiteLLM transport can show: how the package is imported, and what it is handed."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from adapters.chat import ChatRequest, Endpoint, ToolCall, ToolSpec
from adapters.litellm import LiteLLM
from contract.upstream import RunningUpstream
from homeport.errors import AppError, Unavailable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning", "ignore:Accessing the 'model_:DeprecationWarning"),
]

WARM = """
import asyncio, os, sys

connected = []
sys.addaudithook(lambda event, arguments: connected.append(arguments) if event in ("socket.connect", "socket.getaddrinfo") else None)

from adapters.chat import ChatRequest, Endpoint, ToolCall, ToolSpec
from adapters.litellm import LiteLLM

async def main():
    transport = LiteLLM(5, 5)
    assert "litellm" not in sys.modules
    warming = asyncio.create_task(transport.warm())
    ticks = 0
    while not warming.done():
        await asyncio.sleep(0.01)
        ticks += 1
    await warming
    print("ticks", ticks > 20)
    print("dotenv", "FROM_DOTENV" in os.environ)
    request = ChatRequest("claude-haiku-4-5", [{"role": "user", "content": "hi"}])
    try:
        await transport.chat(Endpoint("x", "anthropic", "http://127.0.0.1:9", None), request)
    except Exception as error:
        print("error", type(error).__name__, error.code)
    await transport.close()
    print("connected", [to for to in connected if "127.0.0.1" not in repr(to)])

asyncio.run(main())
"""


@pytest.fixture
async def transport() -> AsyncIterator[LiteLLM]:
    transport = LiteLLM(chat_timeout_s=5, stream_idle_s=5)
    await transport.warm()
    yield transport
    await transport.close()


def test_litellm_is_imported_beside_the_event_loop_and_keeps_to_itself(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FROM_DOTENV=1\n", encoding="utf-8")
    root = Path(__file__).parents[2]
    environ = {"PYTHONPATH": str(root), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", WARM], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.splitlines()
    assert "ticks True" in lines, done.stderr
    assert "dotenv False" in lines
    assert "error Unavailable PROVIDER_UNAVAILABLE" in lines, "a missing key is not an error of this server"
    assert "connected []" in lines, "nothing but the provider's own address is contacted"
    assert "Give Feedback" not in done.stdout + done.stderr


async def test_a_missing_key_is_provider_unavailable(transport: LiteLLM) -> None:
    with pytest.raises(Unavailable) as caught:
        await transport.chat(Endpoint("anthropic", "anthropic"), ChatRequest("claude-haiku-4-5", [{"role": "user", "content": "hi"}]))
    assert caught.value.code == "PROVIDER_UNAVAILABLE"
    assert "key" in caught.value.message


async def test_an_unknown_kind_is_an_error_of_ours_and_known_ones_are_known(transport: LiteLLM) -> None:
    assert await transport.knows_provider("anthropic")
    assert await transport.knows_provider("hosted_vllm")
    assert not await transport.knows_provider("no-such-kind")
    with pytest.raises(AppError):
        await transport.chat(Endpoint("x", "no-such-kind"), ChatRequest("m", [{"role": "user", "content": "hi"}]))


async def test_the_list_of_models_is_that_of_the_catalogue(transport: LiteLLM) -> None:
    models = await transport.list_models(Endpoint("anthropic", "anthropic", None, "sk-a"))
    assert "claude-haiku-4-5" in models.chat
    assert models.embedding == ()
    assert "gemini-embedding-001" in (await transport.list_models(Endpoint("gemini", "gemini", None, "sk-g"))).embedding
    assert not any(await transport.list_models(Endpoint("mine", "hosted_vllm", "http://127.0.0.1:9/v1")))


@pytest.mark.parametrize(
    "block",
    [
        {"type": "file", "file": {"file_data": "ADDRESS/a.pdf", "filename": "a.pdf"}},
        {"type": "image_url", "image_url": {"url": "ADDRESS/a.png"}},
    ],
)
@pytest.mark.parametrize("kind", ["hosted_vllm", "anthropic", "gemini", "cohere_chat"])
async def test_an_address_in_a_message_is_never_fetched_from_this_machine(
    transport: LiteLLM, upstream: RunningUpstream, kind: str, block: dict[str, Any]
) -> None:
    fetched: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fetched.append(await reader.readline())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        content = [orjson.loads(orjson.dumps(block).replace(b"ADDRESS", address.encode()))]
        request = ChatRequest("echo", [{"role": "user", "content": content}])
        with contextlib.suppress(AppError):
            await transport.chat(Endpoint("mine", kind, upstream.base_url, "sk-x"), request)
    assert fetched == []


async def test_a_provider_with_a_protocol_of_its_own_is_told_of_calls_and_results_and_calls_tools(transport: LiteLLM) -> None:
    asked: list[Any] = []
    use = {"type": "tool_use", "id": "toolu_1", "name": "files__read", "input": {"path": "b"}}
    thought = {"type": "thinking", "thinking": "Another one.", "signature": "s"}
    answer = orjson.dumps(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "any",
            "content": [thought, use],
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 3, "output_tokens": 4},
        }
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        asked.append(orjson.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
        writer.close()

    call = {"id": "toolu_0", "type": "function", "function": {"name": "files__read", "arguments": '{"path":"a"}'}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "toolu_0", "content": "It is empty."},
    ]
    request = ChatRequest("claude-haiku-4-5", messages, tools=[ToolSpec("files__read", "Read.", {"type": "object"})], tool_choice="auto")
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        result = await transport.chat(Endpoint("anthropic", "anthropic", address, "sk-x"), request)
    assert (result.content, result.reasoning, result.tool_calls) == (
        "",
        "Another one.",
        (ToolCall("toolu_1", "files__read", '{"path": "b"}'),),
    )
    assert asked[0]["messages"][1]["content"] == [{"type": "tool_use", "id": "toolu_0", "name": "files__read", "input": {"path": "a"}}]
    assert asked[0]["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "toolu_0", "content": "It is empty."}]
    assert [tool["name"] for tool in asked[0]["tools"]] == ["files__read"]
