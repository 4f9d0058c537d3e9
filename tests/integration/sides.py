"""The transports to models, each with the stand-in at its other end, so that one test can be asked of both."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from adapters.chat import ChatRequest, ChatResult, ChatTransport, Endpoint, StreamEvent
from adapters.litellm import LiteLLM
from adapters.openai_protocol import OpenAIProtocol
from contract.upstream import RunningUpstream

# Pydantic, about how LiteLLM and OpenAI's package use it.
LIBRARY_WARNINGS = pytest.mark.filterwarnings(
    "ignore:Item .* on TypedDict class:UserWarning", "ignore:Accessing the 'model_:DeprecationWarning"
)
KEY = "sk-very-secret-0123456789"
MESSAGES = [{"role": "user", "content": "good morning"}]


@dataclass
class Side:
    """A transport and an endpoint that it reaches the stand-in by."""

    transport: ChatTransport
    kind: str
    upstream: RunningUpstream

    def endpoint(self, base_url: str = "") -> Endpoint:
        return Endpoint("somewhere", self.kind, base_url or self.upstream.base_url, KEY)

    async def chat(self, model: str, messages: Sequence[Mapping[str, Any]] = MESSAGES, **options: Any) -> ChatResult:
        return await self.transport.chat(self.endpoint(), ChatRequest(model, messages, **options))

    async def stream(self, model: str, messages: Sequence[Mapping[str, Any]] = MESSAGES, **options: Any) -> list[StreamEvent]:
        stream = await self.transport.open_stream(self.endpoint(), ChatRequest(model, messages, **options))
        return [event async for event in stream]

    async def counts(self) -> tuple[int, int, int]:
        state = self.upstream.state
        return state.open, state.finished, state.cancelled


TRANSPORTS: Mapping[str, tuple[Callable[..., ChatTransport], str]] = {
    "direct": (OpenAIProtocol, "openai"),
    "litellm": (LiteLLM, "hosted_vllm"),
}


async def open_side(name: str, upstream: RunningUpstream, **times_s: float) -> AsyncIterator[Side]:
    make, kind = TRANSPORTS[name]
    transport = make(**times_s)
    if isinstance(transport, LiteLLM):
        await transport.warm()  # takes seconds once, which no test should count
    yield Side(transport, kind, upstream)
    await transport.close()
