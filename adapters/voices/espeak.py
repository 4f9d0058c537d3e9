"""eSpeak NG: the voice that is always there. Two or three processes speak at once, because it aborts its process over some texts."""

import os
from collections.abc import Sequence
from importlib.util import find_spec

from adapters.audio.pcm import Pcm
from adapters.voices import Voice, words_per_minute
from adapters.voices.pool import IDLE_S, Pool

DEFAULT = "en-us"
PROCESSES = max(2, min(3, os.cpu_count() or 2))


class Espeak:
    """The engine. ``idle_s`` is how long its processes are kept for the next text."""

    name = "espeak"

    def __init__(self, *, idle_s: float = IDLE_S) -> None:
        fix = "Install espeakng-loader again."
        self.pool = Pool("adapters.voices.espeak_process", PROCESSES, title="The voices of eSpeak NG", fix=fix, idle_s=idle_s)
        self._voices: tuple[Voice, ...] = ()
        self._identifiers: dict[str, str] = {}

    def find_problem(self) -> str | None:
        """Why it cannot be used: its library is missing."""
        return None if find_spec("espeakng_loader") else "eSpeak NG is not installed: pip install espeakng-loader"

    async def voices(self) -> Sequence[Voice]:
        """Some 140 voices; the id of each is the last part of its identifier, such as ``en-us``."""
        if not self._voices:
            listed = await self.pool.voices()
            variants = tuple(listed["variants"])
            self._identifiers = {_id_of(identifier): identifier for identifier, _, _ in listed["voices"]}
            voices = [
                Voice(_id_of(identifier), name, tuple(map(str.lower, languages)), (identifier,), variants)
                for identifier, name, languages in listed["voices"]
            ]
            self._voices = tuple(sorted(voices, key=lambda voice: voice.id != DEFAULT))
        return self._voices

    async def speak(self, text: str, *, voice: Voice, speed: float) -> Pcm:
        """The sound of a text. See VoiceEngine."""
        name, plus, variant = voice.id.partition("+")
        return await self.pool.speak(text, f"{self._identifiers.get(name, name)}{plus}{variant}", words_per_minute(speed))

    async def close(self) -> None:
        """End its processes."""
        await self.pool.close()


def _id_of(identifier: str) -> str:
    return identifier.rpartition("/")[2].lower()
