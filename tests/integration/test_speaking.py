"""Speaking with the engines of this machine, and what the handlers make of it."""

import array
import asyncio
import base64
import io
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import orjson
import pytest

from adapters.audio.pcm import Pcm
from adapters.postgres import Database
from adapters.voices import Voice
from adapters.voices.espeak import Espeak
from handlers.local_apps import tts
from homeport.errors import AppError, TooManyRequests, Unavailable, UpstreamError
from homeport.models import Models
from homeport.secrets import SecretBox
from homeport.settings import Settings
from homeport.speech.engines import LocalEngine
from homeport.speech.places import MAX_CHARACTERS
from homeport.speech.speaking import Speaking
from tests.integration.parts import key_principal
from tests.piper_fixture import make_piper_voice
from tests.processes import children_running

pytestmark = pytest.mark.anyio

CALLER = key_principal(uuid4())
WAIT_S = 30
THREE_SENTENCES = ["This is the first sentence.", "Here comes the second one!", "And is this the third?"]
THREE = " ".join(THREE_SENTENCES)
UNSET = dict.fromkeys(("provider", "voice", "language", "speed", "model", "format"))


class WatchedEspeak(Espeak):
    """The real engine, which notes what it is asked to speak, and stops before it while ``gate`` is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.waits = asyncio.Event()
        self.left = asyncio.Event()
        self.fails_at: str | None = None

    async def speak(self, text: str, *, voice: Voice, speed: float) -> Pcm:
        self.begun.append(text)
        if text == self.fails_at:
            raise UpstreamError("It was made to fail.", code="SPEECH_ERROR")
        try:
            if not self.gate.is_set():
                self.waits.set()
                await asyncio.wait_for(self.gate.wait(), WAIT_S)
            return await super().speak(text, voice=voice, speed=speed)
        except asyncio.CancelledError:
            self.left.set()
            raise


@pytest.fixture
async def models(database: Database, tmp_path: Path) -> AsyncIterator[Models]:
    models = Models(Settings(data_dir=tmp_path, ollama_url=""), database, SecretBox(bytes(32)), {})
    yield models
    await models.close()


@pytest.fixture
async def speaking(models: Models, tmp_path: Path) -> AsyncIterator[Speaking]:
    speaking = Speaking(Settings(data_dir=tmp_path), models)
    yield speaking
    await speaking.close()


@pytest.fixture
async def espeak() -> WatchedEspeak:
    return WatchedEspeak()


@pytest.fixture
async def watched(models: Models, tmp_path: Path, espeak: WatchedEspeak) -> AsyncIterator[Speaking]:
    """Speaking with that engine alone."""
    speaking = Speaking(Settings(data_dir=tmp_path), models, [LocalEngine(espeak, "eSpeak NG, watched")])
    yield speaking
    espeak.gate.set()
    await speaking.close()


def home_of(speaking: Speaking) -> Any:
    """As much of a home as the handlers use."""
    return SimpleNamespace(speaking=speaking)


def played(content: bytes) -> Pcm:
    with wave.open(io.BytesIO(content)) as file:
        return Pcm(file.readframes(file.getnframes()), file.getframerate())


def is_silent(pcm: Pcm) -> bool:
    return not any(array.array("h", pcm.samples))


async def refusal(speaking: Speaking, text: str = "Hello.", **options: Any) -> AppError:
    with pytest.raises(AppError) as caught:
        await speaking.speak(text, **options)
    with pytest.raises(AppError) as other:
        await speaking.stream(text, **options)
    assert (other.value.code, other.value.message) == (caught.value.code, caught.value.message)
    return caught.value


# --- the whole text as one file


async def test_a_text_is_one_file_of_all_its_sentences(speaking: Speaking) -> None:
    speech = await speaking.speak(THREE)
    assert (speech.media_type, speech.provider, speech.voice) == ("audio/wav", "espeak", "en-us")
    assert 3 < played(speech.content).duration_s < 9


async def test_mp3_is_given_when_it_is_asked_for(speaking: Speaking) -> None:
    wav, mp3 = await speaking.speak(THREE), await speaking.speak(THREE, format="mp3")
    assert mp3.media_type == "audio/mpeg"
    assert len(mp3.content) < len(wav.content) / 4
    from adapters.audio.decoding import decode

    assert decode(mp3.content, max_s=60).duration_s == pytest.approx(played(wav.content).duration_s, abs=0.2)


@pytest.mark.parametrize("provider", ["espeak", "system"])
async def test_speed_and_voice_reach_the_engine(speaking: Speaking, provider: str) -> None:
    usual = played((await speaking.speak(THREE, provider=provider)).content)
    fast = played((await speaking.speak(THREE, provider=provider, speed=2)).content)
    assert 1.5 < usual.duration_s / fast.duration_s < 2.5
    german = await speaking.speak("Guten Tag.", provider=provider, language="de")
    assert german.voice in ("de", "gmw/de")


async def test_a_variant_is_spoken_with(speaking: Speaking) -> None:
    assert (await speaking.speak("Hello.", voice="en_US+F3")).voice == "en-us+f3"


@pytest.mark.parametrize("text", ["...", "-", "\x01\x02", "\u200b", "🜁", "( )", "[[ ]]"])
async def test_a_text_that_cannot_be_spoken_is_a_short_sound(speaking: Speaking, text: str) -> None:
    pcm = played((await speaking.speak(text)).content)
    assert 0.1 <= pcm.duration_s < 5


async def test_control_characters_alone_are_silence(speaking: Speaking) -> None:
    assert is_silent(played((await speaking.speak("\x01\x02")).content))


async def test_orders_to_espeak_are_not_obeyed(speaking: Speaking) -> None:
    usual, ordered = [played((await speaking.speak(text)).content) for text in (" 200S hello there", "\x01200S hello there")]
    assert ordered.duration_s == pytest.approx(usual.duration_s, rel=0.05)


@pytest.mark.parametrize("provider", ["espeak", "system"])
async def test_the_longest_text_is_spoken(speaking: Speaking, provider: str) -> None:
    text = "This is a sentence that goes on for a bit. " * 232
    speech = await speaking.speak(text, provider=provider)
    assert 300 < played(speech.content).duration_s < 900


async def test_eight_at_once_are_all_right(speaking: Speaking) -> None:
    alone = played((await speaking.speak(THREE)).content)
    speeches = await asyncio.gather(*(speaking.speak(THREE) for _ in range(8)))
    assert all(played(each.content).duration_s == pytest.approx(alone.duration_s, rel=0.02) for each in speeches)


# --- what is refused


@pytest.mark.parametrize(
    ("options", "status", "code", "words"),
    [
        ({"text": " \n"}, 400, "VALIDATION_ERROR", "nothing to speak"),
        ({"text": "x" * 10_001}, 400, "VALIDATION_ERROR", "10000 is the most"),
        ({"speed": 0.49}, 400, "VALIDATION_ERROR", "0.5 to 2"),
        ({"speed": 2.01}, 400, "VALIDATION_ERROR", "0.5 to 2"),
        ({"speed": float("nan")}, 400, "VALIDATION_ERROR", "0.5 to 2"),
        ({"format": "ogg"}, 400, "VALIDATION_ERROR", "wav or mp3"),
        ({"provider": "supertonic_local"}, 400, "INVALID_PROVIDER", "Known: piper, espeak, system"),
        ({"voice": "nonsense-qq"}, 400, "INVALID_VOICE", "'espeak' has no voice"),
        ({"voice": "en-us+f9"}, 400, "INVALID_VOICE", "Did you mean"),
        ({"language": "xx"}, 400, "INVALID_LANGUAGE", "does not speak 'xx'"),
        ({"provider": "piper"}, 503, "PROVIDER_UNAVAILABLE", "put NAME.onnx"),
    ],
)
async def test_what_cannot_be_is_refused(speaking: Speaking, options: dict[str, Any], status: int, code: str, words: str) -> None:
    error = await refusal(speaking, **options)
    assert (error.status, error.code) == (status, code)
    assert words in error.message


async def test_without_any_engine_it_says_what_to_do(models: Models, tmp_path: Path) -> None:
    class Missing(Espeak):
        def find_problem(self) -> str | None:
            return "Install it."

    speaking = Speaking(Settings(data_dir=tmp_path), models, [LocalEngine(Missing(), "Missing")])
    error = await refusal(speaking)
    assert (error.code, error.message) == ("PROVIDER_UNAVAILABLE", "There is no voice. Install it.")
    (shown, *_) = await speaking.providers()
    assert (shown.is_configured, shown.is_default, shown.note) == (False, False, "Install it.")


async def test_too_much_at_once_is_refused_and_goes_when_it_is_spoken(watched: Speaking, espeak: WatchedEspeak) -> None:
    long = "x" * (MAX_CHARACTERS // 10)
    espeak.gate.clear()
    tasks = [asyncio.create_task(watched.speak(long)) for _ in range(10)]
    async with asyncio.timeout(WAIT_S):
        while len(espeak.begun) < 10:  # noqa: ASYNC110 - ten events, in ten requests
            await asyncio.sleep(0)
    with pytest.raises(TooManyRequests) as caught:
        await watched.speak("Hello.")
    assert (caught.value.code, caught.value.headers) == ("RATE_LIMIT", {"Retry-After": "5"})
    with pytest.raises(TooManyRequests):
        await watched.stream("Hello.")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    espeak.gate.set()
    assert (await watched.speak("Hello.")).content


# --- the text in chunks


async def test_chunks_are_files_of_a_sentence_each(speaking: Speaking) -> None:
    stream = await speaking.stream(THREE)
    assert (stream.total, stream.provider, stream.voice) == (3, "espeak", "en-us")
    chunks = [chunk async for chunk in stream]
    assert [(each.index, each.total, each.media_type) for each in chunks] == [(number, 3, "audio/wav") for number in range(3)]
    assert all(0.5 < played(each.content).duration_s < 4 for each in chunks)


async def test_the_first_chunk_is_there_before_the_second_is_made(watched: Speaking, espeak: WatchedEspeak) -> None:
    stream = await watched.stream(THREE)
    assert espeak.begun == ["This is the first sentence."]
    espeak.gate.clear()
    assert (await anext(stream)).index == 0
    assert espeak.begun == ["This is the first sentence."]
    espeak.gate.set()
    assert [chunk.index async for chunk in stream] == [1, 2]


async def test_closing_a_stream_stops_it_and_gives_its_place_back(watched: Speaking, espeak: WatchedEspeak) -> None:
    text = "x. " + "y" * (MAX_CHARACTERS // 10 - 3)
    streams = [await watched.stream(text) for _ in range(10)]
    with pytest.raises(TooManyRequests):
        await watched.stream("x" * 1000)
    for stream in streams:
        await stream.aclose()
        await stream.aclose()
    begun = len(espeak.begun)
    stream = await watched.stream("Hello.")
    assert [chunk.index async for chunk in stream] == [0]
    assert espeak.begun[begun:] == ["Hello."]


async def test_a_stream_whose_first_sentence_fails_is_an_ordinary_error(watched: Speaking, espeak: WatchedEspeak) -> None:
    espeak.fails_at = "This is the first sentence."
    with pytest.raises(UpstreamError, match="made to fail"):
        await watched.stream(THREE)


async def test_a_caller_that_leaves_stops_a_whole_text(watched: Speaking, espeak: WatchedEspeak) -> None:
    espeak.gate.clear()
    task = asyncio.create_task(watched.speak(THREE * 20))
    await asyncio.wait_for(espeak.waits.wait(), WAIT_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert espeak.left.is_set()
    assert len(espeak.begun) == 1


# --- providers


async def test_providers_are_listed_with_what_can_be_chosen(speaking: Speaking) -> None:
    providers = {each.id: each for each in await speaking.providers()}
    espeak, system, piper = providers["espeak"], providers["system"], providers["piper"]
    assert (espeak.is_default, espeak.is_configured, espeak.kind) == (True, True, "client")
    assert len(espeak.voices) > 100
    assert {"en", "en-us", "en-gb", "fr-fr", "zh"} <= set(espeak.languages)
    assert (system.is_default, system.is_configured) == (False, True)
    assert (piper.is_configured, piper.voices) == (False, ())
    assert "put NAME.onnx" in str(piper.note)
    for voice in espeak.voices:
        assert (await speaking.speak("1.", voice=voice)).voice == voice


async def test_piper_is_the_default_once_a_voice_is_there(speaking: Speaking, tmp_path: Path) -> None:
    make_piper_voice(tmp_path / "speech" / "piper", "en_US-lessac-medium")
    speech = await speaking.speak(THREE)
    assert (speech.provider, speech.voice) == ("piper", "en_US-lessac-medium")
    assert played(speech.content).duration_s > 1
    providers = await speaking.providers()
    assert (providers[0].id, providers[0].is_default, providers[0].is_configured) == ("piper", True, True)
    assert (await speaking.speak("Hello.", voice="en-us", language="en")).provider == "piper"
    assert (await speaking.speak("Hello.", provider="default")).provider == "piper"


async def test_when_everything_ends_no_process_is_left(models: Models, tmp_path: Path) -> None:
    speaking = Speaking(Settings(data_dir=tmp_path), models)
    await asyncio.gather(*(speaking.speak("Hello.", provider=name) for name in ("espeak", "system") for _ in range(4)))
    own = children_running("adapters.voices")
    assert own
    await speaking.close()
    assert not any(each.is_running() for each in own)
    with pytest.raises(Unavailable):
        await speaking.speak("Hello.")


# --- handlers


def frames_of(content: list[bytes]) -> list[tuple[str, Any]]:
    events = []
    for frame in content:
        event, data, *rest = frame.decode().split("\n")
        assert rest == ["", ""], "one line each, and a blank one"
        assert (event[:7], data[:6]) == ("event: ", "data: ")
        events.append((event[7:], orjson.loads(data[6:])))
    return events


async def test_a_speech_is_bytes_and_what_they_are(speaking: Speaking) -> None:
    reply = await tts.create_speech(home_of(speaking), CALLER, {"text": "Hello.", **UNSET})
    assert (reply.status, reply.media_type) == (None, "audio/wav")
    assert played(reply.body).duration_s > 0.3
    reply = await tts.create_speech(home_of(speaking), CALLER, {"text": "Hello.", "format": "mp3", "num_inference_steps": 5})
    assert reply.media_type == "audio/mpeg"


async def test_a_stream_is_framed_as_the_clients_read_it(speaking: Speaking) -> None:
    stream = await tts.stream_speech(home_of(speaking), CALLER, {"text": THREE})
    info, *chunks, done = frames_of([frame async for frame in stream.frames])
    assert info == ("info", {"total": 3, "provider": "espeak", "voice": "en-us"})
    assert done == ("done", {"total": 3})
    for number, (event, data) in enumerate(chunks):
        assert event == "chunk"
        assert data.keys() == {"index", "total", "audio", "mimeType"}
        assert (data["index"], data["total"], data["mimeType"]) == (number, 3, "audio/wav")
        assert played(base64.b64decode(data["audio"], validate=True)).duration_s > 0.3
    assert len(chunks) == 3


async def test_a_silent_stream_is_kept_alive(watched: Speaking, espeak: WatchedEspeak, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tts, "KEEP_ALIVE_S", 0.01)
    stream = await tts.stream_speech(home_of(watched), CALLER, {"text": THREE})
    frames = stream.frames
    espeak.gate.clear()
    assert [await anext(frames) for _ in range(2)][1].startswith(b"event: chunk")
    assert await anext(frames) == b": keep-alive\n\n"
    espeak.gate.set()
    rest = [frame async for frame in frames if not frame.startswith(b":")]
    assert [event for event, _ in frames_of(rest)] == ["chunk", "chunk", "done"]


@pytest.mark.parametrize("read", [0, 1, 2])
async def test_a_client_that_leaves_stops_the_synthesis(watched: Speaking, espeak: WatchedEspeak, read: int) -> None:
    stream = await tts.stream_speech(home_of(watched), CALLER, {"text": THREE})
    for _ in range(read):
        await anext(stream.frames)
    espeak.gate.clear()
    reading = asyncio.ensure_future(anext(stream.frames))
    if read == 2:
        await asyncio.wait_for(espeak.waits.wait(), WAIT_S)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await stream.frames.aclose()  # type: ignore[attr-defined]
    assert espeak.begun == THREE_SENTENCES[: 2 if read == 2 else 1]
    assert espeak.left.is_set() == (read == 2)
    espeak.gate.set()
    assert (await watched.speak("Hello.")).content


async def test_a_client_that_leaves_during_a_keep_alive_stops_the_synthesis(
    watched: Speaking, espeak: WatchedEspeak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tts, "KEEP_ALIVE_S", 0.01)
    stream = await tts.stream_speech(home_of(watched), CALLER, {"text": THREE})
    espeak.gate.clear()
    assert [await anext(stream.frames) for _ in range(3)][2].startswith(b":")
    await stream.frames.aclose()  # type: ignore[attr-defined]
    assert espeak.left.is_set()


async def test_an_error_in_the_stream_is_raised_out_of_it(watched: Speaking, espeak: WatchedEspeak) -> None:
    espeak.fails_at = THREE_SENTENCES[1]
    stream = await tts.stream_speech(home_of(watched), CALLER, {"text": THREE})
    assert [frame[:12] for frame in [await anext(stream.frames) for _ in range(2)]] == [b"event: info\n", b"event: chunk"]
    with pytest.raises(UpstreamError, match="made to fail"):
        await anext(stream.frames)
    await stream.frames.aclose()  # type: ignore[attr-defined]


async def test_the_list_of_providers_is_as_clients_read_it(speaking: Speaking) -> None:
    answer = await tts.list_voices(home_of(speaking))
    assert (answer["success"], answer["default"]) == (True, "espeak")
    by_id = {each["id"]: each for each in answer["providers"]}
    espeak = by_id["espeak"]
    assert espeak["config"]["voices"][:2] == ["default", "en-us"]
    assert espeak["config"]["speed"] == {"min": 0.5, "max": 2.0, "default": 1.0}
    assert (espeak["type"], espeak["configured"], espeak["supportsStreaming"]) == ("client", True, True)
    assert "note" not in espeak
    assert by_id["piper"].keys() == {"id", "name", "type", "configured", "supportsStreaming", "note"}
