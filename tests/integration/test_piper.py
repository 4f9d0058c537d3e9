"""Piper's own library, on voices that are made here."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.audio.pcm import Pcm
from adapters.voices.piper import MAX_LOADED, Piper
from homeport.errors import Unavailable, UpstreamError
from tests.piper_fixture import RATE, make_piper_voice

pytestmark = pytest.mark.anyio

TEXT = "The quick brown fox jumps over the lazy dog."
pytest.importorskip("piper", reason="needs Piper: pip install 'homeport[piper]'")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "speech" / "piper"


@pytest.fixture
async def piper(folder: Path) -> AsyncIterator[Piper]:
    piper = Piper(folder)
    yield piper
    await piper.close()


async def test_without_a_voice_it_says_what_to_put_where(piper: Piper, folder: Path) -> None:
    assert "put NAME.onnx and NAME.onnx.json" in str(piper.find_problem())
    assert str(folder) not in str(piper.find_problem())
    with pytest.raises(Unavailable, match="has no voice"):
        await piper.voices()
    make_piper_voice(folder, "lonely")
    (folder / "lonely.onnx.json").unlink()
    assert piper.find_problem(), "half a voice is none"


async def test_voices_are_what_is_in_the_folder_english_first(piper: Piper, folder: Path) -> None:
    make_piper_voice(folder, "de_DE-anna-medium", "de_DE")
    make_piper_voice(folder, "en_US-lessac-medium")
    make_piper_voice(folder, "fr_FR-many-low", "fr_FR", speakers=("anne", "bernard"))
    (folder / "broken.onnx").write_bytes(b"")
    (folder / "broken.onnx.json").write_text("[]", encoding="utf-8")
    assert piper.find_problem() is None
    voices = await piper.voices()
    assert [(each.id, each.languages) for each in voices] == [
        ("en_US-lessac-medium", ("en-us",)),
        ("broken", ()),
        ("de_DE-anna-medium", ("de-de",)),
        ("fr_FR-many-low", ("fr-fr",)),
    ]
    assert voices[3].variants == ("anne", "bernard")


async def test_a_text_is_spoken_and_speed_changes_how_long_it_lasts(piper: Piper, folder: Path) -> None:
    make_piper_voice(folder, "en_US-lessac-medium")
    (voice,) = await piper.voices()
    usual, slow, fast = [await piper.speak(TEXT, voice=voice, speed=speed) for speed in (1.0, 0.5, 2.0)]
    assert usual.rate == RATE
    assert 1 < usual.duration_s < 6
    assert slow.duration_s == pytest.approx(2 * usual.duration_s, rel=0.01)
    assert fast.duration_s == pytest.approx(usual.duration_s / 2, rel=0.01)
    longer = await piper.speak(f"{TEXT} {TEXT}", voice=voice, speed=1.0)
    assert longer.duration_s == pytest.approx(2 * usual.duration_s, rel=0.1)


async def test_a_speaker_is_chosen_as_a_variant(piper: Piper, folder: Path) -> None:
    make_piper_voice(folder, "en_US-many-low", speakers=("anne", "bernard"))
    (voice,) = await piper.voices()
    usual, anne, bernard = [
        await piper.speak(TEXT, voice=replace(voice, id=id), speed=1.0) for id in (voice.id, f"{voice.id}+anne", f"{voice.id}+bernard")
    ]
    assert usual.samples == anne.samples != bernard.samples
    assert len(anne.samples) == len(bernard.samples)


async def test_a_text_with_nothing_to_say_is_no_sound(piper: Piper, folder: Path) -> None:
    make_piper_voice(folder, "en_US-lessac-medium")
    (voice,) = await piper.voices()
    assert (await piper.speak("🦜", voice=voice, speed=1.0)).duration_s < 1


async def test_eight_at_once_are_all_right_and_a_voice_is_loaded_once(piper: Piper, folder: Path) -> None:
    make_piper_voice(folder, "en_US-lessac-medium")
    (voice,) = await piper.voices()
    alone = await piper.speak(TEXT, voice=voice, speed=1.0)
    (folder / "en_US-lessac-medium.onnx").write_bytes(b"no longer read")
    assert [each.samples for each in await asyncio.gather(*(piper.speak(TEXT, voice=voice, speed=1.0) for _ in range(8)))] == [
        alone.samples
    ] * 8


async def test_few_voices_are_kept(piper: Piper, folder: Path) -> None:
    for number in range(MAX_LOADED + 1):
        make_piper_voice(folder, f"voice-{number}")
    for voice in await piper.voices():
        await piper.speak(TEXT, voice=voice, speed=1.0)
    assert list(piper.loaded) == [f"voice-{number}" for number in range(1, MAX_LOADED + 1)]


async def test_a_damaged_voice_is_told_and_can_be_put_right(piper: Piper, folder: Path) -> None:
    make_piper_voice(folder, "en_US-lessac-medium")
    good = (folder / "en_US-lessac-medium.onnx").read_bytes()
    (folder / "en_US-lessac-medium.onnx").write_bytes(good[:200])
    (voice,) = await piper.voices()
    with pytest.raises(Unavailable) as caught:
        await piper.speak(TEXT, voice=voice, speed=1.0)
    assert caught.value.code == "PROVIDER_UNAVAILABLE"
    assert str(folder) not in caught.value.message
    (folder / "en_US-lessac-medium.onnx").write_bytes(good)
    assert (await piper.speak(TEXT, voice=voice, speed=1.0)).duration_s > 1


async def test_a_voice_that_cannot_do_it_is_told(piper: Piper, folder: Path) -> None:
    make_piper_voice(folder, "en_US-lessac-medium")
    description = json.loads((folder / "en_US-lessac-medium.onnx.json").read_text(encoding="utf-8"))
    description["espeak"]["voice"] = "no-such-language"
    (folder / "en_US-lessac-medium.onnx.json").write_text(json.dumps(description), encoding="utf-8")
    (voice,) = await piper.voices()
    with pytest.raises(UpstreamError) as caught:
        await piper.speak(TEXT, voice=voice, speed=1.0)
    assert caught.value.code == "SPEECH_ERROR"


async def test_a_caller_that_leaves_stops_the_synthesis_at_the_next_sentence(piper: Piper, folder: Path) -> None:
    make_piper_voice(folder, "en_US-lessac-medium")
    (voice,) = await piper.voices()
    await piper.speak(TEXT, voice=voice, speed=1.0)
    task = asyncio.create_task(piper.speak(f"{TEXT} " * 2000, voice=voice, speed=1.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await asyncio.wait_for(piper.speak(TEXT, voice=voice, speed=1.0), 30)).duration_s > 1


async def test_when_everything_ends_who_waits_is_told(piper: Piper, folder: Path) -> None:
    make_piper_voice(folder, "en_US-lessac-medium")
    (voice,) = await piper.voices()
    tasks = [asyncio.create_task(piper.speak(TEXT, voice=voice, speed=1.0)) for _ in range(4)]
    await asyncio.sleep(0)
    await piper.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, Unavailable | Pcm) for each in results)
    with pytest.raises(Unavailable, match="was stopped"):
        await piper.speak(TEXT, voice=voice, speed=1.0)
