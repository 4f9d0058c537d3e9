"""What speaks, as the domain sees it: engines on this machine, and services elsewhere, behind one interface."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from adapters.audio.encoded import EncodedAudio
from adapters.audio.pcm import Pcm
from adapters.voices import Voice, VoiceEngine
from adapters.voices.espeak import Espeak
from adapters.voices.piper import Piper
from adapters.voices.system import SystemVoices
from homeport.identity import Principal

UNIT_SIZE = 300


class SpeechEngine(Protocol):
    """A provider of voices.

    ``kind`` is ``client`` for one on this machine, ``server`` for a service. ``unit_size`` is how many characters it is given at once.
    With ``takes_any_voice``, voices that are not in its list are passed on to it as they are named. ``models`` can be chosen from.
    """

    id: str
    name: str
    kind: Literal["client", "server"]
    unit_size: int
    takes_any_voice: bool
    models: tuple[str, ...]

    def find_problem(self) -> str | None:
        """Why it cannot be used and what to do about it; None when it can."""

    async def voices(self) -> Sequence[Voice]:
        """Its voices, the default one first; there is at least one. Raises Unavailable."""

    async def speak(self, text: str, *, voice: Voice, speed: float, model: str | None, caller: Principal | None) -> Pcm | EncodedAudio:
        """The sound of a text of at most ``unit_size`` characters; possibly none. When the caller is cancelled, the synthesis stops.

        Raises Unavailable (PROVIDER_UNAVAILABLE), UpstreamError (SPEECH_ERROR), or what a service's adapter raises.
        """

    async def close(self) -> None:
        """End what it has started."""


class LocalEngine:
    """An engine on this machine. It has no models to choose from, and speaks for everybody alike."""

    kind: Literal["client", "server"] = "client"
    unit_size = UNIT_SIZE
    takes_any_voice = False
    models: tuple[str, ...] = ()

    def __init__(self, engine: VoiceEngine, name: str) -> None:
        self.id = engine.name
        self.name = name
        self._engine = engine
        self.find_problem = engine.find_problem
        self.voices = engine.voices
        self.close = engine.close

    async def speak(self, text: str, *, voice: Voice, speed: float, model: str | None, caller: Principal | None) -> Pcm:
        """The sound of a text. See SpeechEngine."""
        return await self._engine.speak(text, voice=voice, speed=speed)


def local_engines(data_dir: Path) -> tuple[LocalEngine, ...]:
    """The engines on this machine; the first that can be used is the default."""
    return (
        LocalEngine(Piper(data_dir / "speech" / "piper"), "Piper (neural, local)"),
        LocalEngine(Espeak(), "eSpeak NG (local)"),
        LocalEngine(SystemVoices(), "Voices of this machine"),
    )
