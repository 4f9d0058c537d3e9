"""Speech through both transports against the same model server: the same sound, and the same error for the same failure."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
import pytest
from structlog.testing import capture_logs

from adapters.audio.encoded import EncodedAudio
from adapters.audio.pcm import Pcm
from adapters.chat import Endpoint, Usage
from adapters.litellm import LiteLLM
from adapters.openai_protocol import OpenAIProtocol
from adapters.speech import SpeechRequest, SpeechResult
from contract.upstream import RunningUpstream, spoken_s
from homeport.errors import AppError, InvalidRequest, UpstreamError
from tests.integration.parts import eventually

pytestmark = [
    pytest.mark.anyio,
    # Pydantic, about how LiteLLM and OpenAI's package use it.
    pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning", "ignore:Accessing the 'model_:DeprecationWarning"),
]

KEY = "sk-very-secret-0123456789"
TEXT = "Good morning to all of you."
Known = dict[str, tuple[type[OpenAIProtocol] | type[LiteLLM], str]]

OPENAI_LIKE: Known = {
    "direct": (OpenAIProtocol, "openai"),
    "litellm": (LiteLLM, "hosted_vllm"),
    "litellm-openai": (LiteLLM, "openai"),
}
TRANSPORTS: Known = {
    **OPENAI_LIKE,
    "elevenlabs": (LiteLLM, "elevenlabs"),
    "mistral": (LiteLLM, "mistral"),
    "gemini": (LiteLLM, "gemini"),
}
# LiteLLM gives Azure's failures less of what they said, and asks it twice more.
AZURE: Known = {"azure": (LiteLLM, "azure")}


@dataclass
class Side:
    """A transport and an endpoint that it reaches the stand-in by."""

    transport: OpenAIProtocol | LiteLLM
    kind: str
    upstream: RunningUpstream

    def endpoint(self, url: str = "") -> Endpoint:
        url = url or self.upstream.url
        return Endpoint("somewhere", self.kind, url if self.kind in {"azure", "elevenlabs"} else f"{url}/v1", KEY)

    async def speak(self, model: str, text: str = TEXT, *, speed: float | None = None) -> SpeechResult:
        return await self.transport.speak(self.endpoint(), SpeechRequest(model, text, "alloy", speed))

    async def counts(self) -> tuple[int, int, int]:
        state = self.upstream.state
        return state.open, state.finished, state.cancelled


async def open_side(name: str, upstream: RunningUpstream, timeout_s: float) -> AsyncIterator[Side]:
    make, kind = {**TRANSPORTS, **AZURE}[name]
    transport = make(timeout_s, timeout_s)
    if isinstance(transport, LiteLLM):
        await transport.warm()  # takes seconds once, which no test should count
    yield Side(transport, kind, upstream)
    await transport.close()


@pytest.fixture(params=TRANSPORTS)
async def side(request: pytest.FixtureRequest, upstream: RunningUpstream) -> AsyncIterator[Side]:
    async for side in open_side(request.param, upstream, 60):
        yield side


@pytest.fixture(params=[*OPENAI_LIKE, *AZURE])
async def openai_like(request: pytest.FixtureRequest, upstream: RunningUpstream) -> AsyncIterator[Side]:
    """A side that speaks OpenAI's protocol in the end."""
    async for side in open_side(request.param, upstream, 60):
        yield side


@pytest.fixture(params=TRANSPORTS)
async def hasty(request: pytest.FixtureRequest, upstream: RunningUpstream) -> AsyncIterator[Side]:
    """A side that gives up after 0.3 s."""
    async for side in open_side(request.param, upstream, 0.3):
        yield side


async def test_a_text_is_spoken_as_samples_in_one_request(side: Side) -> None:
    result = await side.speak("tts-1")
    assert isinstance(result.audio, Pcm)
    assert result.audio.rate == 24_000
    assert result.audio.duration_s == pytest.approx(spoken_s(TEXT))
    assert any(result.audio.samples)
    assert (result.provider, result.model) == ("somewhere", "tts-1")
    assert result.duration_s > 0
    assert side.upstream.state.finished == 1, "and is paid for once"


async def test_tokens_are_told_where_the_provider_counts_them(side: Side) -> None:
    usage = (await side.speak("tts-1")).usage
    assert usage == (Usage(6, 25, 31) if side.kind == "gemini" else Usage())


async def test_the_voice_the_speed_and_the_key_reach_the_provider(openai_like: Side) -> None:
    result = await openai_like.speak("tts-1", speed=2)
    assert isinstance(result.audio, Pcm)
    assert result.audio.duration_s == pytest.approx(spoken_s(TEXT, 2))
    request, headers = openai_like.upstream.state.last_request, openai_like.upstream.state.last_headers
    assert (request["input"], request["voice"], request["speed"], request["response_format"]) == (TEXT, "alloy", 2, "wav")
    assert KEY in (headers.get("authorization", "").removeprefix("Bearer "), headers.get("api-key"))
    await openai_like.speak("tts-1")
    assert "speed" not in openai_like.upstream.state.last_request


@pytest.mark.parametrize(("kind", "header"), [("elevenlabs", "xi-api-key"), ("gemini", "x-goog-api-key")])
async def test_a_voice_of_another_protocol_is_passed_on_as_it_is(upstream: RunningUpstream, kind: str, header: str) -> None:
    async for side in open_side(kind, upstream, 60):
        await side.transport.speak(side.endpoint(), SpeechRequest("tts-1", TEXT, "A-voice-Of-mine"))
        assert "A-voice-Of-mine" in repr(upstream.state.last_request)
        assert upstream.state.last_headers[header] == KEY


async def test_a_file_whose_length_was_not_known_before_is_read_whole(openai_like: Side) -> None:
    audio = (await openai_like.speak("streamed")).audio
    assert isinstance(audio, Pcm)
    assert audio.duration_s == pytest.approx(spoken_s(TEXT))


@pytest.mark.parametrize(("model", "media_type", "begins"), [("mp3", "audio/mpeg", b"\xff"), ("stereo", "audio/wav", b"RIFF")])
async def test_another_file_stays_what_it_is(openai_like: Side, model: str, media_type: str, begins: bytes) -> None:
    audio = (await openai_like.speak(model)).audio
    assert isinstance(audio, EncodedAudio)
    assert audio.media_type == media_type
    assert audio.content.startswith(begins)


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
    "429": (429, "RATE_LIMIT"),
    "nonsense": (502, "LLM_ERROR"),
    "html": (502, "LLM_ERROR"),
    "empty": (502, "LLM_ERROR"),
    "die": (502, "LLM_ERROR"),
    "error-mid-stream": (502, "LLM_ERROR"),
}
NOT_SOUND = {"nothing": (502, "LLM_ERROR"), "silent": (502, "LLM_ERROR")}


async def fails(side: Side, model: str) -> tuple[int, str]:
    with capture_logs() as logs, pytest.raises(AppError) as caught:
        await side.speak(model)
    assert "somewhere" in caught.value.message or model in caught.value.message
    assert "SECRET-DETAIL" not in caught.value.message
    assert [line["provider"] for line in logs] == ["somewhere"], "one line in the log says what the provider said"
    assert KEY not in repr(logs) + repr(caught.value) + caught.value.message
    return caught.value.status, caught.value.code


@pytest.mark.parametrize(("model", "expected"), FAILURES.items())
async def test_a_failure_is_the_same_error_through_any(side: Side, model: str, expected: tuple[int, str]) -> None:
    assert await fails(side, model) == expected


@pytest.mark.parametrize(("model", "expected"), NOT_SOUND.items())
async def test_silence_is_no_speech(openai_like: Side, model: str, expected: tuple[int, str]) -> None:
    assert await fails(openai_like, model) == expected


@pytest.mark.parametrize("model", ["context", "brief-5"])
async def test_a_text_that_is_too_long_is_told_as_such(side: Side, model: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await side.speak(model)
    assert caught.value.message == f"The text is longer than the model '{model}' can take. Shorten it or choose another model."


async def test_the_provider_says_when_to_try_again(side: Side) -> None:
    with pytest.raises(AppError) as caught:
        await side.speak("429")
    assert caught.value.headers["Retry-After"] == "7"
    assert side.upstream.state.finished == 1, "and is not asked again before"


async def test_nobody_listening_is_provider_unavailable(side: Side, free_tcp_port: int) -> None:
    with pytest.raises(AppError) as caught:
        await side.transport.speak(side.endpoint(f"http://127.0.0.1:{free_tcp_port}"), SpeechRequest("tts-1", TEXT, "alloy"))
    assert (caught.value.status, caught.value.code) == (503, "PROVIDER_UNAVAILABLE")


@pytest.mark.parametrize("model", ["slow-60", "stall"])
async def test_an_answer_that_takes_too_long_is_given_up(hasty: Side, model: str) -> None:
    with anyio.fail_after(5), pytest.raises(AppError) as caught:
        await hasty.speak(model)
    assert (caught.value.status, caught.value.code) == (504, "LLM_ERROR")
    assert await eventually(hasty.counts, lambda counts: counts == (0, 0, 1))


async def test_a_caller_that_leaves_cancels_the_upstream_call(side: Side) -> None:
    waiting = asyncio.ensure_future(side.speak("slow-60"))
    assert await eventually(side.counts, lambda counts: counts[0] == 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await eventually(side.counts, lambda counts: counts == (0, 0, 1))


async def test_an_endless_answer_is_cut_off(upstream: RunningUpstream) -> None:
    async for side in open_side("direct", upstream, 60):
        with anyio.fail_after(5), pytest.raises(UpstreamError, match="too large"):
            await side.speak("huge")


async def test_a_provider_that_does_not_speak_is_an_error_of_ours(upstream: RunningUpstream) -> None:
    async for side in open_side("litellm", upstream, 60):
        endpoint = Endpoint("somewhere", "anthropic", upstream.base_url, KEY)
        with pytest.raises(AppError) as caught:
            await side.transport.speak(endpoint, SpeechRequest("claude-haiku-4-5", TEXT, "alloy"))
        assert caught.value.status in {400, 502}
