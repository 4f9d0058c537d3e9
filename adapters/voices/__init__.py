"""Voices: what turns a text into sound, each engine in a module of its own. Nothing heavy is imported before an engine speaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from adapters.audio.pcm import Pcm

USUAL_WPM = 175
MIN_WPM = 80
MAX_WPM = 700


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice of one engine.

    ``languages`` are tags such as ``en-gb``, the one that it speaks best first; none means that it speaks any. ``aliases`` are other
    names that engine knows it by. ``variants`` may follow the id after a ``+`` and change how it sounds.
    """

    id: str
    name: str
    languages: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()


class VoiceEngine(Protocol):
    """Something on this machine that speaks."""

    name: str

    def find_problem(self) -> str | None:
        """Why it cannot be used and what to do about it; None when it can. Cheap: nothing is loaded."""

    async def voices(self) -> Sequence[Voice]:
        """Its voices, the default one first; at least one. Raises Unavailable or UpstreamError when it cannot be used after all."""

    async def speak(self, text: str, *, voice: Voice, speed: float) -> Pcm:
        """The sound of a text of about a sentence; possibly none. When the caller is cancelled, the synthesis stops.

        ``voice`` is one of its own, its id perhaps with ``+`` and a variant. ``speed`` is a factor, 1 as usual.
        Raises Unavailable (PROVIDER_UNAVAILABLE) or UpstreamError (SPEECH_ERROR).
        """

    async def close(self) -> None:
        """End what it has started and free its memory."""


def words_per_minute(speed: float) -> int:
    """What engines that count words take for a factor."""
    return round(min(max(USUAL_WPM * speed, MIN_WPM), MAX_WPM))
