"""The recognisers as they are: pocketsphinx with its own model on spoken English, faster-whisper's real code path on a model made here."""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from structlog.testing import capture_logs

from adapters.audio.decoding import RATE, decode
from adapters.audio.files import encode
from adapters.audio.pcm import Pcm
from adapters.recognizers.pocketsphinx import PocketSphinx
from adapters.recognizers.searching import SearchProcess
from adapters.recognizers.whisper import Whisper
from homeport.errors import InvalidRequest, Unavailable, UpstreamError
from tests.integration.parts import eventually
from tests.sounds import speak, wrong_words
from tests.whisper_fixture import GERMAN, SENTENCE, make_whisper_model

pytestmark = pytest.mark.anyio

Result = TypeVar("Result")

WAIT_S = 60
EASY = [
    "write a letter to the president",
    "can you help me find my keys",
    "please open the door",
    "the weather is nice today",
    "where is the nearest train station",
    "i would like a cup of coffee",
    "she sells books in the market",
    "turn on the lights in the kitchen",
    "we are going to the beach tomorrow",
    "the children are playing in the garden",
    "there are many people in the street",
    "this is the best day of my life",
]


async def hear(*texts: str, pause_s: float = 1.0) -> Pcm:
    """These texts spoken, as they come out of an uploaded file."""
    return decode(encode(await speak(*texts, pause_s=pause_s), "wav"), max_s=1800)


@pytest.fixture(scope="module")
def easy() -> Pcm:
    return asyncio.run(hear(*EASY))


@pytest.fixture
async def sphinx() -> AsyncIterator[PocketSphinx]:
    sphinx = PocketSphinx()
    yield sphinx
    await sphinx.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    make_whisper_model(folder / "tiny.en")
    make_whisper_model(folder / "small", sentence=GERMAN, language="de")
    return folder


@pytest.fixture
async def whisper(models: Path) -> AsyncIterator[Whisper]:
    whisper = Whisper(models)
    yield whisper
    await whisper.close()


def process_of(sphinx: PocketSphinx) -> psutil.Process:
    pid = sphinx.process.pid
    assert pid is not None
    return psutil.Process(pid)


async def has_ended(process: psutil.Process) -> None:
    async def is_running() -> bool:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE

    await eventually(is_running, lambda running: not running)


async def until_busy(sphinx: PocketSphinx) -> psutil.Process:
    """Wait until the process of pocketsphinx searches."""

    async def is_busy() -> bool:
        return sphinx.process.is_busy and sphinx.process.pid is not None

    await eventually(is_busy)
    return process_of(sphinx)


async def test_pocketsphinx_hears_most_words_of_easy_sentences(sphinx: PocketSphinx, easy: Pcm) -> None:
    heard = await sphinx.transcribe(easy, model=None, language="en-US")
    wrong, all_words = wrong_words(" ".join(EASY), heard.text), len(" ".join(EASY).split())
    print(f"word error rate {wrong / all_words:.3f} ({wrong} of {all_words} words)")
    assert wrong <= 0.25 * all_words
    assert (heard.language, heard.provider, heard.model, heard.duration_s) == ("en", "pocketsphinx", "en-us", easy.duration_s)


@pytest.mark.long
async def test_pocketsphinx_says_when_each_part_was_said(sphinx: PocketSphinx, easy: Pcm) -> None:
    segments = (await sphinx.transcribe(easy, model=None, language=None)).segments
    assert len(segments) == len(EASY)
    assert all(each.end_s - each.start_s > 0.5 for each in segments)
    # Each text is followed by a second of silence.
    assert all(after.start_s - before.end_s > 0.5 for before, after in pairwise(segments))
    assert segments[-1].end_s <= easy.duration_s
    right = [text for text, each in zip(EASY, segments, strict=True) if each.text == text]
    assert len(right) >= len(EASY) / 2


@pytest.mark.long
async def test_pocketsphinx_hears_the_same_in_the_same_whoever_was_before(sphinx: PocketSphinx) -> None:
    easy = await hear(*EASY[:2])
    once = await sphinx.transcribe(easy, model=None, language=None)
    await sphinx.transcribe(await hear("something else altogether"), model=None, language=None)
    assert await sphinx.transcribe(easy, model=None, language=None) == once


@pytest.mark.parametrize("sound", [Pcm(b"", RATE), Pcm(bytes(2 * RATE), RATE), Pcm(b"\0\x10", RATE)])
async def test_silence_is_an_empty_text_and_no_error(sphinx: PocketSphinx, whisper: Whisper, sound: Pcm) -> None:
    for recognizer in (sphinx, whisper):
        heard = await recognizer.transcribe(sound, model=None, language=None)
        assert (heard.text, heard.segments, heard.duration_s) == ("", (), sound.duration_s)


async def test_pocketsphinx_knows_english_only(sphinx: PocketSphinx) -> None:
    for language in ("de", "zh-CN"):
        with pytest.raises(InvalidRequest, match="it knows English only.*homeport speech pull small"):
            await sphinx.transcribe(Pcm(b"", RATE), model=None, language=language)
    with pytest.raises(InvalidRequest):
        await sphinx.prepare(model=None, language="de")
    assert sphinx.process.pid is None


async def test_short_requests_do_not_wait_for_a_long_one_to_end(sphinx: PocketSphinx, easy: Pcm) -> None:
    short = await hear("please open the door")
    long = asyncio.create_task(sphinx.transcribe(easy, model=None, language=None))
    await until_busy(sphinx)
    heard = await asyncio.wait_for(asyncio.gather(*(sphinx.transcribe(short, model=None, language=None) for _ in range(3))), WAIT_S)
    assert not long.done()
    assert {each.text for each in heard} == {"please open the door"}
    assert len((await asyncio.wait_for(long, WAIT_S)).segments) == len(EASY)


async def test_whoever_leaves_ends_the_search_and_nobody_else_notices(sphinx: PocketSphinx, easy: Pcm) -> None:
    leaving = asyncio.create_task(sphinx.transcribe(easy, model=None, language=None))
    process = await until_busy(sphinx)
    staying = asyncio.create_task(sphinx.transcribe(await hear("please open the door"), model=None, language=None))
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await has_ended(process)
    assert (await asyncio.wait_for(staying, WAIT_S)).text == "please open the door"


async def test_a_process_that_dies_fails_one_request_and_the_next_has_another(sphinx: PocketSphinx, easy: Pcm) -> None:
    running = asyncio.create_task(sphinx.transcribe(easy, model=None, language=None))
    process = await until_busy(sphinx)
    process.kill()
    with capture_logs() as logs, pytest.raises(Unavailable, match="Try again") as caught:
        await asyncio.wait_for(running, WAIT_S)
    assert caught.value.code == "PROVIDER_UNAVAILABLE"
    assert [entry["event"] for entry in logs] == ["pocketsphinx failed"]
    assert (await sphinx.transcribe(await hear("please open the door"), model=None, language=None)).text


async def test_an_idle_process_is_ended_and_started_again() -> None:
    sphinx = PocketSphinx(SearchProcess(idle_s=0.05))
    await sphinx.prepare(model=None, language=None)
    await has_ended(process_of(sphinx))
    assert sphinx.process.pid is None
    assert (await sphinx.transcribe(await hear("please open the door"), model=None, language=None)).text
    await sphinx.close()


async def test_closing_ends_the_process_and_whoever_waits_is_told(easy: Pcm) -> None:
    sphinx = PocketSphinx()
    requests = [asyncio.create_task(sphinx.transcribe(easy, model=None, language=None)) for _ in range(3)]
    process = await until_busy(sphinx)
    with capture_logs():
        await asyncio.wait_for(sphinx.close(), WAIT_S)
        outcomes = await asyncio.wait_for(asyncio.gather(*requests, return_exceptions=True), WAIT_S)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert not psutil.pid_exists(process.pid)


async def test_the_process_does_not_outlive_a_server_that_is_killed() -> None:
    script = """
        import asyncio, os
        from adapters.recognizers.searching import SearchProcess
        async def main():
            process = SearchProcess()
            await process.start()
            print(process.pid, flush=True)
            os.kill(os.getpid(), 9)
        asyncio.run(main())
    """
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    pid = int(run.stdout)

    async def is_there() -> bool:
        return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE

    await eventually(is_there, lambda there: not there)


@pytest.mark.parametrize(
    ("model", "language", "text", "found"),
    [
        ("tiny.en", None, SENTENCE, "en"),
        ("tiny.en", "en-GB", SENTENCE, "en"),
        ("small", None, GERMAN, "de"),
        ("small", "fr", GERMAN, "fr"),
    ],
)
async def test_whisper_hears_with_the_model_that_is_named(
    whisper: Whisper, easy: Pcm, model: str, language: str | None, text: str, found: str
) -> None:
    heard = await whisper.transcribe(Pcm(easy.samples[: 20 * 2 * RATE], RATE), model=model, language=language)
    assert (heard.text, heard.language, heard.provider, heard.model) == (text, found, "whisper", model)
    [segment] = heard.segments
    assert segment.text == text
    assert 0 <= segment.start_s < segment.end_s <= heard.duration_s


async def test_whisper_hears_long_sound_in_parts_with_their_times(whisper: Whisper, easy: Pcm) -> None:
    heard = await whisper.transcribe(Pcm(easy.samples * 4, RATE), model="tiny.en", language=None)
    assert len(heard.segments) > 2
    assert {each.text for each in heard.segments} == {SENTENCE}
    starts = [each.start_s for each in heard.segments]
    assert starts == sorted(starts)
    assert starts[-1] > 30


async def test_whisper_prefers_the_largest_model(whisper: Whisper) -> None:
    assert [each.id for each in whisper.models()] == ["small", "tiny.en"]
    assert [each.language for each in whisper.models()] == [None, "en"]
    assert (await whisper.transcribe(Pcm(b"", RATE), model=None, language=None)).model == "small"


@pytest.mark.parametrize(("model", "language"), [("tiny.en", "de"), ("small", "tlh"), ("small", "no language")])
async def test_a_language_that_a_model_does_not_know_is_refused(whisper: Whisper, model: str, language: str) -> None:
    for attempt in (whisper.transcribe(Pcm(b"", RATE), model=model, language=language), whisper.prepare(model=model, language=language)):
        with pytest.raises(InvalidRequest) as caught:
            await attempt
        assert caught.value.code == "INVALID_LANGUAGE"


async def test_one_model_is_kept_and_an_idle_one_is_given_back(models: Path) -> None:
    whisper = Whisper(models, idle_s=0.05)
    await whisper.prepare(model="tiny.en", language=None)
    assert whisper.loaded == "tiny.en"
    await whisper.prepare(model="small", language=None)
    assert whisper.loaded == "small"

    async def loaded() -> str | None:
        return whisper.loaded

    assert await eventually(loaded, lambda model: model is None) is None
    assert (await whisper.transcribe(Pcm(b"", RATE), model="small", language=None)).model == "small"
    await whisper.close()


class Counting(Whisper):
    """Counts how often its thread is asked for something."""

    count = 0
    has_heard = asyncio.Event()

    async def _call(self, use: Callable[[], Result]) -> Result:
        self.count += 1
        result = await super()._call(use)
        if self.count > 1:
            self.has_heard.set()
        return result


async def test_whisper_stops_between_two_parts_for_whoever_leaves(models: Path, easy: Pcm) -> None:
    whisper = Counting(models)
    leaving = asyncio.create_task(whisper.transcribe(Pcm(easy.samples * 20, RATE), model="tiny.en", language=None))
    await asyncio.wait_for(whisper.has_heard.wait(), WAIT_S)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    # The next one's turn comes after what the thread does now.
    await whisper.transcribe(Pcm(b"", RATE), model="tiny.en", language=None)
    assert whisper.count < 10
    await whisper.close()


async def test_a_model_with_damaged_files_is_told_apart_from_a_bad_request(tmp_path: Path) -> None:
    folder = make_whisper_model(tmp_path / "small")
    (folder / "model.bin").write_bytes(b"damaged")
    whisper = Whisper(tmp_path)
    with capture_logs(), pytest.raises(Unavailable, match="cannot be loaded") as caught:
        await whisper.transcribe(Pcm(b"", RATE), model="small", language=None)
    assert str(tmp_path) not in caught.value.message
    await whisper.close()


@pytest.mark.parametrize("file", ["model.bin", "config.json", "tokenizer.json", "vocabulary.json"])
async def test_a_model_without_one_of_its_files_is_not_offered(tmp_path: Path, file: str) -> None:
    folder = make_whisper_model(tmp_path / "small")
    whisper = Whisper(tmp_path)
    assert whisper.find_problem() is None
    (folder / file).unlink()
    assert whisper.models() == ()
    assert "homeport speech pull small" in str(whisper.find_problem())
    with pytest.raises(Unavailable):
        await whisper.transcribe(Pcm(b"", RATE), model="small", language=None)
    await whisper.close()


async def test_what_the_library_raises_reaches_the_log_and_not_the_caller(whisper: Whisper) -> None:
    with capture_logs() as logs, pytest.raises(UpstreamError, match="the server's log has the reason") as caught:
        await whisper.transcribe(Pcm(b"\0", RATE), model="tiny.en", language=None)
    assert caught.value.code == "SPEECH_ERROR"
    assert logs[0]["event"] == "whisper failed"


async def test_nothing_is_fetched_while_whisper_listens(models: Path) -> None:
    script = """
        import asyncio, sys
        from pathlib import Path
        def refuse(event, arguments):
            if event in ("socket.connect", "socket.getaddrinfo"):
                print("network:", event, arguments, flush=True)
        from adapters.audio.pcm import Pcm
        from adapters.recognizers.whisper import Whisper
        async def main():
            whisper = Whisper(Path(sys.argv[1]))
            sys.addaudithook(refuse)
            for model in ("tiny.en", "small"):
                print((await whisper.transcribe(Pcm(bytes(32000), 16000), model=model, language=None)).model)
            await whisper.close()
        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(models)]
    run = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert run.stdout.split() == ["tiny.en", "small"]
