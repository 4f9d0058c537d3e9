"""Embeddings through both transports against the same model server: the same vectors, and the same error for the same failure."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from adapters.chat import Endpoint, Usage
from adapters.embedding import EmbeddingRequest, EmbeddingResult
from adapters.litellm import LiteLLM
from adapters.openai_protocol import OpenAIProtocol
from contract.upstream import RunningUpstream, vector_of
from homeport.errors import AppError, InvalidRequest, UpstreamError
from tests.integration.parts import eventually

pytestmark = [
    pytest.mark.anyio,
    # Pydantic, about how LiteLLM and OpenAI's package use it.
    pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning", "ignore:Accessing the 'model_:DeprecationWarning"),
]

KEY = "sk-very-secret-0123456789"
TEXTS = ("good morning", "good evening to all", "größe \N{GRINNING FACE}")
TRANSPORTS = {"direct": (OpenAIProtocol, "openai"), "litellm": (LiteLLM, "hosted_vllm"), "litellm-openai": (LiteLLM, "openai")}


@dataclass
class Side:
    """A transport and an endpoint that it reaches the stand-in by."""

    transport: OpenAIProtocol | LiteLLM
    kind: str
    upstream: RunningUpstream

    def endpoint(self, base_url: str = "") -> Endpoint:
        return Endpoint("somewhere", self.kind, base_url or self.upstream.base_url, KEY)

    async def embed(self, model: str, *texts: str, **options: Any) -> EmbeddingResult:
        return await self.transport.embed(self.endpoint(), EmbeddingRequest(model, texts or TEXTS, **options))

    async def counts(self) -> tuple[int, int, int]:
        state = self.upstream.state
        return state.open, state.finished, state.cancelled


async def open_side(name: str, upstream: RunningUpstream, timeout_s: float) -> AsyncIterator[Side]:
    make, kind = TRANSPORTS[name]
    transport = make(timeout_s, timeout_s)
    if isinstance(transport, LiteLLM):
        await transport.warm()  # takes seconds once, which no test should count
    yield Side(transport, kind, upstream)
    await transport.close()


@pytest.fixture(params=TRANSPORTS)
async def side(request: pytest.FixtureRequest, upstream: RunningUpstream) -> AsyncIterator[Side]:
    async for side in open_side(request.param, upstream, 60):
        yield side


@pytest.fixture(params=TRANSPORTS)
async def hasty(request: pytest.FixtureRequest, upstream: RunningUpstream) -> AsyncIterator[Side]:
    """A side that gives up after 0.3 s."""
    async for side in open_side(request.param, upstream, 0.3):
        yield side


async def test_each_text_gets_its_vector_and_usage_is_told(side: Side) -> None:
    result = await side.embed("embed")
    assert result.vectors == [pytest.approx(vector_of(text)) for text in TEXTS]
    assert (result.provider, result.model) == ("somewhere", "embed")
    assert (result.usage.prompt_tokens, result.usage.total_tokens) == (8, 8)
    assert result.duration_s > 0


async def test_vectors_that_come_in_another_order_are_put_in_that_of_the_texts(side: Side) -> None:
    assert (await side.embed("shuffled")).vectors == [pytest.approx(vector_of(text)) for text in TEXTS]


async def test_dimensions_and_the_key_reach_the_provider_and_what_is_unset_does_not(side: Side) -> None:
    result = await side.embed("text-embedding-3-small", dimensions=16)
    assert [len(vector) for vector in result.vectors] == [16, 16, 16]
    request, headers = side.upstream.state.last_request, side.upstream.state.last_headers
    assert (request["input"], request["dimensions"]) == ([*TEXTS], 16)
    assert headers["authorization"] == f"Bearer {KEY}"
    assert len((await side.embed("text-embedding-3-small")).vectors[0]) == 1536
    assert side.upstream.state.last_request.get("dimensions") is None


FAILURES = {
    "401": (503, "PROVIDER_UNAVAILABLE"),
    "402": (503, "PROVIDER_UNAVAILABLE"),
    "403": (503, "PROVIDER_UNAVAILABLE"),
    "quota": (503, "PROVIDER_UNAVAILABLE"),
    "500": (503, "PROVIDER_UNAVAILABLE"),
    "503": (503, "PROVIDER_UNAVAILABLE"),
    "404": (400, "INVALID_MODEL"),
    "no-such-model": (400, "INVALID_MODEL"),
    "400": (400, "VALIDATION_ERROR"),
    "422": (400, "VALIDATION_ERROR"),
    "batch-2": (400, "VALIDATION_ERROR"),
    "429": (429, "RATE_LIMIT"),
    "nonsense": (502, "LLM_ERROR"),
    "html": (502, "LLM_ERROR"),
    "empty": (502, "LLM_ERROR"),
    "die": (502, "LLM_ERROR"),
    "error-mid-stream": (502, "LLM_ERROR"),
    "too-few": (502, "LLM_ERROR"),
    "too-many": (502, "LLM_ERROR"),
    "ragged": (502, "LLM_ERROR"),
    "hollow": (502, "LLM_ERROR"),
    "words": (502, "LLM_ERROR"),
    "nulls": (502, "LLM_ERROR"),
}


@pytest.mark.parametrize(("model", "expected"), FAILURES.items())
async def test_a_failure_is_the_same_error_through_either(side: Side, model: str, expected: tuple[int, str]) -> None:
    with capture_logs() as logs, pytest.raises(AppError) as caught:
        await side.embed(model)
    assert (caught.value.status, caught.value.code) == expected
    assert "somewhere" in caught.value.message or model in caught.value.message
    assert "SECRET-DETAIL" not in caught.value.message
    assert [line["provider"] for line in logs] == ["somewhere"], "one line in the log says what the provider said"
    assert KEY not in repr(logs) + repr(caught.value) + caught.value.message


@pytest.mark.parametrize("model", ["context", "short-3"])
async def test_a_text_that_is_too_long_is_told_as_such(side: Side, model: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await side.embed(model)
    assert caught.value.message == f"A text is longer than the model '{model}' can take. Shorten it or choose another model."


async def test_the_provider_says_when_to_try_again(side: Side) -> None:
    with pytest.raises(AppError) as caught:
        await side.embed("429")
    assert caught.value.headers["Retry-After"] == "7"
    assert side.upstream.state.finished == 1, "and is not asked again before"


async def test_nobody_listening_is_provider_unavailable(side: Side, free_tcp_port: int) -> None:
    endpoint = side.endpoint(f"http://127.0.0.1:{free_tcp_port}/v1")
    with pytest.raises(AppError) as caught:
        await side.transport.embed(endpoint, EmbeddingRequest("embed", TEXTS))
    assert (caught.value.status, caught.value.code) == (503, "PROVIDER_UNAVAILABLE")


@pytest.mark.parametrize("model", ["slow-60", "stall"])
async def test_an_answer_that_takes_too_long_is_given_up(hasty: Side, model: str) -> None:
    with anyio.fail_after(5), pytest.raises(AppError) as caught:
        await hasty.embed(model)
    assert (caught.value.status, caught.value.code) == (504, "LLM_ERROR")
    assert await eventually(hasty.counts, lambda counts: counts == (0, 0, 1))


async def test_a_caller_that_leaves_cancels_the_upstream_call(side: Side) -> None:
    waiting = asyncio.ensure_future(side.embed("slow-60"))
    assert await eventually(side.counts, lambda counts: counts[0] == 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await eventually(side.counts, lambda counts: counts == (0, 0, 1))


async def test_an_endless_answer_is_cut_off(upstream: RunningUpstream) -> None:
    async for side in open_side("direct", upstream, 60):
        with anyio.fail_after(5), pytest.raises(UpstreamError, match="too large"):
            await side.embed("huge")


async def test_usage_that_nobody_counted_is_not_known(side: Side) -> None:
    assert (await side.embed("uncounted")).usage == Usage()


async def test_a_provider_without_embeddings_is_an_error_of_ours(upstream: RunningUpstream) -> None:
    async for side in open_side("litellm", upstream, 60):
        endpoint = Endpoint("somewhere", "anthropic", upstream.base_url, KEY)
        with pytest.raises(AppError) as caught:
            await side.transport.embed(endpoint, EmbeddingRequest("claude-haiku-4-5", TEXTS))
        assert caught.value.status in {400, 502}
