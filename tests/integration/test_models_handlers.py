"""The Local Apps surface of chat: what the handlers answer and how a stream is framed."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import anyio
import orjson
import pytest

from adapters.chat import ChatRequest, Endpoint
from adapters.openai_protocol import OpenAIProtocol
from adapters.postgres import Database
from contract.upstream import BEHAVIOURS, RunningUpstream, vector_of
from handlers.local_apps import llm
from homeport.errors import AppError
from homeport.models import ChatStream, Models
from homeport.secrets import SecretBox
from homeport.settings import Settings
from tests.integration.parts import eventually, key_principal

pytestmark = pytest.mark.anyio

CALLER = key_principal(uuid4())
NULLS = {"provider": None, "temperature": None, "max_tokens": None, "response_format": None}


@pytest.fixture
async def home(database: Database, tmp_path: Path, upstream: RunningUpstream) -> AsyncIterator[Any]:
    """As much of a home as these handlers use."""
    settings = Settings(data_dir=tmp_path, ollama_url="", chat_timeout_s=5, stream_idle_s=5)
    models = Models(settings, database, SecretBox(bytes(32)), {"OPENAI_BASE_URL": upstream.base_url})
    yield SimpleNamespace(models=models)
    await models.close()


def body(model: str | None, text: str = "hi") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "model": model, **NULLS}


async def read(home: Any, model: str, text: str = "hi") -> list[bytes]:
    stream = await llm.stream_chat(home, CALLER, body(model, text))
    return [frame async for frame in stream.frames]


def data_of(frame: bytes) -> Any:
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    assert frame.count(b"\n") == 2, "one line each"
    return orjson.loads(frame[6:])


async def test_a_chat_is_answered_with_provider_model_and_metrics(home: Any) -> None:
    answer = await llm.create_chat(home, CALLER, body("echo"))
    metrics = answer["response"].pop("metrics")
    assert answer == {"success": True, "response": {"content": "You said: hi", "provider": "openai", "model": "echo"}}
    assert (metrics["prompt_tokens"], metrics["completion_tokens"], metrics["total_tokens"]) == (1, 3, 4)
    assert metrics["duration"] > 0
    assert metrics["outputTps"] == pytest.approx(3 / metrics["duration"], rel=0.01)


async def test_a_request_may_hold_nothing_but_messages(home: Any) -> None:
    answer = await llm.create_chat(home, CALLER, {"messages": [{"role": "user", "content": "hi"}]})
    assert answer["response"]["model"] == next(iter(BEHAVIOURS))


async def test_a_stream_is_framed_as_the_clients_read_it(home: Any) -> None:
    *pieces, last, done = await read(home, "echo", "line\nbreak")
    assert done == b"data: [DONE]\n\n"
    chunks = [data_of(frame) for frame in pieces]
    assert "".join(chunk["textResponse"] for chunk in chunks) == "You said: line\nbreak"
    [uuid] = {chunk["uuid"] for chunk in chunks}
    assert all(chunk == {"uuid": uuid, "textResponse": chunk["textResponse"], "close": False, "error": False} for chunk in chunks)
    end = data_of(last)
    metrics = end.pop("metrics")
    assert end == {"uuid": uuid, "textResponse": "", "close": True, "error": False}
    assert metrics["completion_tokens"] == 3


async def test_what_the_provider_does_not_count_is_left_out_and_nothing_is_null(home: Any) -> None:
    *_, last, _done = await read(home, "strict")
    assert set(data_of(last)["metrics"]) == {"duration"}


async def test_a_failure_before_the_first_piece_is_raised_and_not_framed(home: Any) -> None:
    with pytest.raises(AppError) as caught:
        await llm.stream_chat(home, CALLER, body("429"))
    assert caught.value.status == 429


async def test_a_failure_in_a_stream_leaves_out_the_end_marks(home: Any) -> None:
    stream = await llm.stream_chat(home, CALLER, body("die"))
    frames = []
    with pytest.raises(AppError) as caught:  # noqa: PT012
        async for frame in stream.frames:
            frames.append(frame)
    assert caught.value.code == "LLM_STREAM_ERROR"
    assert [data_of(frame)["textResponse"] for frame in frames] == ["Once"]
    assert not any(data_of(frame)["close"] for frame in frames)


@pytest.mark.parametrize("frames_read", [0, 1, 3])
async def test_a_client_that_leaves_cancels_the_upstream_call(home: Any, upstream: RunningUpstream, frames_read: int) -> None:
    stream = await llm.stream_chat(home, CALLER, body("endless"))
    for _ in range(frames_read):
        await anext(aiter(stream.frames))
    await stream.frames.aclose()  # type: ignore[attr-defined]

    async def cancelled() -> int:
        return upstream.state.cancelled

    with anyio.fail_after(1):
        assert await eventually(cancelled) == 1


async def test_silence_is_bridged_with_comments(upstream: RunningUpstream) -> None:
    transport = OpenAIProtocol(chat_timeout_s=5, stream_idle_s=5, heartbeat_s=0.05)

    class QuickModels:
        """Models whose silence is noticed sooner than after 15 s."""

        async def stream_chat(self, messages: list[dict[str, Any]], *, model: str, **_: Any) -> ChatStream:
            return await transport.open_stream(Endpoint("quick", "openai", upstream.base_url), ChatRequest(model, messages))

    frames = await read(SimpleNamespace(models=QuickModels()), "pause-0.3")
    await transport.close()
    comments = frames.count(b": keep-alive\n\n")
    assert comments >= 3
    assert frames[:comments] == [b": keep-alive\n\n"] * comments
    assert data_of(frames[comments])["textResponse"] == "You"


async def test_providers_are_listed_with_their_models_and_the_default_marked(home: Any) -> None:
    answer = await llm.list_chat_providers(home)
    models = [{"id": name, "name": name} for name in BEHAVIOURS]
    assert answer == {"success": True, "providers": [{"provider": "openai", "models": models, "active": True}]}
    embedders = await llm.list_embed_providers(home)
    assert [(each["provider"], each["active"]) for each in embedders["providers"]] == [("native", True), ("openai", False)]
    assert embedders["providers"][1]["models"] == [{"id": "text-embedding-3-small", "name": "text-embedding-3-small"}]
    assert await llm.list_providers(home) == {"success": True, "llm": answer["providers"], "embedding": embedders["providers"]}


async def test_texts_are_answered_with_vectors_dimensions_and_usage(home: Any) -> None:
    asked = {"input": ["good morning", "good evening"], "provider": "openai", "model": "embed", "dimensions": 4}
    assert await llm.create_embedding(home, CALLER, asked) == {
        "success": True,
        "embeddings": [pytest.approx(vector_of(text, 4)) for text in asked["input"]],
        "dimensions": 4,
        "provider": "openai",
        "model": "embed",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


async def test_one_text_may_come_without_a_list_and_nothing_else_with_it(home: Any) -> None:
    answer = await llm.create_embedding(home, CALLER, {"input": "good morning", "model": "openai/text-embedding-3-small"})
    assert (len(answer["embeddings"]), answer["dimensions"], answer["provider"]) == (1, 1536, "openai")


async def test_usage_that_the_provider_does_not_tell_is_left_out(home: Any) -> None:
    answer = await llm.create_embedding(home, CALLER, {"input": "hi", "provider": "openai", "model": "uncounted", "dimensions": None})
    assert set(answer) == {"success", "embeddings", "dimensions", "provider", "model"}
