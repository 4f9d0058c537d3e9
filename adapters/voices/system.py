"""The machine's own voices, through pyttsx3 in a process of its own. One text at a time: that is all it can do."""

import tempfile
from collections.abc import Sequence
from importlib.util import find_spec

from adapters.audio.pcm import Pcm
from adapters.voices import Voice, words_per_minute
from adapters.voices.pool import IDLE_S, SPEAK_S, Pool


class SystemVoices:
    """The engine. ``idle_s`` is how long its process is kept for the next text, ``speak_s`` how long it may take for one."""

    name = "system"

    def __init__(self, *, idle_s: float = IDLE_S, speak_s: float = SPEAK_S) -> None:
        self.pool = Pool(
            "adapters.voices.system_process",
            1,
            title="The machine's own voices",
            fix="On Linux, try: apt-get install libespeak-ng1",
            idle_s=idle_s,
            speak_s=speak_s,
        )
        self._voices: tuple[Voice, ...] = ()

    def find_problem(self) -> str | None:
        """Why it cannot be used: pyttsx3 is missing."""
        return None if find_spec("pyttsx3") else "The machine's own voices need pyttsx3: pip install pyttsx3"

    async def voices(self) -> Sequence[Voice]:
        """The voices that the machine had when it was asked first."""
        if not self._voices:
            listed = await self.pool.voices()
            self._voices = tuple(Voice(id, name, tuple(map(_tag, languages))) for id, name, languages in listed)
        return self._voices

    async def speak(self, text: str, *, voice: Voice, speed: float) -> Pcm:
        """The sound of a text. See VoiceEngine."""
        with tempfile.TemporaryDirectory(prefix="homeport-voice-", ignore_cleanup_errors=True) as folder:
            return await self.pool.speak(text, voice.id, words_per_minute(speed), folder=folder)

    async def close(self) -> None:
        """End its process."""
        await self.pool.close()


def _tag(language: str) -> str:
    return language.replace("_", "-").lower()
