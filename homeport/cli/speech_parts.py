"""What ``homeport speech`` works with: the parts of speech without the rest of a home, or a home where services are to speak."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from homeport.cli.running import command_settings, with_home

if TYPE_CHECKING:
    from homeport.settings import Settings
    from homeport.speech.listening import Listening
    from homeport.speech.recognition import Recognition
    from homeport.speech.speaking import Speaking

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SpeechParts:
    """Speech on this machine. ``speaking`` knows no services."""

    speaking: "Speaking"
    recognition: "Recognition"
    listening: "Listening"


@dataclass(frozen=True, slots=True)
class Engine:
    """Something that speaks, listens or records. ``problem`` says why it cannot, and what to do about that."""

    kind: Literal["voice", "recogniser", "microphone"]
    name: str
    is_default: bool
    details: str
    problem: str | None


def with_speech(work: Callable[[SpeechParts], Awaitable[T]]) -> T:
    """Do ``work`` with speech on this machine, and end what that has started. Raises what it raises."""
    settings = command_settings()

    async def run() -> T:
        async with open_speech(settings) as parts:
            return await work(parts)

    return asyncio.run(run())


def with_voices(provider: str | None, work: "Callable[[Speaking], Awaitable[T]]") -> T:
    """Do ``work`` with the voices of this machine, or with all of them, which takes the database, for another ``provider``."""
    from homeport.speech.engines import local_engines

    settings = command_settings()
    if provider is None or provider.strip().lower() in {"", "default", *(each.id for each in local_engines(settings.data_dir))}:
        return with_speech(lambda parts: work(parts.speaking))
    return with_home(lambda home: work(home.speaking))


@asynccontextmanager
async def open_speech(settings: "Settings") -> AsyncIterator[SpeechParts]:
    """Speech on this machine, without a database."""
    from homeport.speech.listening import Listening
    from homeport.speech.recognition import Recognition
    from homeport.speech.speaking import Speaking

    recognition = Recognition(settings)
    speaking = Speaking(settings, None)
    try:
        yield SpeechParts(speaking, recognition, Listening(recognition, settings.data_dir))
    finally:
        await asyncio.gather(recognition.close(), speaking.close())


async def list_engines(parts: SpeechParts) -> list[Engine]:
    """All that there is, of each kind the default first."""
    voices, recognizers = await asyncio.gather(parts.speaking.providers(), parts.recognition.providers())
    return [
        *(Engine("voice", each.id, each.is_default, f"{len(each.voices)} voices" if each.voices else "", each.note) for each in voices),
        *(
            Engine("recogniser", each.id, number == 0 and not each.problem, ", ".join(model.id for model in each.models), each.problem)
            for number, each in enumerate(recognizers)
        ),
        await find_microphone(),
    ]


async def find_microphone() -> Engine:
    """The default microphone."""
    from adapters.audio.microphone import MicrophoneUnavailable, find_microphone

    try:
        return Engine("microphone", "default", True, await find_microphone(), None)
    except MicrophoneUnavailable as error:
        return Engine("microphone", "default", False, "", error.message)
