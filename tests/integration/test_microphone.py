"""The microphone, on a sound system of the tests' own."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from adapters.audio import devices
from adapters.audio.decoding import resample
from adapters.audio.devices import LIBRARIES
from adapters.audio.microphone import MicrophoneUnavailable, Recording, find_microphone, find_problem, record
from adapters.audio.pcm import Pcm
from adapters.audio.playback import PlaybackUnavailable, play
from adapters.audio.voice_activity import VoiceActivity
from adapters.recognizers.pocketsphinx import PocketSphinx
from tests.acceptance.servers import eventually
from tests.processes import children_running
from tests.sounds import speak, wrong_words
from tests.virtual_microphone import NO_SOUND, VirtualMicrophone, virtual_microphone

pytestmark = pytest.mark.anyio

# Of those that pocketsphinx understands when they are spoken well, one that it understands every time.
SENTENCE = "can you help me find my keys"
TIMEOUT_S = 20


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a library takes longer to open a device than a person would like to wait."""
    monkeypatch.setattr(devices, "OPEN_TIMEOUT_S", TIMEOUT_S / 2)


@pytest.fixture
def no_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_SOUND.items():
        monkeypatch.setenv(name, value)


async def record_sentence(microphone: VirtualMicrophone, libraries: tuple[str, ...] = LIBRARIES) -> tuple[Pcm, str]:
    """What is recorded of the sentence until it has ended, and which library did it."""
    spoken = await speak(SENTENCE)
    async with asyncio.timeout(TIMEOUT_S), record(libraries) as recording:
        playing = asyncio.create_task(asyncio.to_thread(microphone.play_to_next, spoken))
        activity = VoiceActivity(recording.rate)
        async for block in recording:
            activity.add(block.samples)
            if activity.has_ended:
                break
        await playing
    heard = activity.speech()
    assert heard is not None
    return heard, recording.library


async def last_of(recording: Recording) -> None:
    """Wait until it ends."""
    async for _ in recording:
        pass


async def write_down(sound: Pcm) -> str:
    recognizer = PocketSphinx()
    try:
        return (await recognizer.transcribe(resample(sound), model=None, language=None)).text
    finally:
        await recognizer.close()


def device_processes() -> list[psutil.Process]:
    """Those that this process has started and that still run."""
    return children_running("adapters.audio.device_process")


@pytest.mark.parametrize("library", LIBRARIES)
async def test_what_is_said_is_recorded_and_understood(microphone: VirtualMicrophone, library: str) -> None:
    sound, used = await record_sentence(microphone, (library,))
    assert used == library
    assert 1.5 < sound.duration_s < 3
    assert wrong_words(SENTENCE, await write_down(sound)) <= 2


async def test_miniaudio_records_where_portaudio_has_no_device(microphone: VirtualMicrophone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALSA_CONFIG_PATH", os.devnull)
    _, used = await record_sentence(microphone)
    assert used == "miniaudio"


@pytest.mark.parametrize("library", LIBRARIES)
async def test_what_is_played_is_heard(microphone: VirtualMicrophone, library: str) -> None:
    spoken = await speak(SENTENCE)

    async def pieces() -> AsyncIterator[Pcm]:
        half = len(spoken.samples) // 4 * 2
        yield Pcm(spoken.samples[:half], spoken.rate)
        yield Pcm(spoken.samples[half:], spoken.rate)

    async with asyncio.timeout(TIMEOUT_S), record() as recording:
        playing = asyncio.create_task(play(pieces(), (library,)))
        activity = VoiceActivity(recording.rate)
        async for block in recording:
            activity.add(block.samples)
            if activity.has_ended:
                break
        await playing
    heard = activity.speech()
    assert heard is not None
    assert wrong_words(SENTENCE, await write_down(heard)) <= 2


async def test_the_default_microphone_is_found(microphone: VirtualMicrophone) -> None:
    assert await find_microphone()
    assert await find_problem() is None
    assert microphone.recorders() == 0


@pytest.mark.parametrize("libraries", [LIBRARIES, LIBRARIES[:1], LIBRARIES[1:]])
async def test_without_a_sound_system_the_reason_and_the_fix_are_told(no_sound: None, libraries: tuple[str, ...]) -> None:
    with pytest.raises(MicrophoneUnavailable) as refused:
        async with record(libraries):
            pytest.fail("there is nothing to record from")
    assert (refused.value.status, refused.value.code) == (503, "MICROPHONE_UNAVAILABLE")
    assert refused.value.reason in refused.value.message
    assert refused.value.message.endswith(refused.value.advice)
    with pytest.raises(MicrophoneUnavailable):
        await find_microphone(libraries)
    assert refused.value.advice in (await find_problem() or "")


async def test_without_a_sound_system_nothing_is_played(no_sound: None) -> None:
    async def pieces() -> AsyncIterator[Pcm]:
        yield Pcm(bytes(1000), 16_000)

    with pytest.raises(PlaybackUnavailable, match="Nothing here can play sound"):
        await play(pieces())


async def test_a_sound_system_that_hangs_costs_a_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Opening waits for somebody who writes into the pipe, and nobody does.
    os.mkfifo(tmp_path / "pipe")
    slave = f'slave.pcm {{ type null }}  file /dev/null  infile "{tmp_path}/pipe"  format raw'
    (tmp_path / ".asoundrc").write_text(f"pcm.!default {{ type file  {slave} }}", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(devices, "OPEN_TIMEOUT_S", 1.0)
    with pytest.raises(MicrophoneUnavailable, match="gives no answer"):
        async with record(("sounddevice",)):
            pytest.fail("it opened what cannot be opened")
    assert device_processes() == []


@pytest.mark.parametrize("library", LIBRARIES)
async def test_a_recording_that_is_cancelled_closes_the_microphone(microphone: VirtualMicrophone, library: str) -> None:
    async def listen() -> None:
        async with record((library,)) as recording:
            await last_of(recording)

    listening = asyncio.create_task(listen())
    await asyncio.to_thread(eventually, microphone.recorders)
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    await asyncio.to_thread(eventually, lambda: microphone.recorders() == 0)


@pytest.mark.long
async def test_many_recordings_leave_nothing_behind(microphone: VirtualMicrophone) -> None:
    async def listen(library: str) -> None:
        async with asyncio.timeout(TIMEOUT_S), record((library,)) as recording:
            await anext(recording)

    for library in LIBRARIES:
        await listen(library)
    process = psutil.Process()
    before = process.num_fds()
    for _ in range(20):
        for library in LIBRARIES:
            await listen(library)
    assert process.num_fds() <= before
    assert device_processes() == []
    await asyncio.to_thread(eventually, lambda: microphone.recorders() == 0)


@pytest.mark.parametrize("library", LIBRARIES)
async def test_a_microphone_that_goes_away_is_told(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with virtual_microphone() as microphone:
        for name, value in microphone.environment.items():
            monkeypatch.setenv(name, value)
        async with asyncio.timeout(TIMEOUT_S), record((library,)) as recording:
            await anext(recording)
            microphone.daemon.kill()
            with pytest.raises(MicrophoneUnavailable, match="stopped|no sound"):
                await last_of(recording)
