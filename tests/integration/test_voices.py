"""The voices of this machine, real ones: eSpeak NG and pyttsx3, each in processes of their own."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from adapters.audio.pcm import Pcm
from adapters.voices import Voice, VoiceEngine
from adapters.voices.espeak import PROCESSES, Espeak
from adapters.voices.pool import Pool
from adapters.voices.system import SystemVoices
from homeport.errors import Unavailable, UpstreamError
from tests.processes import children_running

pytestmark = pytest.mark.anyio

WAIT_S = 30
SENTENCE = "The quick brown fox jumps over the lazy dog, and then it sleeps under the old oak tree for a while."
LONG = SENTENCE * 180  # 18 000 characters: pyttsx3 by itself reads beyond its end
# eSpeak NG 1.52 writes beyond a buffer over this one, and its C library ends the process.
DEADLY = "]òàȿ2x5.e.Ɩ[oĢ/Ĩt'źƜ7ɉVŦ\\!#ņŗȪiȻuÀ8lŌœǓȜhǻl(RyrĶlǓtÒȖęƬgMƉšbg,ơIvý[ĂċxczuÉjGȤ:Ɯ"  # noqa: RUF001 - as it was found

Engine = Espeak | SystemVoices


@pytest.fixture
async def espeak() -> AsyncIterator[Espeak]:
    engine = Espeak()
    yield engine
    await engine.close()


@pytest.fixture
async def system() -> AsyncIterator[SystemVoices]:
    engine = SystemVoices()
    yield engine
    await engine.close()


@pytest.fixture(params=[Espeak, SystemVoices], ids=["espeak", "system"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    engine: Engine = request.param()
    yield engine
    await engine.close()


async def voice_of(engine: VoiceEngine, language: str) -> Voice:
    return next(each for each in await engine.voices() if language in each.languages)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so that other processes bring about."""
    async with asyncio.timeout(WAIT_S):
        while not is_so():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


async def begun_long(engine: Engine) -> tuple[asyncio.Task[Pcm], int]:
    """A long text that is being spoken now, and the process that does it."""
    voice = await voice_of(engine, "en-us")
    before = _cpu_s(engine.pool.pids[0])
    text = LONG if isinstance(engine, Espeak) else SENTENCE * 60  # pyttsx3 takes time that grows with the square
    task = asyncio.create_task(engine.speak(text, voice=voice, speed=1.0))
    await until(lambda: _cpu_s(engine.pool.pids[0]) > before)
    assert not task.done()
    return task, engine.pool.pids[0]


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def crossings(spoken: Pcm) -> float:
    """How often the sound goes through zero, a second."""
    samples = memoryview(spoken.samples).cast("h")
    return sum((one < 0) != (other < 0) for one, other in pairwise(samples)) / spoken.duration_s


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_the_voices_have_names_and_languages(engine: Engine) -> None:
    assert engine.find_problem() is None
    voices = await engine.voices()
    assert len(voices) > 100
    assert len({each.id for each in voices}) == len(voices)
    assert all(each.id and each.name and each.languages for each in voices)
    assert {"en-us", "de", "es", "cmn", "ja"} <= {language for each in voices for language in each.languages}
    assert await engine.voices() is voices


async def test_espeak_lists_only_what_it_can_speak_and_its_variants(espeak: Espeak) -> None:
    voices = await espeak.voices()
    assert voices[0].id == "en-us"
    assert "f3" in voices[0].variants
    assert not {"fo", "xex"} & {each.id for each in voices}, "the wheel has no dictionary for these"


async def test_a_sentence_lasts_as_long_as_it_takes_to_say(engine: Engine) -> None:
    spoken = await engine.speak(SENTENCE, voice=await voice_of(engine, "en-us"), speed=1.0)
    assert spoken.rate == 22_050
    assert 4 < spoken.duration_s < 8
    assert max(spoken.samples) > 0


async def test_speed_changes_how_long_it_lasts(engine: Engine) -> None:
    voice = await voice_of(engine, "en-us")
    usual, slow, fast = [(await engine.speak(SENTENCE, voice=voice, speed=speed)).duration_s for speed in (1.0, 0.5, 2.0)]
    assert 1.7 < slow / usual < 2.4
    assert 1.7 < usual / fast < 2.4


async def test_settings_of_one_text_do_not_reach_the_next(engine: Engine) -> None:
    voices = [await voice_of(engine, language) for language in ("en-us", "de", "it", "es")]
    speeds = (1.0, 0.5, 2.0, 1.5)
    kinds = [(voice, speed) for voice in voices for speed in speeds]
    expected = [(await engine.speak(SENTENCE, voice=voice, speed=speed)).duration_s for voice, speed in kinds]
    for voice, speed in kinds * 3:
        spoken = await engine.speak(SENTENCE, voice=voice, speed=speed)
        assert spoken.duration_s == pytest.approx(expected[kinds.index((voice, speed))], rel=0.02)


async def test_a_variant_sounds_different(espeak: Espeak) -> None:
    voice, *_ = await espeak.voices()
    plain = await espeak.speak(SENTENCE, voice=voice, speed=1.0)
    whispered = await espeak.speak(SENTENCE, voice=Voice("en-us+whisper", ""), speed=1.0)
    assert crossings(whispered) > 1.3 * crossings(plain), "a whisper is mostly noise"


async def test_marks_in_a_text_are_spoken(espeak: Espeak) -> None:
    voice, *_ = await espeak.voices()

    async def duration(text: str) -> float:
        return (await espeak.speak(text, voice=voice, speed=1.0)).duration_s

    assert await duration("<break time='9s'/>hello") < 5
    assert await duration("<speak>hello</speak>") > 1.5 * await duration("hello")
    assert await duration("[[h@l'oU]]") > 1.2 * await duration("hello")


async def test_eighteen_thousand_characters_are_spoken(engine: Engine) -> None:
    spoken = await engine.speak(LONG, voice=await voice_of(engine, "en-us"), speed=2.0)
    assert 180 * 2 < spoken.duration_s < 180 * 4


async def test_eight_at_once_are_all_right(engine: Engine) -> None:
    voice = await voice_of(engine, "en-us")
    texts = [SENTENCE * (1 + number % 3) for number in range(8)]
    alone = [(await engine.speak(text, voice=voice, speed=1.0)).duration_s for text in texts[:3]]
    spoken = await asyncio.gather(*(engine.speak(text, voice=voice, speed=1.0) for text in texts))
    for number, each in enumerate(spoken):
        assert each.duration_s == pytest.approx(alone[number % 3], rel=0.02)
    assert len(engine.pool.pids) == (PROCESSES if isinstance(engine, Espeak) else 1)


async def test_requests_take_turns(system: SystemVoices) -> None:
    voice = await voice_of(system, "en-us")
    order: list[str] = []

    async def speak(name: str) -> None:
        for _ in range(3):
            await system.speak("Hello.", voice=voice, speed=1.0)
            order.append(name)

    await asyncio.gather(speak("a"), speak("b"))
    assert sorted(order[:2]) == sorted(order[2:4]) == sorted(order[4:]) == ["a", "b"]


async def test_a_caller_that_leaves_stops_the_synthesis(engine: Engine) -> None:
    task, pid = await begun_long(engine)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not psutil.pid_exists(pid))
    spoken = await engine.speak("Hello.", voice=await voice_of(engine, "en-us"), speed=1.0)
    assert spoken.duration_s > 0.3


async def test_a_caller_that_leaves_the_line_disturbs_nobody(system: SystemVoices) -> None:
    first, pid = await begun_long(system)
    second = asyncio.create_task(system.speak("Hello.", voice=await voice_of(system, "en-us"), speed=1.0))
    await asyncio.sleep(0)
    second.cancel()
    assert (await first).duration_s > 60 * 4
    assert system.pool.pids == [pid]


async def test_a_process_that_dies_fails_its_text_alone(engine: Engine) -> None:
    task, pid = await begun_long(engine)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(UpstreamError) as caught:
        await task
    assert caught.value.code == "SPEECH_ERROR"
    spoken = await engine.speak("Hello.", voice=await voice_of(engine, "en-us"), speed=1.0)
    assert spoken.duration_s > 0.3


async def test_a_process_that_dies_while_nobody_speaks_is_replaced(engine: Engine) -> None:
    voice = await voice_of(engine, "en-us")
    (pid,) = engine.pool.pids
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not engine.pool.pids)
    assert (await engine.speak("Hello.", voice=voice, speed=1.0)).duration_s > 0.3


async def test_a_text_that_ends_the_process_ends_neither_the_server_nor_other_texts(espeak: Espeak) -> None:
    sinhala, english = await voice_of(espeak, "si"), await voice_of(espeak, "en-us")
    deadly, *others = await asyncio.gather(
        espeak.speak(DEADLY, voice=sinhala, speed=1.0),
        *(espeak.speak(SENTENCE, voice=english, speed=1.0) for _ in range(6)),
        return_exceptions=True,
    )
    assert isinstance(deadly, UpstreamError)
    assert deadly.code == "SPEECH_ERROR"
    assert all(isinstance(each, Pcm) and each.duration_s > 4 for each in others)


async def test_a_process_that_hangs_is_killed() -> None:
    system = SystemVoices(speak_s=1.0)
    try:
        voice = await voice_of(system, "en-us")
        (pid,) = system.pool.pids
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(UpstreamError, match="took too long"):
            await system.speak("Hello.", voice=voice, speed=1.0)
        await until(lambda: not psutil.pid_exists(pid))
        assert (await system.speak("Hello.", voice=voice, speed=1.0)).duration_s > 0.3
    finally:
        await system.close()


async def test_a_voice_that_is_not_there_is_not_spoken_by_another(system: SystemVoices) -> None:
    with pytest.raises(UpstreamError, match="try another voice"):
        await system.speak("Hello.", voice=Voice("nobody", "Nobody"), speed=1.0)


async def test_processes_that_nobody_uses_end() -> None:
    for engine in (Espeak(idle_s=0.05), SystemVoices(idle_s=0.05)):
        try:
            await engine.voices()
            await until(lambda engine=engine: not engine.pool.pids)  # type: ignore[misc]
            voice = await voice_of(engine, "en-us")
            assert (await engine.speak("Hello.", voice=voice, speed=1.0)).duration_s > 0.3
        finally:
            await engine.close()


async def test_a_text_that_is_spoken_when_everything_ends_is_told_so(engine: Engine) -> None:
    task, pid = await begun_long(engine)
    waiting = [asyncio.create_task(engine.speak("Hello.", voice=await voice_of(engine, "en-us"), speed=1.0)) for _ in range(4)]
    await engine.close()
    results = await asyncio.gather(task, *waiting, return_exceptions=True)
    assert all(isinstance(each, Unavailable | Pcm) for each in results)
    assert isinstance(results[0], Unavailable)
    assert not psutil.pid_exists(pid)
    with pytest.raises(Unavailable, match="were stopped"):
        await engine.speak("Hello.", voice=Voice("en-us", ""), speed=1.0)


async def test_a_module_that_does_not_start_is_told_with_what_to_do() -> None:
    pool = Pool("adapters.voices.nothing_here", 1, title="The voices of nobody", fix="Install somebody.")
    try:
        with pytest.raises(Unavailable) as caught:
            await pool.voices()
        assert caught.value.message == "The voices of nobody do not start. Install somebody."
        assert caught.value.code == "PROVIDER_UNAVAILABLE"
        assert not pool.pids
    finally:
        await pool.close()


@pytest.mark.parametrize("sentences", [100, 5000], ids=["while it speaks", "in the middle of a request"])
async def test_a_process_ends_with_its_parent(sentences: int, tmp_path: Path) -> None:
    """A parent that is killed cannot end anybody: its children see that their input ends."""
    script = (
        "import asyncio\n"
        "from adapters.voices.system import SystemVoices\n"
        "async def main():\n"
        "    system = SystemVoices()\n"
        "    voice = (await system.voices())[0]\n"
        f"    asyncio.create_task(system.speak({SENTENCE!r} * {sentences}, voice=voice, speed=1.0))\n"
        "    await asyncio.sleep(0)\n"
        "    print(system.pool.pids[0], flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )

    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert parent.stdout is not None
        async with asyncio.timeout(WAIT_S):
            while not (line := (await parent.stdout.readline()).strip()).isdigit():
                assert line, "the parent ended"
            child = int(line)
        assert psutil.pid_exists(child)
    finally:
        parent.kill()
        await parent.wait()
    await until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.long
async def test_many_lives_leave_no_process_no_descriptor_and_no_file() -> None:
    def files() -> set[str]:
        return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("homeport-voice-")}

    async def live() -> None:
        for engine in (Espeak(), SystemVoices()):
            voice = (await engine.voices())[0]
            await engine.speak("Hello.", voice=voice, speed=1.0)
            await engine.close()

    await live()
    before, left = descriptors(), files()
    for _ in range(50):
        await live()
    assert children_running("adapters.voices") == []
    assert descriptors() <= before
    assert files() <= left


async def test_the_event_loop_goes_on_while_a_long_text_is_spoken(engine: Engine) -> None:
    task, _ = await begun_long(engine)
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
    assert (await task).duration_s > 60 * 4
