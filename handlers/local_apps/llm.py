"""Chats and embeddings: /sdk/llm/chat, /sdk/llm/chat/stream, /sdk/llm/embed, and the providers of both, /sdk/llm/providers…"""

from asyncio import gather
from collections.abc import AsyncGenerator, Iterable
from typing import Any
from uuid import uuid4

import orjson

from homeport.home import Home
from homeport.identity import Principal
from homeport.models import ChatResult, ChatStream, Delta, Finish, Provider
from homeport.replies import EventStream, Frames

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


async def create_chat(home: Home, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """Answer a conversation."""
    result = await home.models.chat(body["messages"], caller=principal, **_options(body))
    response = {"content": result.content, "provider": result.provider, "model": result.model, "metrics": _metrics(result)}
    return {"success": True, "response": response}


async def stream_chat(home: Home, principal: Principal, body: dict[str, Any]) -> EventStream:
    """Answer a conversation piece by piece."""
    stream = await home.models.stream_chat(body["messages"], caller=principal, **_options(body))
    return EventStream(Frames(_frames(stream), stream))


async def create_embedding(home: Home, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """A vector for each text."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    options = {name: body.get(name) for name in ("provider", "model", "dimensions")}
    result = await home.models.embed(texts, caller=principal, **options)
    usage = {"prompt_tokens": result.usage.prompt_tokens, "total_tokens": result.usage.total_tokens}
    known = {name: count for name, count in usage.items() if count is not None}
    return {
        "success": True,
        "embeddings": result.vectors,
        "dimensions": len(result.vectors[0]),
        "provider": result.provider,
        "model": result.model,
        **({"usage": known} if known else {}),
    }


async def list_providers(home: Home) -> dict[str, Any]:
    """The providers of chat and of embeddings."""
    chat, embedding = await gather(home.models.providers(), home.models.embedding_providers())
    return {"success": True, "llm": _providers(chat), "embedding": _providers(embedding)}


async def list_chat_providers(home: Home) -> dict[str, Any]:
    """The providers of chat."""
    return {"success": True, "providers": _providers(await home.models.providers())}


async def list_embed_providers(home: Home) -> dict[str, Any]:
    """The providers of embeddings."""
    return {"success": True, "providers": _providers(await home.models.embedding_providers())}


async def _frames(stream: ChatStream) -> AsyncGenerator[bytes]:
    uuid = str(uuid4())
    async for event in stream:
        match event:
            case Delta(text):
                yield _frame({"uuid": uuid, "textResponse": text, "close": False, "error": False})
            case Finish():
                yield _frame({"uuid": uuid, "textResponse": "", "close": True, "error": False, "metrics": _metrics(event)})
            case _:
                yield KEEP_ALIVE
    yield DONE


def _frame(value: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(value)


def _options(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body.get(name) for name in ("provider", "model", "temperature", "max_tokens", "response_format")}


def _metrics(answer: ChatResult | Finish) -> dict[str, Any]:
    """The clients read numbers here, never null: what is not known is left out. ``duration`` is in seconds."""
    usage = answer.usage
    is_timed = usage.completion_tokens is not None and answer.duration_s > 0
    metrics = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "duration": round(answer.duration_s, 6),
        "outputTps": round((usage.completion_tokens or 0) / answer.duration_s, 2) if is_timed else None,
    }
    return {name: value for name, value in metrics.items() if value is not None}


def _providers(providers: Iterable[Provider]) -> list[dict[str, Any]]:
    return [
        {"provider": each.name, "models": [{"id": model.id, "name": model.name} for model in each.models], "active": each.active}
        for each in providers
    ]
