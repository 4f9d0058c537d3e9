"""Voices of services: every model provider that speaks, through the transports of ``homeport.models``."""

from collections.abc import Sequence
from typing import Literal

from adapters.audio.encoded import EncodedAudio
from adapters.audio.pcm import Pcm
from adapters.voices import Voice
from homeport.identity import Principal
from homeport.models import Models, Speaker


class CloudVoices:
    """One provider that speaks, as the engine that it is among those of this machine. Other voices than its list has may be named."""

    kind: Literal["client", "server"] = "server"
    takes_any_voice = True

    def __init__(self, models: Models, speaker: Speaker) -> None:
        self.id = speaker.name
        self.name = speaker.traits.title or speaker.name
        self.unit_size = speaker.traits.max_characters
        self.models = speaker.models
        self._models = models
        self._problem = speaker.problem
        self._voices = tuple(Voice(name, name) for name in speaker.traits.voices)

    def find_problem(self) -> str | None:
        """Why it cannot be used and what to do about it; None when it can."""
        return self._problem

    async def voices(self) -> Sequence[Voice]:
        """The voices that it is known to have, the usual one first."""
        return self._voices

    async def speak(self, text: str, *, voice: Voice, speed: float, model: str | None, caller: Principal | None) -> Pcm | EncodedAudio:
        """The sound of a text. Raises the errors of ``adapters.model_failures``. Cancelled, it closes the connection."""
        usual = None if speed == 1 else speed
        spoken = await self._models.speak(text, voice=voice.id, speed=usual, caller=caller, provider=self.id, model=model)
        return spoken.audio

    async def close(self) -> None:
        """Nothing: the connections are those of ``Models``."""


async def list_cloud_voices(models: Models) -> list[CloudVoices]:
    """All providers that speak, and those that would if there was a key. Waits up to 2 s for what a provider tells of its models."""
    return [CloudVoices(models, speaker) for speaker in await models.speakers()]


async def find_cloud_voices(models: Models, name: str) -> CloudVoices | None:
    """One of them, without asking anybody."""
    speaker = await models.find_speaker(name)
    return CloudVoices(models, speaker) if speaker else None
