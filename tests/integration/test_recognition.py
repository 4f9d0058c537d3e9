"""Which recogniser listens with which model, how much at once, and what is said where something is missing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.audio.decoding import RATE
from adapters.audio.files import encode
from adapters.audio.pcm import Pcm
from homeport.errors import AppError, InvalidRequest, PayloadTooLarge, TooManyRequests
from homeport.settings import Settings
from homeport.speech import recognition as module
from homeport.speech.recognition import MAX_AT_ONCE, Recognition
from tests.sounds import make_wav, speak, tone
from tests.whisper_fixture import GERMAN, SENTENCE, make_whisper_model

pytestmark = pytest.mark.anyio

WAIT_S = 60
NOTHING = Pcm(b"", RATE)
SILENCE = make_wav(tone(RATE, 0.5) * 0, RATE, 16)

Choice = dict[str, str]


@pytest.fixture
def whisper_folder(tmp_path: Path) -> Path:
    return tmp_path / "speech" / "whisper"


@pytest.fixture
async def recognition(tmp_path: Path) -> AsyncIterator[Recognition]:
    """On a data directory without models."""
    recognition = Recognition(Settings(data_dir=tmp_path))
    yield recognition
    await recognition.close()


async def chosen(recognition: Recognition, choice: Choice) -> tuple[str, str]:
    heard = await recognition.transcribe_pcm(NOTHING, **choice)
    return heard.provider, heard.model


async def refused(recognition: Recognition, choice: Choice) -> AppError:
    with pytest.raises(AppError) as caught:
        await recognition.transcribe_pcm(NOTHING, **choice)
    with pytest.raises(type(caught.value)):
        await recognition.prepare(**choice)
    return caught.value


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"provider": "", "model": "", "language": ""},
        {"provider": "native"},
        {"provider": "PocketSphinx"},
        {"provider": "pocketsphinx", "model": "en-us"},
        {"model": "en-us"},
        {"model": "pocketsphinx/en-us"},
        {"language": "en-AU"},
    ],
)
async def test_pocketsphinx_listens_where_there_is_nothing_else(recognition: Recognition, choice: Choice) -> None:
    assert await chosen(recognition, choice) == ("pocketsphinx", "en-us")


@pytest.mark.parametrize(
    ("choice", "model"),
    [
        ({}, "small"),
        ({"provider": "native"}, "small"),
        ({"provider": "whisper"}, "small"),
        ({"provider": "Whisper", "model": "tiny.en"}, "tiny.en"),
        ({"model": "tiny.en"}, "tiny.en"),
        ({"model": "whisper/small"}, "small"),
        ({"model": "whisper/"}, "small"),
        ({"provider": "whisper", "model": "onnx-community/whisper-small"}, "small"),
        ({"model": "Systran/faster-whisper-tiny.en"}, "tiny.en"),
        ({"language": "de"}, "small"),
        ({"model": "my own"}, "my own"),
    ],
)
async def test_whisper_listens_where_it_has_a_model(recognition: Recognition, whisper_folder: Path, choice: Choice, model: str) -> None:
    make_whisper_model(whisper_folder / "tiny.en")
    make_whisper_model(whisper_folder / "my own", language="en")
    make_whisper_model(whisper_folder / "small", sentence=GERMAN, language="de")
    with (whisper_folder / "small" / "model.bin").open("ab") as file:
        file.write(bytes(100_000))  # as large as its name says, compared with the others
    assert await chosen(recognition, choice) == ("whisper", model)


async def test_a_language_is_left_to_who_knows_it(recognition: Recognition, whisper_folder: Path) -> None:
    make_whisper_model(whisper_folder / "tiny.en")
    assert (await refused(recognition, {"language": "de"})).code == "INVALID_LANGUAGE"
    make_whisper_model(whisper_folder / "base", language="de")
    assert await chosen(recognition, {"language": "de"}) == ("whisper", "base")


@pytest.mark.parametrize(
    ("choice", "status", "code", "says"),
    [
        ({"provider": "groq"}, 400, "INVALID_PROVIDER", "There are: whisper, pocketsphinx."),
        ({"provider": "whisper"}, 503, "PROVIDER_UNAVAILABLE", "homeport speech pull small"),
        ({"provider": "whisper", "model": "base"}, 503, "PROVIDER_UNAVAILABLE", "homeport speech pull base"),
        ({"model": "onnx-community/whisper-tiny.en"}, 503, "PROVIDER_UNAVAILABLE", "homeport speech pull tiny.en"),
        ({"model": "huge"}, 400, "INVALID_MODEL", "There are: en-us."),
        ({"provider": "pocketsphinx", "model": "small"}, 400, "INVALID_MODEL", "`homeport speech pull NAME`"),
        ({"model": "../../etc"}, 400, "INVALID_MODEL", "There is no model '../../etc'"),
        ({"model": "x" * 200}, 400, "INVALID_MODEL", f"'{'x' * 80}'"),
        ({"language": "de"}, 400, "INVALID_LANGUAGE", "homeport speech pull small"),
        ({"language": "English, please"}, 400, "INVALID_LANGUAGE", "is no language"),
    ],
)
async def test_what_there_is_not_is_refused_with_what_to_do(
    recognition: Recognition, choice: Choice, status: int, code: str, says: str
) -> None:
    error = await refused(recognition, choice)
    assert (error.status, error.code) == (status, code)
    assert says in error.message


async def test_providers_are_listed_with_their_models_and_what_is_missing(recognition: Recognition, whisper_folder: Path) -> None:
    usable, missing = await recognition.providers()
    assert (usable.id, [each.id for each in usable.models], usable.problem) == ("pocketsphinx", ["en-us"], None)
    assert "makes many mistakes" in usable.description
    assert (missing.id, missing.models) == ("whisper", ())
    assert missing.problem == "No model of whisper is here yet. Fetch one with `homeport speech pull small`."
    make_whisper_model(whisper_folder / "tiny.en")
    first, _ = await recognition.providers()
    [model] = first.models
    assert (first.id, first.problem, model.id, model.language) == ("whisper", None, "tiny.en", "en")
    assert model.size_bytes == (whisper_folder / "tiny.en" / "model.bin").stat().st_size


@pytest.mark.parametrize("file_format", ["wav", "mp3"])
async def test_a_file_is_written_down(recognition: Recognition, whisper_folder: Path, file_format: str) -> None:
    spoken = await speak("please open the door")
    content = encode(spoken, "mp3" if file_format == "mp3" else "wav")
    heard = await recognition.transcribe(content)
    assert len(set(heard.text.split()) & {"please", "open", "the", "door"}) >= 3
    assert heard.duration_s == pytest.approx(spoken.duration_s, abs=0.2)
    make_whisper_model(whisper_folder / "tiny.en")
    assert (await recognition.transcribe(content)).text == SENTENCE


async def test_what_is_no_audio_is_refused_and_what_plays_too_long(recognition: Recognition, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest):
        await recognition.transcribe(b"no audio")
    monkeypatch.setattr(module, "MAX_AUDIO_S", 0.4)
    with pytest.raises(PayloadTooLarge):
        await recognition.transcribe(SILENCE)


async def test_only_so_much_waits_and_whoever_leaves_makes_room(recognition: Recognition) -> None:
    content = encode(await speak("please open the door"), "wav")
    requests = [asyncio.create_task(recognition.transcribe(content)) for _ in range(MAX_AT_ONCE)]
    await asyncio.sleep(0)  # all have begun
    with pytest.raises(TooManyRequests) as caught:
        await recognition.transcribe(content)
    assert caught.value.headers == {"Retry-After": "5"}
    requests.pop().cancel()
    await asyncio.sleep(0)
    await asyncio.wait_for(asyncio.gather(recognition.transcribe(content), *requests), WAIT_S)
    assert (await recognition.transcribe(SILENCE)).text == ""


async def test_what_was_prepared_is_loaded(recognition: Recognition, whisper_folder: Path) -> None:
    make_whisper_model(whisper_folder / "tiny.en")
    await recognition.prepare()
    await recognition.prepare(provider="pocketsphinx")
    assert await chosen(recognition, {}) == ("whisper", "tiny.en")
