"""One engine for speech in a process of its own: asked what it takes when it is loaded, how fast it is, or to say something to a file.

``python -m tests.bench.peers.speech_calls ENGINE FILE``: recognisers hear what is in FILE, samples at 16 kHz.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from logging import WARNING
from pathlib import Path
from typing import Any

import psutil
import structlog

from adapters.audio.pcm import Pcm
from adapters.recognizers import Recognizer
from adapters.recognizers.pocketsphinx import PocketSphinx
from adapters.recognizers.whisper import Whisper
from adapters.voices import VoiceEngine
from adapters.voices.espeak import Espeak
from adapters.voices.system import SystemVoices
from tests.bench.workers import answer_questions

SENTENCES = (
    "The night train waited for the gardener in the middle of July, and nobody asked why.",
    "Please open the blue door before breakfast and quietly repair the leaking roof.",
    "Our accountant wrote a letter about an unpaid invoice and never forgot the answer.",
)
HEARD_HZ = 16_000
MB = 2**20

# One use of an engine gives the sound that it made or heard.
Use = Callable[[], Coroutine[Any, Any, Pcm]]


def voice(engine: VoiceEngine) -> Use:
    """Speak the sentences, one after the other."""

    async def use() -> Pcm:
        chosen = next(each for each in await engine.voices() if not each.languages or any(tag.startswith("en") for tag in each.languages))
        spoken = [await engine.speak(sentence, voice=chosen, speed=1) for sentence in SENTENCES]
        return Pcm(b"".join(each.samples for each in spoken), spoken[0].rate)

    return use


def recogniser(engine: Recognizer, heard: Pcm, model: str | None = None) -> Use:
    """Write down what is heard."""

    async def use() -> Pcm:
        await engine.transcribe(heard, model=model, language="en")
        return heard

    return use


def as_heard(pcm: Pcm) -> bytes:
    """The same at the rate of recognisers."""
    import numpy as np

    samples = np.frombuffer(pcm.samples, np.int16)
    places = np.arange(int(len(samples) * HEARD_HZ / pcm.rate)) * (pcm.rate / HEARD_HZ)
    return bytes(np.interp(places, np.arange(len(samples)), samples).astype(np.int16).tobytes())


def make(engine: str, file: Path) -> Use:
    """The engine of this name, not loaded yet."""
    match engine:
        case "espeak":
            return voice(Espeak())
        case "system":
            return voice(SystemVoices())
        case "pocketsphinx":
            return recogniser(PocketSphinx(), Pcm(file.read_bytes(), HEARD_HZ))
        case _:
            folder = Path(engine)
            return recogniser(Whisper(folder.parent), Pcm(file.read_bytes(), HEARD_HZ), folder.name)


def _memory() -> dict[str, float]:
    """Resident megabytes of this process and of those that it has started."""
    process = psutil.Process()
    children = [child.memory_info().rss for child in process.children(recursive=True)]
    return {"own_mb": process.memory_info().rss / MB, "others_mb": sum(children) / MB, "others": len(children)}


async def measure_memory(use: Use) -> dict[str, float]:
    """What the first use adds, and what it took."""
    before = _memory()
    started = time.perf_counter()
    await use()
    first_s = time.perf_counter() - started
    after = _memory()
    return {"own_mb": after["own_mb"] - before["own_mb"], "others_mb": after["others_mb"], "others": after["others"], "first_s": first_s}


async def measure_speed(use: Use, count: int) -> dict[str, Any]:
    """How many seconds each of so many uses took, and how many seconds of sound it was."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        sound = await use()
        times.append(time.perf_counter() - started)
    return {"times": times, "sound_s": sound.duration_s}


def main(engine: str, file: Path) -> None:
    """Answer what is asked: ``memory``, ``record``, or how many uses to time."""
    use = make(engine, file)
    with asyncio.Runner() as runner:

        def answer(question: Any) -> Any:
            match question:
                case "memory":
                    return runner.run(measure_memory(use))
                case "record":
                    return file.write_bytes(as_heard(runner.run(use())))
                case _:
                    return runner.run(measure_speed(use, question))

        answer_questions(answer)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(WARNING))
    main(sys.argv[1], Path(sys.argv[2]))
