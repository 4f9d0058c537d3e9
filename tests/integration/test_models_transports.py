"""Both transports against the same model server: the same answers, and the same error for the same failure."""

import asyncio
from collections.abc import AsyncIterator

import anyio
import pytest
from structlog.testing import capture_logs

from adapters.chat import ChatRequest, ContextTooLong, Delta, Finish, Silence, Usage
from contract.upstream import RunningUpstream
from homeport.errors import AppError
from tests.integration.parts import eventually
from tests.integration.sides import KEY, LIBRARY_WARNINGS, MESSAGES, TRANSPORTS, Side, open_side

pytestmark = [pytest.mark.anyio, LIBRARY_WARNINGS]


@pytest.fixture(params=TRANSPORTS)
async def side(request: pytest.FixtureRequest, upstream: RunningUpstream) -> AsyncIterator[Side]:
    async for side in open_side(request.param, upstream, chat_timeout_s=60, stream_idle_s=60):
        yield side


@pytest.fixture(params=TRANSPORTS)
async def hasty(request: pytest.FixtureRequest, upstream: RunningUpstream) -> AsyncIterator[Side]:
    """A side that gives up after 0.3 s, and says that there is silence after 0.1 s."""
    async for side in open_side(request.param, upstream, chat_timeout_s=0.3, stream_idle_s=0.3, heartbeat_s=0.1):
        yield side


async def test_a_whole_answer_has_content_usage_and_duration(side: Side) -> None:
    result = await side.chat("echo")
    assert result.content == "You said: good morning"
    assert (result.provider, result.model) == ("somewhere", "echo")
    assert result.usage == Usage(prompt_tokens=2, completion_tokens=4, total_tokens=6)
    assert result.duration_s > 0


async def test_a_streamed_answer_comes_in_pieces_and_finishes_with_usage(side: Side) -> None:
    *pieces, last = await side.stream("echo")
    assert [piece.text for piece in pieces if isinstance(piece, Delta)] == ["You", " said:", " good", " morning"]
    assert isinstance(last, Finish)
    assert (last.provider, last.model, last.usage) == ("somewhere", "echo", Usage(2, 4, 6))


async def test_options_and_the_key_reach_the_provider_and_unset_ones_do_not(side: Side) -> None:
    await side.chat("echo", temperature=0.2, max_tokens=17, response_format={"type": "json_object"})
    request, headers = side.upstream.state.last_request, side.upstream.state.last_headers
    assert (request["temperature"], request["max_tokens"], request["response_format"]) == (0.2, 17, {"type": "json_object"})
    assert headers["authorization"] == f"Bearer {KEY}"
    await side.chat("echo")
    assert not {"temperature", "max_tokens", "response_format"} & set(side.upstream.state.last_request)


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
    "context": (400, "VALIDATION_ERROR"),
    "429": (429, "RATE_LIMIT"),
    "nonsense": (502, "LLM_ERROR"),
    "html": (502, "LLM_ERROR"),
    "empty": (502, "LLM_ERROR"),
}


def status_and_code(error: AppError) -> tuple[int, str]:
    return error.status, error.code


@pytest.mark.parametrize(("model", "expected"), [*FAILURES.items(), ("die", (502, "LLM_ERROR")), ("error-mid-stream", (502, "LLM_ERROR"))])
async def test_a_failure_of_a_whole_answer_is_the_same_error_through_either(side: Side, model: str, expected: tuple[int, str]) -> None:
    with capture_logs() as logs, pytest.raises(AppError) as caught:
        await side.chat(model)
    assert status_and_code(caught.value) == expected
    assert "somewhere" in caught.value.message or model in caught.value.message
    assert "SECRET-DETAIL" not in caught.value.message
    assert [line["provider"] for line in logs] == ["somewhere"], "one line in the log says what the provider said"
    assert KEY not in repr(logs) + repr(caught.value) + caught.value.message


@pytest.mark.parametrize(("model", "expected"), FAILURES.items())
async def test_a_failure_before_the_first_piece_of_a_stream_has_a_status(side: Side, model: str, expected: tuple[int, str]) -> None:
    with pytest.raises(AppError) as caught:
        await side.transport.open_stream(side.endpoint(), ChatRequest(model, MESSAGES))
    assert status_and_code(caught.value) == expected
    assert "SECRET-DETAIL" not in caught.value.message


@pytest.mark.parametrize("model", ["die", "error-mid-stream"])
async def test_a_failure_after_the_first_piece_is_raised_while_reading(side: Side, model: str) -> None:
    stream = await side.transport.open_stream(side.endpoint(), ChatRequest(model, MESSAGES))
    assert await anext(stream) == Delta("Once")
    with pytest.raises(AppError) as caught:
        await anext(stream)
    assert status_and_code(caught.value) == (502, "LLM_STREAM_ERROR")
    assert "SECRET-DETAIL" not in caught.value.message
    await stream.aclose()


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_conversation_that_is_too_long_is_told_from_other_invalid_requests(side: Side, is_stream: bool) -> None:
    ask = side.transport.open_stream if is_stream else side.transport.chat
    with pytest.raises(ContextTooLong, match="The conversation is longer than the model 'context' can take"):
        await ask(side.endpoint(), ChatRequest("context", MESSAGES))
    with pytest.raises(AppError) as caught:
        await ask(side.endpoint(), ChatRequest("400", MESSAGES))
    assert not isinstance(caught.value, ContextTooLong)


async def test_the_provider_says_when_to_try_again(side: Side) -> None:
    with pytest.raises(AppError) as caught:
        await side.chat("429")
    assert caught.value.headers["Retry-After"] == "7"


@pytest.mark.parametrize("is_stream", [False, True])
async def test_nobody_listening_is_provider_unavailable(side: Side, free_tcp_port: int, is_stream: bool) -> None:
    endpoint = side.endpoint(f"http://127.0.0.1:{free_tcp_port}/v1")
    ask = side.transport.open_stream if is_stream else side.transport.chat
    with pytest.raises(AppError) as caught:
        await ask(endpoint, ChatRequest("echo", MESSAGES))
    assert status_and_code(caught.value) == (503, "PROVIDER_UNAVAILABLE")
    assert "somewhere" in caught.value.message


@pytest.mark.parametrize("model", ["slow-60", "stall"])
async def test_a_whole_answer_that_takes_too_long_is_given_up(hasty: Side, model: str) -> None:
    with anyio.fail_after(5), pytest.raises(AppError) as caught:
        await hasty.chat(model)
    assert status_and_code(caught.value) == (504, "LLM_ERROR")
    assert await eventually(hasty.counts, lambda counts: counts == (0, 0, 1))


async def test_a_stream_that_does_not_begin_in_time_is_given_up(hasty: Side) -> None:
    with anyio.fail_after(5), pytest.raises(AppError) as caught:
        await hasty.stream("slow-60")
    assert status_and_code(caught.value) == (504, "LLM_ERROR")
    assert await eventually(hasty.counts, lambda counts: counts == (0, 0, 1))


async def test_a_stream_that_falls_silent_says_so_and_ends_with_an_error(hasty: Side) -> None:
    stream = await hasty.transport.open_stream(hasty.endpoint(), ChatRequest("stall", MESSAGES))
    with anyio.fail_after(5):
        assert [await anext(stream) for _ in range(3)] == [Delta("Once"), Silence(), Silence()]
        with pytest.raises(AppError) as caught:
            await anext(stream)
    assert status_and_code(caught.value) == (504, "LLM_STREAM_ERROR")
    assert await eventually(hasty.counts, lambda counts: counts == (0, 0, 1))


async def test_closing_a_stream_cancels_the_upstream_call_at_once(side: Side) -> None:
    stream = await side.transport.open_stream(side.endpoint(), ChatRequest("endless", MESSAGES))
    assert await anext(stream) == Delta("Once")
    await stream.aclose()
    assert await eventually(side.counts, lambda counts: counts == (0, 0, 1))


async def test_a_stream_that_was_opened_and_never_read_is_cancelled_by_closing_it(side: Side) -> None:
    stream = await side.transport.open_stream(side.endpoint(), ChatRequest("stall", MESSAGES))
    await stream.aclose()
    assert await eventually(side.counts, lambda counts: counts == (0, 0, 1))


async def test_cancelling_the_reader_of_a_silent_stream_cancels_the_upstream_call(side: Side) -> None:
    stream = await side.transport.open_stream(side.endpoint(), ChatRequest("stall", MESSAGES))
    assert await anext(stream) == Delta("Once")
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await stream.aclose()
    assert await eventually(side.counts, lambda counts: counts == (0, 0, 1))


@pytest.mark.parametrize("is_stream", [False, True])
async def test_cancelling_a_call_that_waits_for_its_answer_cancels_the_upstream_call(side: Side, is_stream: bool) -> None:
    ask = side.transport.open_stream if is_stream else side.transport.chat
    waiting = asyncio.ensure_future(ask(side.endpoint(), ChatRequest("slow-60", MESSAGES)))
    assert await eventually(side.counts, lambda counts: counts[0] == 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await eventually(side.counts, lambda counts: counts == (0, 0, 1))


async def test_ten_streams_at_once_do_not_mix(side: Side) -> None:
    async def ask(number: int) -> str:
        request = ChatRequest("echo", [{"role": "user", "content": f"number {number}"}])
        stream = await side.transport.open_stream(side.endpoint(), request)
        return "".join([event.text async for event in stream if isinstance(event, Delta)])

    with anyio.fail_after(5):
        assert await asyncio.gather(*map(ask, range(10))) == [f"You said: number {number}" for number in range(10)]


async def test_a_closed_transport_can_be_used_again(side: Side) -> None:
    await side.chat("echo")
    await side.transport.close()
    assert (await side.chat("echo")).content == "You said: good morning"
