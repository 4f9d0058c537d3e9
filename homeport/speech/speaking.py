"""Speaking: a text as one audio file, or as a stream of files that are played while the next one is made."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adapters.audio.files import MEDIA_TYPES, AudioFormat
from adapters.voices import Voice
from homeport.errors import AppError, InvalidRequest, Unavailable
from homeport.identity import Principal
from homeport.models import Models
from homeport.settings import Settings
from homeport.speech.cloud_voices import find_cloud_voices, list_cloud_voices
from homeport.speech.cutting import clean, cut
from homeport.speech.engines import SpeechEngine, local_engines
from homeport.speech.matching import DEFAULT, choose_voice
from homeport.speech.places import Places
from homeport.speech.speeches import Plan, Speech, SpeechStream

MAX_CHARACTERS = 10_000
MIN_SPEED = 0.5
MAX_SPEED = 2.0
USUAL_SPEED = 1.0
LIST_S = 5.0


@dataclass(frozen=True, slots=True)
class VoiceProvider:
    """A provider of voices. ``note`` says why it is not configured. Without languages its voices speak any; without models it has one."""

    id: str
    name: str
    kind: Literal["client", "server"]
    is_default: bool
    note: str | None = None
    voices: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @property
    def is_configured(self) -> bool:
        """Whether it can be used."""
        return self.note is None


class Speaking:
    """The voices that there are, and speaking with them. Without ``models`` only those of this machine; ``local`` are its engines unless
    said otherwise.
    """

    def __init__(self, settings: Settings, models: Models | None, local: Sequence[SpeechEngine] | None = None) -> None:
        self._models = models
        self._local = local_engines(settings.data_dir) if local is None else local
        self._places = Places()

    async def providers(self) -> list[VoiceProvider]:
        """All providers, the default first, those that cannot be used last."""
        engines = await self._engines()
        default = _first_usable(engines)
        shown = await asyncio.gather(*(_show(each, is_default=each is default) for each in engines))
        return sorted(shown, key=lambda each: (not each.is_default, not each.is_configured))

    async def voices(self, provider: str | None = None) -> Sequence[Voice]:
        """The voices of a provider, of the default one when none is named. Raises as ``speak`` does."""
        return await (await self._engine(provider)).voices()

    async def speak(
        self,
        text: str,
        *,
        provider: str | None = None,
        voice: str | None = None,
        language: str | None = None,
        speed: float | None = None,
        model: str | None = None,
        format: str | None = None,
        caller: Principal | None = None,
    ) -> Speech:
        """The whole text as one file. When the caller is cancelled, the synthesis stops.

        Raises InvalidRequest (VALIDATION_ERROR, INVALID_PROVIDER, INVALID_VOICE, INVALID_LANGUAGE), TooManyRequests, Unavailable
        (PROVIDER_UNAVAILABLE), UpstreamError (SPEECH_ERROR), and what services raise.
        """
        plan = await self._plan(text, provider, voice, language, speed, model, format, caller)
        place = self._places.take(len(text))
        try:
            return await plan.speak_all()
        finally:
            place.leave()

    async def stream(
        self,
        text: str,
        *,
        provider: str | None = None,
        voice: str | None = None,
        language: str | None = None,
        speed: float | None = None,
        model: str | None = None,
        format: str | None = None,
        caller: Principal | None = None,
    ) -> SpeechStream:
        """The text in chunks, a sentence each; the first is there when this returns. Raises as ``speak`` does, the stream later too."""
        plan = await self._plan(text, provider, voice, language, speed, model, format, caller)
        return await SpeechStream.open(plan, self._places.take(len(text)))

    async def close(self) -> None:
        """End the engines; what is being spoken fails with Unavailable."""
        await asyncio.gather(*(each.close() for each in self._local))

    async def _plan(
        self,
        text: str,
        provider: str | None,
        voice: str | None,
        language: str | None,
        speed: float | None,
        model: str | None,
        format: str | None,
        caller: Principal | None,
    ) -> Plan:
        if not text.strip():
            raise InvalidRequest("text: there is nothing to speak.")
        if len(text) > MAX_CHARACTERS:
            raise InvalidRequest(f"text: it has {len(text)} characters, and {MAX_CHARACTERS} is the most. Split it.")
        factor, kind = _speed(speed), _format(format)
        engine = await self._engine(provider)
        chosen = choose_voice(engine.id, await engine.voices(), voice, language, takes_any=engine.takes_any_voice)
        pieces = cut(clean(text), engine.unit_size) or [""]
        return Plan(engine, chosen, pieces, factor, kind, model or None, caller)

    async def _engine(self, provider: str | None) -> SpeechEngine:
        """The provider of this name, or the default one. Raises InvalidRequest when there is none of the name."""
        name = (provider or "").strip().lower()
        if name and name != DEFAULT:
            found = next((each for each in self._local if each.id == name), None) or await self._find_service(name)
            if found is None:
                known = ", ".join(each.id for each in await self._engines())
                raise InvalidRequest(f"The voice provider '{name[:80]}' is not known. Known: {known}.", code="INVALID_PROVIDER")
            if problem := found.find_problem():
                raise Unavailable(problem, code="PROVIDER_UNAVAILABLE")
            return found
        # Services are looked at only where nothing here can speak: some of them have to be asked.
        engine = _first_usable(self._local) or _first_usable(await self._services())
        if engine is None:
            problems = " ".join(str(each.find_problem()) for each in self._local)
            raise Unavailable(f"There is no voice. {problems}", code="PROVIDER_UNAVAILABLE")
        return engine

    async def _engines(self) -> list[SpeechEngine]:
        """All engines, those that may be the default in the order of their precedence."""
        ids = {each.id for each in self._local}
        return [*self._local, *(each for each in await self._services() if each.id not in ids)]

    async def _services(self) -> Sequence[SpeechEngine]:
        return await list_cloud_voices(self._models) if self._models is not None else ()

    async def _find_service(self, name: str) -> SpeechEngine | None:
        return await find_cloud_voices(self._models, name) if self._models is not None else None


def _first_usable(engines: Sequence[SpeechEngine]) -> SpeechEngine | None:
    return next((each for each in engines if each.find_problem() is None), None)


async def _show(engine: SpeechEngine, *, is_default: bool) -> VoiceProvider:
    note = engine.find_problem()
    voices: Sequence[Voice] = ()
    if note is None:
        try:
            async with asyncio.timeout(LIST_S):
                voices = await engine.voices()
        except AppError as error:
            note = error.message
        except TimeoutError:
            note = f"It did not name its voices within {LIST_S:g} s."
    languages = sorted({language for voice in voices for language in voice.languages})
    names = tuple(each.id for each in voices)
    return VoiceProvider(engine.id, engine.name, engine.kind, is_default, note, names, tuple(languages), engine.models)


def _speed(speed: float | None) -> float:
    if speed is None:
        return USUAL_SPEED
    if not MIN_SPEED <= speed <= MAX_SPEED:
        raise InvalidRequest(f"speed: it must be {MIN_SPEED:g} to {MAX_SPEED:g}, and {speed:g} is not.")
    return float(speed)


def _format(format: str | None) -> AudioFormat:
    match (format or "wav").lower():
        case "wav":
            return "wav"
        case "mp3":
            return "mp3"
        case other:
            raise InvalidRequest(f"format: it must be {' or '.join(MEDIA_TYPES)}, and '{other[:20]}' is not.")
