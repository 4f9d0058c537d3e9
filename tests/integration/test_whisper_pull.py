"""Models of whisper, fetched from a hub on loopback, and what is said where there is none."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from adapters.recognizers import whisper_pull
from homeport.errors import AppError, Conflict, InvalidRequest, Unavailable
from homeport.settings import Settings
from homeport.speech.recognition import Recognition
from tests.integration.hub import Hub, run_hub
from tests.integration.parts import eventually
from tests.sounds import speak
from tests.whisper_fixture import SENTENCE, make_whisper_model

pytestmark = pytest.mark.anyio

WAIT_S = 30
FILES = ["config.json", "model.bin", "tokenizer.json", "vocabulary.json"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper_model(tmp_path_factory.mktemp("published") / "tiny")


@pytest.fixture
def hub(published: Path) -> Iterator[Hub]:
    with run_hub(tiny=published) as hub:
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where models lie. The data directory is not there yet."""
    return tmp_path / "data" / "speech" / "whisper"


@pytest.fixture
async def recognition(tmp_path: Path, hub: Hub) -> AsyncIterator[Recognition]:
    recognition = Recognition(Settings(data_dir=tmp_path / "data"), hub=hub.url)
    yield recognition
    await recognition.close()


class Progress:
    """What was said about how far it is."""

    def __init__(self) -> None:
        self.said: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.said.append((done, total))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def models(folder: Path) -> list[str]:
    """What is in the folder, but for the locks."""
    return sorted(each.name for each in folder.iterdir() if each.suffix != ".lock")


async def fail_to_pull(recognition: Recognition, name: str = "tiny") -> AppError:
    with pytest.raises(AppError) as caught, capture_logs():
        await recognition.pull(name, Progress())
    return caught.value


async def test_a_model_is_fetched_and_used_at_once(recognition: Recognition, hub: Hub, folder: Path, published: Path) -> None:
    assert [each.id for each in await recognition.providers() if each.problem is None] == ["pocketsphinx"]
    progress = Progress()
    await recognition.pull("tiny", progress)
    total = sum(map(len, contents(published).values()))
    assert contents(folder / "tiny") == contents(published)
    assert models(folder) == ["tiny"]
    assert folder.parent.parent.stat().st_mode & 0o777 == 0o700
    assert progress.said[-1] == (total, total)
    assert len(progress.said) > len(FILES)
    assert [done for done, _ in progress.said] == sorted(done for done, _ in progress.said)
    assert [name for name, _ in hub.fetched() if name not in FILES] == []
    [default, _] = await recognition.providers()
    assert (default.id, [each.id for each in default.models], default.problem) == ("whisper", ["tiny"], None)
    heard = await recognition.transcribe_pcm(await speak("hello"), model="tiny")
    assert (heard.text, heard.provider, heard.model) == (SENTENCE, "whisper", "tiny")


async def test_a_model_that_is_here_is_not_fetched_again(recognition: Recognition, hub: Hub) -> None:
    await recognition.pull("tiny", Progress())
    hub.requests.clear()
    await recognition.pull("onnx-community/whisper-tiny", Progress())
    assert hub.requests == []


async def test_a_download_that_breaks_off_goes_on_where_it_was(recognition: Recognition, hub: Hub, folder: Path, published: Path) -> None:
    hub.breaks = [2_000_000]
    progress = Progress()
    await recognition.pull("tiny", progress)
    assert contents(folder / "tiny") == contents(published)
    parts = [part for name, part in hub.fetched() if name == "model.bin" and part]
    assert len(parts) == 1
    assert int(parts[0].removeprefix("bytes=").rstrip("-")) > 1_000_000
    assert progress.said[-1][0] == progress.said[-1][1]


async def test_after_a_failure_nothing_is_half_there_and_only_the_rest_is_fetched(recognition: Recognition, hub: Hub, folder: Path) -> None:
    hub.fails = {"model.bin"}
    error = await fail_to_pull(recognition)
    assert (error.status, error.code) == (503, "PROVIDER_UNAVAILABLE")
    assert models(folder) == [".tiny.part"]
    assert [each.id for each in await recognition.providers() if each.problem is None] == ["pocketsphinx"]
    hub.fails = set()
    hub.requests.clear()
    progress = Progress()
    await recognition.pull("tiny", progress)
    assert {name for name, _ in hub.fetched()} == {"model.bin"}
    assert progress.said[-1][0] == progress.said[-1][1]
    assert models(folder) == ["tiny"]


async def test_a_damaged_model_is_not_taken(recognition: Recognition, hub: Hub, folder: Path, published: Path) -> None:
    hub.damages = True
    assert isinstance(await fail_to_pull(recognition), Unavailable)
    assert models(folder) == [".tiny.part"]
    hub.damages = False
    await recognition.pull("tiny", Progress())
    assert contents(folder / "tiny") == contents(published)


async def test_what_somebody_has_put_there_by_hand_is_completed(recognition: Recognition, folder: Path, published: Path) -> None:
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny" / "notes.txt").write_text("mine", encoding="utf-8")
    await recognition.pull("tiny", Progress())
    assert contents(folder / "tiny") == contents(published) | {"notes.txt": b"mine"}


async def test_a_model_is_fetched_by_one_at_a_time(recognition: Recognition, hub: Hub, folder: Path) -> None:
    hub.holds.set()
    first = asyncio.create_task(recognition.pull("tiny", Progress()))
    assert await asyncio.to_thread(hub.has_begun.wait, WAIT_S)
    with pytest.raises(Conflict, match="being fetched already"):
        await recognition.pull("tiny", Progress())
    hub.holds.clear()
    await asyncio.wait_for(first, WAIT_S)
    await recognition.pull("tiny", Progress())
    assert models(folder) == ["tiny"]


async def test_whoever_leaves_stops_the_download(recognition: Recognition, hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisper_pull, "PIECE_BYTES", 10_000)
    hub.holds.set()
    progress = Progress()
    pulling = asyncio.create_task(recognition.pull("tiny", progress))
    assert await asyncio.to_thread(hub.has_begun.wait, WAIT_S)
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    hub.holds.clear()

    async def has_ended() -> bool:
        return not any("asyncio_" in thread.name and is_pulling(thread) for thread in threading.enumerate())

    await eventually(has_ended)
    assert models(folder) == [".tiny.part"]
    await recognition.pull("tiny", Progress())
    assert models(folder) == ["tiny"]


def is_pulling(thread: threading.Thread) -> bool:
    """Whether the thread is in the function that fetches."""
    import sys

    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code is whisper_pull.pull.__code__:
            return True
        frame = frame.f_back
    return False


async def test_without_a_network_it_is_said_which_files_belong_where(tmp_path: Path) -> None:
    with run_hub() as gone:
        pass
    recognition = Recognition(Settings(data_dir=tmp_path), hub=gone.url)
    error = await fail_to_pull(recognition)
    assert (error.status, error.code) == (503, "PROVIDER_UNAVAILABLE")
    assert "the hub cannot be reached" in error.message
    assert str(tmp_path / "speech" / "whisper" / "tiny") in error.message
    assert all(name in error.message for name in FILES)
    await recognition.close()


async def test_a_hub_that_never_answers_is_not_waited_for(recognition: Recognition, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisper_pull, "ANSWER_S", 0.1)
    hub.is_silent = True
    assert isinstance(await asyncio.wait_for(fail_to_pull(recognition), WAIT_S), Unavailable)


async def test_a_model_that_the_hub_has_not_is_not_half_there(recognition: Recognition, folder: Path) -> None:
    assert isinstance(await fail_to_pull(recognition, "large-v3"), Unavailable)
    assert models(folder) == []


@pytest.mark.parametrize("name", ["", "huge", "tiny/../../x", "a/b/tiny.de", "."])
async def test_only_models_that_are_known_are_fetched(recognition: Recognition, hub: Hub, name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"There are: tiny, tiny\.en, base") as caught:
        await recognition.pull(name, Progress())
    assert caught.value.code == "INVALID_MODEL"
    assert hub.requests == []
