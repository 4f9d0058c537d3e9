"""Which provider and model speak, within which limits, and that it is counted: on a real database, with real upstreams."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from adapters.audio.pcm import Pcm
from adapters.chat import Endpoint, Usage
from adapters.postgres import Database
from contract.upstream import RunningUpstream, spoken_s
from homeport.errors import AppError, InvalidRequest, Unavailable
from homeport.identity import Principal
from homeport.models import Limits, Models, Speaker
from homeport.models.usage import ModelUsage
from tests.integration.parts import eventually
from tests.integration.test_embeddings import open_models, shown

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning", "ignore:Accessing the 'model_:DeprecationWarning"),
]

TEXT = "Good morning to all of you."
APP = Principal("app", uuid4(), "App", uuid4(), None, frozenset({"*"}), frozenset())


@pytest.fixture
async def models(database: Database, tmp_path: Path) -> AsyncIterator[Models]:
    """Models with nothing configured."""
    async with open_models(database, tmp_path) as models:
        yield models


@pytest.fixture
async def served(models: Models, upstream: RunningUpstream) -> Models:
    """Models with the stand-in as the provider ``mine``."""
    await models.add_provider("mine", base_url=upstream.base_url)
    return models


def working(speakers: list[Speaker]) -> list[tuple[str, tuple[str, ...]]]:
    return [(each.name, each.models) for each in speakers if each.problem is None]


async def test_a_text_is_spoken_by_the_first_provider_that_has_a_model_for_it(served: Models, upstream: RunningUpstream) -> None:
    result = await served.speak(TEXT)
    assert isinstance(result.audio, Pcm)
    assert result.audio.duration_s == pytest.approx(spoken_s(TEXT))
    assert (result.provider, result.model) == ("mine", "tts-1")
    assert upstream.state.last_request["voice"] == "alloy"


async def test_provider_model_voice_and_speed_can_be_named(served: Models, upstream: RunningUpstream) -> None:
    result = await served.speak(TEXT, provider="MINE", model="tts-hd", voice="a voice of mine", speed=0.5)
    assert result.model == "tts-hd"
    assert isinstance(result.audio, Pcm)
    assert result.audio.duration_s == pytest.approx(spoken_s(TEXT, 0.5))
    assert upstream.state.last_request["voice"] == "a voice of mine"
    assert (await served.speak(TEXT, model="mine/tts-1")).provider == "mine"


async def test_with_nothing_that_speaks_it_is_said_what_is_missing(models: Models) -> None:
    with pytest.raises(Unavailable, match="a model that speaks") as caught:
        await models.speak(TEXT)
    assert caught.value.code == "PROVIDER_UNAVAILABLE"
    await models.add_provider("mute", base_url="http://127.0.0.1:9/v1", models=["llama3"])
    with pytest.raises(InvalidRequest, match="names no models that speak"):
        await models.speak(TEXT, provider="mute")
    assert working(await models.speakers()) == []


async def test_whoever_only_speaks_is_never_asked_to_chat(database: Database, tmp_path: Path) -> None:
    async with open_models(database, tmp_path, {"ELEVENLABS_API_KEY": "sk-e"}) as models:
        assert working(await models.speakers()) == [("elevenlabs", ("eleven_multilingual_v2", "eleven_v3"))]
        assert await models.providers() == []
        with pytest.raises(Unavailable):
            await models.resolve(None, None)
        assert await models.resolve(None, None, role="speech") == (
            Endpoint("elevenlabs", "elevenlabs", None, "sk-e"),
            "eleven_multilingual_v2",
        )


async def test_whoever_would_speak_with_a_key_is_listed_with_what_is_missing(database: Database, tmp_path: Path) -> None:
    async with open_models(database, tmp_path, {"ELEVENLABS_API_KEY": "sk-e"}) as models:
        missing = {each.name: each.problem for each in await models.speakers() if each.problem}
        assert missing.keys() == {"openai", "gemini", "mistral", "groq"}
        assert "OPENAI_API_KEY" in str(missing["openai"])
        openai, elevenlabs = await models.find_speaker("openai"), await models.find_speaker("elevenlabs")
        assert openai is not None
        assert "OPENAI_API_KEY" in str(openai.problem)
        assert elevenlabs is not None
        assert elevenlabs.problem is None
        assert await models.find_speaker("anthropic") is None
        await models.add_provider("openai", models=["tts-1"])
        [openai] = [each for each in await models.speakers() if each.name == "openai"]
        assert openai.models == ("tts-1",)
        assert "OPENAI_API_KEY" in str(openai.problem), "it is there, but without a key"
        await models.add_provider("own", base_url="http://127.0.0.1:9/v1", models=["kokoro"])
        assert working(await models.speakers())[-2:] == [("own", ("kokoro",)), ("elevenlabs", ("eleven_multilingual_v2", "eleven_v3"))]


async def test_models_that_speak_are_told_apart_by_their_names(models: Models, upstream: RunningUpstream) -> None:
    await models.add_provider("all", base_url=upstream.base_url, models=["llama3", "nomic-embed-text", "kokoro", "tts-1"])
    assert working(await models.speakers()) == [("all", ("kokoro", "tts-1"))]
    assert shown(await models.providers()) == [("all", True, ["llama3"])]


async def test_a_provider_that_only_speaks_is_tried_with_a_word(models: Models, upstream: RunningUpstream) -> None:
    await models.add_provider("voices", kind="elevenlabs", base_url=upstream.url, api_key="sk-e", models=["tts-1"])
    tried = await models.test_provider("voices")
    assert (tried.works, tried.message) == (True, "'voices' works: tts-1 spoke.")
    await models.remove_provider("voices")
    await models.add_provider("voices", kind="elevenlabs", base_url=f"{upstream.url}/nowhere", api_key="sk-e", models=["tts-1"])
    tried = await models.test_provider("voices")
    assert not tried.works


async def test_a_server_that_lists_only_models_that_speak_is_tried_with_a_word(models: Models, upstream: RunningUpstream) -> None:
    await models.add_provider("voices", base_url=upstream.fault_url("tts-1"))
    tried = await models.test_provider("voices")
    assert (tried.works, tried.message) == (True, "'voices' works: tts-1 spoke.")


async def test_speech_is_counted_as_such_and_its_price_is_not_made_up(served: Models, database: Database) -> None:
    await served.speak(TEXT, caller=APP)
    with pytest.raises(AppError):
        await served.speak(TEXT, caller=APP, provider="mine", model="401")
    usage = ModelUsage(database)
    usage.record("speech", None, Endpoint("openai", "openai", "https://api.openai.com/v1"), "gpt-4o-mini-tts", 0.5, Usage(), None)
    usage.record("speech", None, Endpoint("gemini", "gemini"), "gemini-3.8-flash-tts", 0.5, Usage(1_000_000, 100_000), None)
    await usage.flush()
    rows = {(row.provider, row.model, row.operation): row.numbers for row in (await served.report_usage()).items}
    assert {key: (each.requests, each.errors) for key, each in rows.items()} == {
        ("mine", "tts-1", "speech"): (1, 0),
        ("mine", "401", "speech"): (1, 1),
        ("openai", "gpt-4o-mini-tts", "speech"): (1, 0),
        ("gemini", "gemini-3.8-flash-tts", "speech"): (1, 0),
    }
    assert rows["openai", "gpt-4o-mini-tts", "speech"].cost_usd is None
    assert rows["gemini", "gemini-3.8-flash-tts", "speech"].cost_usd == pytest.approx(0.5 + 0.9)


async def test_limits_of_time_and_retries_hold_for_speech(served: Models, upstream: RunningUpstream) -> None:
    with pytest.raises(Unavailable):
        await served.speak(TEXT, provider="mine", model="503")
    assert upstream.state.finished == 2, "once more by default"
    await served.registry.set_limits(Limits("mine", timeout_s=0.3, retries=0))
    with anyio.fail_after(5), pytest.raises(AppError) as caught:
        await served.speak(TEXT, provider="mine", model="slow-60")
    assert (caught.value.status, caught.value.code) == (504, "LLM_ERROR")


async def test_a_limit_of_calls_at_once_holds_for_speech(served: Models, upstream: RunningUpstream) -> None:
    await served.registry.set_limits(Limits("mine", concurrency=1))
    await asyncio.gather(*(served.speak(TEXT, provider="mine", model="slow-0.1") for _ in range(3)))
    assert (upstream.state.finished, upstream.state.most_open) == (3, 1)


async def test_a_caller_who_leaves_ends_the_call_and_it_is_counted(served: Models, upstream: RunningUpstream) -> None:
    task = asyncio.create_task(served.speak(TEXT, provider="mine", model="slow-60"))

    async def open_and_cancelled() -> tuple[int, int]:
        return upstream.state.open, upstream.state.cancelled

    assert await eventually(open_and_cancelled, lambda counts: counts == (1, 0))
    task.cancel()
    await asyncio.wait([task])
    assert await eventually(open_and_cancelled, lambda counts: counts == (0, 1))
    [row] = (await served.report_usage()).items
    assert (row.model, row.operation, row.numbers.requests, row.numbers.errors) == ("slow-60", "speech", 1, 0)
