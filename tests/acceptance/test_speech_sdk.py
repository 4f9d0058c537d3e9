"""Speaking through the official Python SDK, unmodified, against a running server."""

import asyncio
import base64
import io
import json
import wave
from collections.abc import Callable

import httpx
import psutil
import pytest
from realtimex_sdk import PermissionDeniedError, RealtimeXSDK  # type: ignore[import-untyped]

from tests.acceptance.servers import Admin, Server, eventually
from tests.processes import children_running

pytestmark = pytest.mark.anyio

Sdk = Callable[..., RealtimeXSDK]

THREE = "This is the first sentence. Here comes the second one! And is this the third?"
LONG = "This is a sentence that goes on for a bit, so that it takes a while until all of it has been spoken. " * 90


@pytest.fixture(scope="module")
def app_id(admin: Admin) -> str:
    """An app that may speak."""
    return admin.register("Speaker", granted=("tts.generate",))


@pytest.fixture
def app(sdk: Sdk, app_id: str) -> RealtimeXSDK:
    """The SDK of that app."""
    return sdk(app_id=app_id, app_name="Speaker")


@pytest.fixture
def newcomer(sdk: Sdk, admin: Admin) -> RealtimeXSDK:
    """The SDK of a new app about which nothing is decided."""
    return sdk(app_id=admin.register("Mute"), app_name="Mute")


def duration_s(content: bytes) -> float:
    """How long a WAV file plays."""
    with wave.open(io.BytesIO(content)) as file:
        return file.getnframes() / file.getframerate()


def voices_of(server: Server) -> list[psutil.Process]:
    """The processes that speak for a server."""
    return [voice for process in server.processes() for voice in children_running("adapters.voices", process)]


async def test_an_app_speaks(app: RealtimeXSDK) -> None:
    usual = duration_s(await app.tts.speak("Hello world!"))
    assert 0.5 < usual < 3
    everything = {"voice": "en-gb", "model": "any", "speed": 2.0, "provider": "espeak", "language": "en", "num_inference_steps": 5}
    assert 0.2 < duration_s(await app.tts.speak("Hello world!", **everything)) < usual
    assert duration_s(await app.tts.speak("Hello world!", provider="system")) > 0.5


async def test_an_app_speaks_in_chunks(app: RealtimeXSDK) -> None:
    chunks = [chunk async for chunk in app.tts.speak_stream(THREE, voice="default", speed=1.0, language="en")]
    assert [(chunk["index"], chunk["total"], chunk["mimeType"]) for chunk in chunks] == [(number, 3, "audio/wav") for number in range(3)]
    assert all(0.5 < duration_s(chunk["audio"]) < 4 for chunk in chunks)


async def test_an_app_sees_who_can_speak_and_each_can_be_named(app: RealtimeXSDK) -> None:
    providers = await app.tts.list_providers()
    assert {"id", "name", "type", "configured", "supportsStreaming"} <= providers[0].keys()
    able = [each for each in providers if each["configured"] and each["type"] == "client"]
    assert {each["id"] for each in able} >= {"espeak", "system"}
    for each in able:
        config = each["config"]
        for voice in config["voices"][:3]:
            spoken = await app.tts.speak("Hello.", provider=each["id"], voice=voice, speed=config["speed"]["default"])
            assert duration_s(spoken) > 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voice": "nonsense-qq"}, "'espeak' has no voice 'nonsense-qq'"),
        ({"voice": "en-us+f9"}, "Did you mean 'en-us'"),
        ({"language": "xx"}, "does not speak 'xx'"),
        ({"speed": 3.0}, "speed"),
        ({"provider": "supertonic_local"}, "Known: piper, espeak, system"),
        ({"text": " "}, "text"),
    ],
)
async def test_what_cannot_be_spoken_is_told_whole_and_streamed(app: RealtimeXSDK, options: dict[str, str], message: str) -> None:
    arguments = {"text": "Hello."} | options
    with pytest.raises(Exception, match=message):
        await app.tts.speak(**arguments)
    with pytest.raises(Exception, match=message):
        await anext(app.tts.speak_stream(**arguments))


async def test_a_refused_speech_is_asked_for_granted_and_repeated(newcomer: RealtimeXSDK, admin: Admin) -> None:
    assert await newcomer.tts.list_providers(), "seeing who can speak needs no permission"
    asking = asyncio.create_task(newcomer.tts.speak("Hello."))
    await asyncio.to_thread(admin.decide, newcomer.app_id, {"tts.generate": "granted"})
    assert duration_s(await asking) > 0.3
    assert admin.grants(newcomer.app_id) == {"tts.generate": "granted"}


async def test_a_refused_stream_that_is_denied_is_told(newcomer: RealtimeXSDK, admin: Admin) -> None:
    asking = asyncio.ensure_future(anext(newcomer.tts.speak_stream("Hello.")))
    await asyncio.to_thread(admin.decide, newcomer.app_id, {"tts.generate": "denied"})
    with pytest.raises(PermissionDeniedError):
        await asking


async def test_eight_apps_speak_at_once(app: RealtimeXSDK) -> None:
    alone = duration_s(await app.tts.speak(THREE))
    spoken = await asyncio.gather(*(app.tts.speak(THREE) for _ in range(8)))
    assert all(duration_s(each) == pytest.approx(alone, rel=0.02) for each in spoken)


def test_a_speech_is_exactly_200_with_its_bytes_and_their_type(server: Server, app_id: str) -> None:
    with httpx.Client(base_url=server.url, headers={"X-App-Id": app_id}, timeout=30, trust_env=False) as http:
        for format, media_type, magic in (("wav", "audio/wav", b"RIFF"), (None, "audio/wav", b"RIFF"), ("mp3", "audio/mpeg", b"\xff")):
            answer = http.post("/sdk/tts", json={"text": "Hello.", "format": format})
            assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
            assert answer.headers["content-length"] == str(len(answer.content))
            assert answer.content.startswith(magic)
        answer = http.post("/sdk/tts", json={"text": "Hello.", "provider": "piper"})
        assert (answer.status_code, answer.json()["code"]) == (503, "PROVIDER_UNAVAILABLE")


def test_a_stream_has_its_events_and_ends_with_its_connection(server: Server, app_id: str) -> None:
    with httpx.Client(base_url=server.url, headers={"X-App-Id": app_id}, timeout=30, trust_env=False) as http:
        answer = http.post("/sdk/tts/stream", json={"text": THREE, "format": "mp3"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [dict(line.split(": ", 1) for line in block.split("\n")) for block in answer.text.removesuffix("\n\n").split("\n\n")]
    assert [each["event"] for each in events] == ["info", "chunk", "chunk", "chunk", "done"]
    chunks = [json.loads(each["data"]) for each in events[1:-1]]
    assert {each["mimeType"] for each in chunks} == {"audio/mpeg"}
    assert all(base64.b64decode(each["audio"], validate=True).startswith(b"\xff") for each in chunks)


def test_a_client_that_leaves_ends_what_was_spoken_for_it(server: Server, app_id: str) -> None:
    with httpx.Client(base_url=server.url, headers={"X-App-Id": app_id}, timeout=30, trust_env=False) as http:
        with http.stream("POST", "/sdk/tts/stream", json={"text": LONG, "provider": "system", "speed": 0.5}) as answer:
            pieces = answer.iter_raw()  # held on to, because without it the connection is closed
            next(pieces)
            # The head of the sound is sent before the process has become another program.
            speaking = eventually(lambda: [each for each in voices_of(server) if "system_process" in " ".join(each.cmdline())])
            assert len(speaking) <= len(server.processes())
        # Either the process was in the middle of a sentence and is gone, or it was between two and is asked for no more.
        eventually(lambda: all(not each.is_running() or _is_idle(each) for each in speaking))
        assert duration_s(http.post("/sdk/tts", json={"text": "Hello.", "provider": "system"}).content) > 0.3


def _is_idle(process: psutil.Process) -> bool:
    """Whether a process uses no processor time for a tenth of a second."""
    before = process.cpu_times()
    try:
        process.wait(0.1)
    except psutil.TimeoutExpired:
        return process.cpu_times() == before
    return True
