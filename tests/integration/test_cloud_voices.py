"""Voices of services among those of this machine: on a real database, against a real upstream."""

import asyncio
import io
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from adapters.audio.decoding import decode
from adapters.postgres import Database
from contract.upstream import RunningUpstream, spoken_s
from homeport.errors import AppError, InvalidRequest, Unavailable
from homeport.models import Limits, Models
from homeport.settings import Settings
from homeport.speech.speaking import Speaking
from tests.integration.parts import eventually
from tests.integration.test_embeddings import open_models

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning", "ignore:Accessing the 'model_:DeprecationWarning"),
]

TEXT = "Good morning to all of you. How did you sleep?"


@pytest.fixture
async def models(database: Database, tmp_path: Path, upstream: RunningUpstream) -> AsyncIterator[Models]:
    """Models with the stand-in as the provider ``mine``."""
    async with open_models(database, tmp_path) as models:
        await models.add_provider("mine", base_url=upstream.base_url)
        yield models


@pytest.fixture
async def speaking(models: Models, tmp_path: Path) -> AsyncIterator[Speaking]:
    speaking = Speaking(Settings(data_dir=tmp_path), models)
    yield speaking
    await speaking.close()


def seconds_of(wav: bytes) -> float:
    with wave.open(io.BytesIO(wav)) as file:
        return float(file.getnframes() / file.getframerate())


async def test_they_are_listed_after_those_of_this_machine_and_those_without_a_key_last(speaking: Speaking, models: Models) -> None:
    listed = await speaking.providers()
    assert listed[0].kind == "client"
    by_id = {each.id: each for each in listed}
    assert (by_id["mine"].kind, by_id["mine"].is_configured, by_id["mine"].voices) == ("server", True, ("alloy",))
    assert not by_id["openai"].is_configured
    assert "OPENAI_API_KEY" in str(by_id["openai"].note)
    await models.add_provider("openai", api_key="sk-a", models=["tts-1"])
    [openai] = [each for each in await speaking.providers() if each.id == "openai"]
    assert openai.is_configured
    assert {"alloy", "shimmer"} <= {*openai.voices}
    assert (openai.models, by_id["mine"].models, by_id["espeak"].models) == (("tts-1",), ("tts-1",), ())
    with pytest.raises(Unavailable, match="ELEVENLABS_API_KEY"):
        await speaking.speak(TEXT, provider="elevenlabs")


async def test_a_text_is_one_request_and_one_file(speaking: Speaking, upstream: RunningUpstream) -> None:
    speech = await speaking.speak(TEXT, provider="mine", speed=2)
    assert (speech.media_type, speech.provider, speech.voice) == ("audio/wav", "mine", "alloy")
    assert seconds_of(speech.content) == pytest.approx(spoken_s(TEXT, 2))
    assert (upstream.state.finished, upstream.state.last_request["speed"]) == (1, 2)
    assert upstream.state.last_request["model"] == "tts-1"


async def test_mp3_is_made_here_or_passed_on_where_the_service_sends_it(speaking: Speaking) -> None:
    for model in ("tts-1", "mp3"):
        speech = await speaking.speak(TEXT, provider="mine", model=model, format="mp3")
        assert speech.media_type == "audio/mpeg"
        assert (await asyncio.to_thread(decode, speech.content, max_s=60)).duration_s == pytest.approx(spoken_s(TEXT), abs=0.2)


async def test_a_stream_asks_for_a_sentence_after_the_other(speaking: Speaking, upstream: RunningUpstream) -> None:
    stream = await speaking.stream(TEXT, provider="mine")
    assert (upstream.state.finished, upstream.state.last_request["input"]) == (1, "Good morning to all of you.")
    chunks = [chunk async for chunk in stream]
    assert [(chunk.index, chunk.total) for chunk in chunks] == [(0, 2), (1, 2)]
    assert sum(seconds_of(chunk.content) for chunk in chunks) == pytest.approx(spoken_s(TEXT))


async def test_a_voice_that_is_in_no_list_is_passed_on(speaking: Speaking, upstream: RunningUpstream) -> None:
    assert (await speaking.speak(TEXT, provider="mine", voice="bf_Emma")).voice == "bf_Emma"
    assert upstream.state.last_request["voice"] == "bf_Emma"
    await speaking.speak(TEXT, provider="mine", voice="Alloy", language="de")
    assert upstream.state.last_request["voice"] == "alloy"


@pytest.mark.parametrize(
    ("model", "expected"),
    [("401", (503, "PROVIDER_UNAVAILABLE")), ("404", (400, "INVALID_MODEL")), ("429", (429, "RATE_LIMIT")), ("html", (502, "LLM_ERROR"))],
)
async def test_its_failures_are_those_of_any_model(speaking: Speaking, model: str, expected: tuple[int, str]) -> None:
    for speak in (speaking.speak, speaking.stream):
        with pytest.raises(AppError) as caught:
            await speak(TEXT, provider="mine", model=model)
        assert (caught.value.status, caught.value.code) == expected


async def test_a_service_that_is_too_slow_is_given_up(speaking: Speaking, models: Models) -> None:
    await models.registry.set_limits(Limits("mine", timeout_s=0.3, retries=0))
    with anyio.fail_after(5), pytest.raises(AppError) as caught:
        await speaking.speak(TEXT, provider="mine", model="slow-60")
    assert caught.value.status == 504


async def test_a_listener_who_leaves_ends_the_call(speaking: Speaking, upstream: RunningUpstream) -> None:
    task = asyncio.create_task(speaking.stream(TEXT, provider="mine", model="slow-60"))

    async def open_and_cancelled() -> tuple[int, int]:
        return upstream.state.open, upstream.state.cancelled

    assert await eventually(open_and_cancelled, lambda counts: counts == (1, 0))
    task.cancel()
    await asyncio.wait([task])
    assert await eventually(open_and_cancelled, lambda counts: counts == (0, 1))


async def test_a_provider_that_does_not_speak_is_not_known_as_one(speaking: Speaking, models: Models) -> None:
    await models.add_provider("mute", base_url="http://127.0.0.1:9/v1", models=["llama3"])
    for name in ("mute", "nobody"):
        with pytest.raises(InvalidRequest, match=f"'{name}' is not known"):
            await speaking.speak(TEXT, provider=name)


async def test_the_voices_of_this_machine_speak_without_asking_any_service(speaking: Speaking, upstream: RunningUpstream) -> None:
    assert (await speaking.speak("Hello.")).provider in {"espeak", "piper"}
    assert upstream.state.finished == upstream.state.open == 0


async def test_where_nothing_here_speaks_a_service_does(speaking: Speaking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speaking, "_local", ())
    assert (await speaking.speak(TEXT)).provider == "mine"
    assert [each.id for each in await speaking.providers() if each.is_default] == ["mine"]
