"""A text while it is spoken: the plan for it, what comes of it as a whole, and as a stream."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Self

from adapters.audio.encoded import EncodedAudio
from adapters.audio.files import AudioFormat
from adapters.audio.pcm import Pcm
from adapters.voices import Voice
from homeport.identity import Principal
from homeport.speech.cutting import pack
from homeport.speech.engines import SpeechEngine
from homeport.speech.joining import check_length, join
from homeport.speech.places import Place

SILENCE = Pcm(b"", 22_050)


@dataclass(frozen=True, slots=True)
class Speech:
    """A text that was spoken: a file, and who spoke."""

    content: bytes = field(repr=False)
    media_type: str
    provider: str
    voice: str


@dataclass(frozen=True, slots=True)
class SpeechChunk:
    """A part of a text that was spoken: a file of its own, number ``index`` (from 0) of ``total``."""

    index: int
    total: int
    content: bytes = field(repr=False)
    media_type: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Who speaks which pieces, and how. Empty pieces are silence."""

    engine: SpeechEngine
    voice: Voice
    pieces: list[str]
    speed: float
    format: AudioFormat
    model: str | None
    caller: Principal | None

    async def speak(self, piece: str) -> Pcm | EncodedAudio:
        """The sound of a piece."""
        if not piece:
            return SILENCE
        return await self.engine.speak(piece, voice=self.voice, speed=self.speed, model=self.model, caller=self.caller)

    async def speak_all(self) -> Speech:
        """The sound of all pieces, as one file."""
        parts: list[Pcm | EncodedAudio] = []
        duration_s = 0.0
        for piece in pack(self.pieces, self.engine.unit_size):
            part = await self.speak(piece)
            parts.append(part)
            duration_s += part.duration_s if isinstance(part, Pcm) else 0.0
            check_length(duration_s)
        file = await asyncio.to_thread(join, parts, self.format)
        return Speech(file.content, file.media_type, self.engine.id, self.voice.id)


class SpeechStream:
    """A text that is being spoken: iterate over its chunks, and ``aclose()`` to stop at once. The next is made when it is asked for."""

    def __init__(self, plan: Plan, chunks: AsyncGenerator[SpeechChunk], first: SpeechChunk) -> None:
        self.total = len(plan.pieces)
        self.provider = plan.engine.id
        self.voice = plan.voice.id
        self._chunks = chunks
        self._first: SpeechChunk | None = first

    @classmethod
    async def open(cls, plan: Plan, place: Place) -> Self:
        """Make the first chunk, so that what goes wrong at once is raised here."""
        chunks = _chunks(plan, place)
        return cls(plan, chunks, await anext(chunks))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SpeechChunk:
        first, self._first = self._first, None
        return first if first is not None else await anext(self._chunks)

    async def aclose(self) -> None:
        """Stop the synthesis."""
        await self._chunks.aclose()


async def _chunks(plan: Plan, place: Place) -> AsyncGenerator[SpeechChunk]:
    total = len(plan.pieces)
    try:
        for index, piece in enumerate(plan.pieces):
            file = await asyncio.to_thread(join, [await plan.speak(piece)], plan.format)
            place.have_sent(len(piece))
            yield SpeechChunk(index, total, file.content, file.media_type)
    finally:
        place.leave()
