"""Listening: from what is said into the microphone to its words, on a sound system of the tests' own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.audio.decoding import RATE, resample
from adapters.audio.pcm import Pcm
from adapters.audio.voice_activity import VoiceActivity
from homeport.errors import Conflict, InvalidRequest, Unavailable
from homeport.settings import Settings
from homeport.speech.listening import Listening
from homeport.speech.recognition import Recognition
from tests.acceptance.servers import eventually
from tests.sounds import speak, wrong_words
from tests.virtual_microphone import NO_SOUND, VirtualMicrophone
from tests.whisper_fixture import SENTENCE as WHAT_WHISPER_HEARS
from tests.whisper_fixture import make_whisper_model

pytestmark = pytest.mark.anyio

SENTENCES = ("can you help me find my keys", "please open the door")
BLOCK = 2 * RATE // 10
TIMEOUT_S = 30


@pytest.fixture
async def recognition(tmp_path: Path) -> AsyncIterator[Recognition]:
    recognition = Recognition(Settings(data_dir=tmp_path))
    yield recognition
    await recognition.close()


@pytest.fixture
def listening(recognition: Recognition, tmp_path: Path) -> Listening:
    return Listening(recognition, tmp_path)


async def recorders(microphone: VirtualMicrophone, wanted: int) -> None:
    """Wait until so many record."""
    await asyncio.to_thread(eventually, microphone.recorders, lambda found: found == wanted, TIMEOUT_S)


@pytest.mark.parametrize("sentence", SENTENCES)
async def test_what_is_said_is_written_down_when_the_speaker_pauses(
    microphone: VirtualMicrophone, listening: Listening, sentence: str
) -> None:
    spoken = await speak(sentence)
    playing = asyncio.create_task(asyncio.to_thread(microphone.play_to_next, spoken))
    async with asyncio.timeout(TIMEOUT_S):
        # Longer than the test may take: nothing but the pause ends it.
        heard = await listening.listen(timeout_ms=60_000)
        await playing
    assert wrong_words(sentence, heard.text) <= 1
    assert (heard.provider, heard.language) == ("pocketsphinx", "en")
    assert heard.duration_s < 3
    assert microphone.recorders() == 0


async def test_whisper_listens_where_its_model_is(microphone: VirtualMicrophone, listening: Listening, tmp_path: Path) -> None:
    make_whisper_model(tmp_path / "speech" / "whisper" / "fixture", language="en")
    spoken = await speak(SENTENCES[0])
    playing = asyncio.create_task(asyncio.to_thread(microphone.play_to_next, spoken))
    async with asyncio.timeout(TIMEOUT_S):
        heard = await listening.listen(language="en", timeout_ms=60_000)
        await playing
    assert (heard.text, heard.provider, heard.model) == (WHAT_WHISPER_HEARS, "whisper", "fixture")


@pytest.mark.parametrize("provider", ["pocketsphinx", "whisper"])
async def test_silence_is_an_empty_text_when_the_time_is_over(
    microphone: VirtualMicrophone, listening: Listening, tmp_path: Path, provider: str
) -> None:
    make_whisper_model(tmp_path / "speech" / "whisper" / "fixture")
    async with asyncio.timeout(TIMEOUT_S):
        heard = await listening.listen(provider=provider, timeout_ms=700)
    assert (heard.text, heard.segments, heard.provider) == ("", (), provider)
    assert microphone.recorders() == 0


async def test_who_goes_on_speaking_is_cut_off_when_the_time_is_over(microphone: VirtualMicrophone, listening: Listening) -> None:
    spoken = await speak(*SENTENCES * 4, pause_s=0.1)
    assert spoken.duration_s > 8
    with microphone.playing(spoken):
        async with asyncio.timeout(TIMEOUT_S):
            heard = await listening.listen(timeout_ms=3_000)
    assert heard.text
    assert heard.duration_s <= 3


async def test_one_listens_at_a_time_and_who_leaves_makes_room_at_once(
    microphone: VirtualMicrophone, listening: Listening, recognition: Recognition, tmp_path: Path
) -> None:
    first = asyncio.create_task(listening.listen(timeout_ms=60_000))
    await recorders(microphone, 1)
    for same in (listening, Listening(recognition, tmp_path)):  # the other is what another process on the same data has
        with pytest.raises(Conflict) as refused:
            await same.listen()
        assert refused.value.code == "MICROPHONE_BUSY"
    assert microphone.recorders() == 1

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await recorders(microphone, 0)
    assert (await listening.listen(timeout_ms=500)).text == ""


@pytest.mark.parametrize(
    ("choice", "code"),
    [
        ({"provider": "nobody"}, "INVALID_PROVIDER"),
        ({"model": "nothing"}, "INVALID_MODEL"),
        ({"language": "de"}, "INVALID_LANGUAGE"),
        ({"language": "no such language"}, "INVALID_LANGUAGE"),
    ],
)
async def test_a_wrong_choice_is_refused_before_the_microphone_is_opened(
    listening: Listening, choice: dict[str, Any], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is none: whoever tried to open it would be told that.
    for name, value in NO_SOUND.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidRequest) as refused:
        await listening.listen(**choice)
    assert refused.value.code == code


async def test_without_a_microphone_it_says_so_and_can_be_asked_again(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_SOUND.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        with pytest.raises(Unavailable) as refused:
            await listening.listen()
        assert refused.value.code == "MICROPHONE_UNAVAILABLE"


@pytest.mark.parametrize("seconds_before", [0, 2])
@pytest.mark.parametrize(("speech_db", "noise_db"), [(-20, -90), (-20, -50), (-20, -35), (-40, -60), (-50, -70)])
async def test_the_end_of_speech_is_found_in_noise(speech_db: int, noise_db: int, seconds_before: int) -> None:
    source = np.random.default_rng(1)
    full = 32768 / np.sqrt(2)
    for sentence in SENTENCES:
        spoken = np.trim_zeros(np.frombuffer(resample(await speak(sentence, pause_s=0)).samples, "<i2").astype(float))
        start = seconds_before * RATE
        sound = source.standard_normal(start + spoken.size + 3 * RATE) * full * 10 ** (noise_db / 20)
        sound[start : start + spoken.size] += spoken * full * 10 ** (speech_db / 20) / spoken.std()
        samples = sound.clip(-32768, 32767).astype("<i2").tobytes()
        activity = VoiceActivity(RATE)
        taken = 0
        while not activity.has_ended:
            assert taken < len(samples), "no end was found"
            activity.add(samples[taken : taken + BLOCK])
            taken += BLOCK
        silence_s = Pcm(samples[:taken], RATE).duration_s - seconds_before - spoken.size / RATE
        assert 0.5 < silence_s < 1.1
        heard = activity.speech()
        assert heard is not None
        assert heard.duration_s > spoken.size / RATE
